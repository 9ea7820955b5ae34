"""What a faulty network can do wrong, and when: on order, or drawn from a seed."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from darkroom.twin.wires import Moment


class Kind(Enum):
    """What can go wrong."""

    CUT_BEFORE_COMMIT = "cut_before_commit"
    """Cut; the server never sees the COMMIT."""
    CUT_AFTER_COMMIT = "cut_after_commit"
    """The COMMIT is done and the server said so; its answer is swallowed, then both sides are cut."""
    CUT_REQUEST = "cut_request"
    """Half of the request goes out, then both sides are cut."""
    CUT_RESPONSE = "cut_response"
    """The whole request goes out; both sides are cut when its answer begins to come."""
    TRUNCATE = "truncate"
    """Half of the answer's beginning comes through, then both sides are cut."""
    HALF_CLOSE_CLIENT = "half_close_client"
    """The request goes out and the client reads an end. The server is told nothing: it keeps everything."""
    HALF_CLOSE_SERVER = "half_close_server"
    """The request goes out and the server reads an end. The client is told nothing: it waits."""
    DELAY = "delay"
    """The request waits for `seconds`."""
    STALL = "stall"
    """Nothing passes in either direction; after `seconds`, or `calm`, what was sent arrives late."""


COMMIT_KINDS: Final = frozenset({Kind.CUT_BEFORE_COMMIT, Kind.CUT_AFTER_COMMIT})
"""These strike at a commit; the others at anything."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure.

    Attributes:
        seconds: how long a delay or a stall is, and after what time the other side of a half-closed
            connection learns of it, too. None waits for `calm`.
    """

    kind: Kind
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Passing:
    """Something about to pass.

    Attributes:
        moment: what it is.
        number: the how many-th of its moment on this network, from 1.
        connection: the how many-th connection it is on, from 1.
        text: the beginning of the statement, or the request line.
    """

    moment: Moment
    number: int
    connection: int
    text: str


Faults = Callable[[Passing], Fault | None]


def no_faults(_passing: Passing) -> Fault | None:
    """Nothing goes wrong."""
    return None


class SeededFaults:
    """Faults drawn from a seed. Only the seed, the moment and its number decide, whatever comes between.

    Args:
        seed: what is drawn from.
        rates: the share of moments that each kind strikes; together at most 1. The two kinds of a commit
            have their share of the commits, the others of every request and commit.
        seconds_max: delays, stalls and half-closed connections last up to this long.

    Raises:
        ValueError: shares that make more than 1.
    """

    def __init__(self, seed: int, rates: Mapping[Kind, float], *, seconds_max: float) -> None:
        if sum(rates.values()) > 1 or min(rates.values(), default=0) < 0:
            raise ValueError("the shares of all faults must be between 0 and 1 together")
        self._seed = seed
        self._rates = {kind: rates[kind] for kind in Kind if kind in rates}
        self._seconds_max = seconds_max

    def __call__(self, passing: Passing) -> Fault | None:
        """The fate of this moment."""
        lot = random.Random(f"{self._seed}/{passing.moment.value}/{passing.number}")  # noqa: S311 - to repeat a run
        drawn = lot.random()
        for kind, rate in self._rates.items():
            if kind in COMMIT_KINDS and passing.moment is not Moment.COMMIT:
                continue
            drawn -= rate
            if drawn < 0:
                return Fault(kind, lot.uniform(0, self._seconds_max))
        return None
