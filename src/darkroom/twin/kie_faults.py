"""What the stand-in of kie.ai can do wrong, and how it behaves when it does nothing wrong."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Literal

Door = Literal["create", "ask", "result", "callback", "link", "credit"]


Painter = Callable[[dict[str, Any], list[bytes]], Awaitable[bytes]]


class Kind(Enum):
    """One way to misbehave.

    At `create`, all but ANSWER have made the task: that is what makes them dangerous.
    """

    NONE = auto()
    ANSWER = auto()
    """`code` is answered and nothing is done."""
    COMMIT_THEN_ANSWER = auto()
    """`create`: the task is made, then `code` is answered."""
    DROP = auto()
    """The connection is closed with no answer."""
    HANG = auto()
    """No answer, ever."""
    GARBAGE = auto()
    """A proxy's page instead of JSON."""
    HUGE = auto()
    """An answer larger than anybody should read."""
    BLANK = auto()
    """A success without data."""
    CALLBACK_FIRST = auto()
    """`create`: done and called back before the answer."""
    FAILS = auto()
    """`create`: the task is made, and fails in the end; another of the same wish need not."""
    STRANGE_STATE = auto()
    """`ask`: a state that no page of kie.ai names."""
    OTHER_TASK = auto()
    """`ask`: a record under another task's id."""
    DRIP = auto()
    """`result`: a byte now and then."""
    TRUNCATED = auto()
    """`result`: half of it, then the connection is closed."""
    NOT_A_PICTURE = auto()
    """`result`: a page with status 200."""
    REDIRECT = auto()
    """`result`: to the address in `text`."""
    LOST = auto()
    """`callback`: never sent."""
    TWICE = auto()
    """`callback`: sent twice."""
    LATE = auto()
    """`callback`: sent when its task may long be settled."""
    FORGED = auto()
    """`callback`: one about a task that never was comes before the true one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour, for one request."""

    kind: Kind
    code: int = 500
    text: str = ""
    retry_after: str | None = None


FINE: Final = Fault(Kind.NONE)
CHAOS: Final[dict[Door, tuple[Fault, ...]]] = {
    "create": (
        *(Fault(Kind.ANSWER, code) for code in (402, 429, 455, 500)),
        *(Fault(kind) for kind in (Kind.COMMIT_THEN_ANSWER, Kind.DROP, Kind.GARBAGE)),
        *(Fault(kind) for kind in (Kind.BLANK, Kind.CALLBACK_FIRST, Kind.FAILS)),
    ),
    "ask": (
        *(Fault(Kind.ANSWER, code) for code in (422, 429, 500)),
        *(Fault(kind) for kind in (Kind.DROP, Kind.GARBAGE, Kind.STRANGE_STATE)),
    ),
    "result": (
        Fault(Kind.ANSWER, 503),
        *(Fault(kind) for kind in (Kind.DROP, Kind.TRUNCATED, Kind.NOT_A_PICTURE)),
    ),
    "callback": tuple(Fault(kind) for kind in (Kind.LOST, Kind.TWICE, Kind.FORGED)),
    "link": (Fault(Kind.ANSWER, 500), Fault(Kind.DROP), Fault(Kind.GARBAGE)),
    "credit": (Fault(Kind.ANSWER, 500), Fault(Kind.DROP), Fault(Kind.GARBAGE)),
}
"""What a seed draws from: each of it can be survived without losing a photo."""


@dataclass(slots=True)
class Habits:
    """How the twin behaves when nothing is scripted. May be changed while it runs.

    Attributes:
        api_key: the only key it knows.
        errors_in_body: errors come as HTTP 200 with a code in the body, else as HTTP statuses.
        creates_limit: creations in ten seconds of the twin's clock; None is no limit.
        asks_to_finish: a task succeeds at its n-th question; None waits for `finish`.
        seconds_to_finish: a task succeeds at this age on the twin's clock.
        unknown_for_asks: so many questions about a task are answered "recordInfo is null" first.
        reads_references: input addresses are fetched; one that fails fails the task with 451.
        price_credits: of one task.
        credits_left: on the account; a creation that it does not cover is answered 402.
        credit_field: older records spell it `consumeCredits`.
        fault_rate: the share of requests that get a fault of CHAOS.
        failed_share: the share of wishes that never become a picture, however often they are tried (400).
        seed: what those are drawn from.
        hmac_key: signs callbacks when there is one.
        result_seconds: a result's link is dead this long after the task's end; None: it never dies.
        link_seconds: a temporary link of download-url is good for so long.
        create_seconds: a creation is made at once and answered this much later.
        painter: makes the pictures, from the order and its references; None paints small ones by itself.
        chaos: what a seed draws from, by door.
    """

    api_key: str = "twin-key"
    errors_in_body: bool = False
    creates_limit: int | None = 20
    asks_to_finish: int | None = None
    seconds_to_finish: float | None = None
    unknown_for_asks: int = 0
    reads_references: bool = False
    price_credits: float = 18
    credits_left: float = 100_000
    credit_field: str = "creditsConsumed"
    fault_rate: float = 0
    failed_share: float = 0
    seed: int = 0
    hmac_key: str | None = None
    result_seconds: float | None = None
    link_seconds: float = 1200
    create_seconds: float = 0
    painter: Painter | None = None
    chaos: Mapping[Door, tuple[Fault, ...]] = field(default_factory=lambda: CHAOS)
