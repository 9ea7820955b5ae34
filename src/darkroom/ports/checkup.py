"""What `darkroom doctor` asks of each configured part: is it really there, and is it set up right?"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How a part is."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    """It works, or could not be seen from here; somebody should look."""
    WRONG = "wrong"
    """With this, orders would wait or fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do about it. Never holds a secret."""

    grade: Grade
    text: str
    advice: str = ""


def well(text: str) -> Finding:
    """It works: what was seen."""
    return Finding(Grade.WELL, text)


def doubtful(text: str, advice: str) -> Finding:
    """Somebody should look."""
    return Finding(Grade.DOUBTFUL, text, advice)


def wrong(text: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(Grade.WRONG, text, advice)


@dataclass(frozen=True, slots=True)
class Check:
    """One part and how it is examined. Harmless to repeat; costs no generation and moves no money."""

    part: str
    examine: Callable[[], Awaitable[Finding]]
