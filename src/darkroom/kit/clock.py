"""The time of the program. What the database decides uses the database's own clock instead."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Now, with a time zone."""
    return datetime.now(UTC)
