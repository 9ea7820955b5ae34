"""What the stand-in of QStash can do wrong, and how it behaves when it does nothing wrong."""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

Door = Literal["publish", "delivery"]


class Kind(Enum):
    """One way to misbehave."""

    NONE = auto()
    ANSWER = auto()
    """`publish`: `code` is answered and nothing is kept."""
    DROP = auto()
    """`publish`: the connection is closed with no answer, and nothing is kept."""
    KEEP_THEN_DROP = auto()
    """`publish`: the message is kept, then the connection is closed with no answer."""
    HANG = auto()
    """`publish`: no answer, ever; nothing is kept."""
    GARBAGE = auto()
    """`publish`: the message is kept, and a proxy's page answers."""
    HUGE = auto()
    """`publish`: the message is kept; an answer larger than anybody should read."""
    LATE = auto()
    """`delivery`: a while after it was due, so that others overtake it."""
    LOST = auto()
    """`delivery`: this try never leaves; the next one does."""
    TWICE = auto()
    """`delivery`: once more after a 2xx."""
    AT_ONCE = auto()
    """`delivery`: two of the same side by side."""
    NEXT_KEY = auto()
    """`delivery`: signed with the next key, as right after a rotation."""
    EXPIRED = auto()
    """`delivery`: its signature is ten minutes old."""
    WRONG_SUB = auto()
    """`delivery`: signed for another address."""
    CORRUPT = auto()
    """`delivery`: the body is not the one that was signed."""
    STRANGER = auto()
    """`delivery`: signed by somebody else's key, as after two rotations."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour, for one request."""

    kind: Kind
    code: int = 500


FINE: Final = Fault(Kind.NONE)
CHAOS: Final[dict[Door, tuple[Fault, ...]]] = {
    "publish": (
        *(Fault(Kind.ANSWER, code) for code in (429, 500, 503)),
        *(Fault(kind) for kind in (Kind.DROP, Kind.KEEP_THEN_DROP, Kind.GARBAGE)),
    ),
    "delivery": tuple(
        Fault(kind)
        for kind in (
            *(Kind.LATE, Kind.LOST, Kind.TWICE, Kind.AT_ONCE),
            *(Kind.NEXT_KEY, Kind.EXPIRED, Kind.WRONG_SUB, Kind.CORRUPT),
        )
    ),
}
"""What a seed draws from: each of it can be survived without losing anything."""


@dataclass(slots=True)
class Habits:
    """How the twin behaves when nothing is scripted. May be changed while it runs.

    Attributes:
        token: the only one it knows.
        current_key, next_key: what deliveries are signed with.
        time_scale: its clock runs so many times as fast as ours, from its start: hours in seconds.
        answer_seconds: how long a delivery waits for an answer, in our time.
        late_seconds: how late a late delivery is, on its clock.
        messages_daily: so many messages are taken; None is no limit.
        schedules_max: of the plan.
        fault_rate: the share of requests that get a fault of `chaos`.
        seed: what those are drawn from.
        chaos: what a seed draws from, by door.
    """

    token: str = "twin-token"  # noqa: S105 - opens a stand-in on loopback
    current_key: str = "twin-signing-key-current-000000000001"
    next_key: str = "twin-signing-key-next-00000000000002"
    time_scale: float = 1
    answer_seconds: float = 30
    late_seconds: float = 30
    messages_daily: int | None = None
    schedules_max: int = 10
    fault_rate: float = 0
    seed: int = 0
    chaos: Mapping[Door, tuple[Fault, ...]] = field(default_factory=lambda: CHAOS)


class Lots:
    """What goes wrong next: what a script says, else what only the seed, the door and the count decide.

    Attributes:
        struck: how often each fault that the seed drew was given, by door and kind.
    """

    def __init__(self, habits: Habits) -> None:
        self.struck: Counter[str] = Counter()
        self._habits = habits
        self._requests: Counter[Door] = Counter()
        self._scripts: defaultdict[Door, deque[Fault]] = defaultdict(deque)

    def script(self, door: Door, *faults: Fault) -> None:
        """The next requests at this door get these faults, one each."""
        self._scripts[door].extend(faults)

    def draw(self, door: Door) -> Fault:
        """The fault of the next request at this door."""
        self._requests[door] += 1
        if self._scripts[door]:
            return self._scripts[door].popleft()
        lot = f"{self._habits.seed}/{door}/{self._requests[door]}"
        digest = hashlib.sha256(lot.encode()).digest()
        if int.from_bytes(digest[:4]) / 2**32 >= self._habits.fault_rate:
            return FINE
        lots = self._habits.chaos[door]
        fault = lots[int.from_bytes(digest[4:8]) % len(lots)]
        self.struck[f"{door} {fault.kind.name.lower()}"] += 1
        return fault
