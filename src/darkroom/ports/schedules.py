"""What we ask of a clock outside: to call one of our addresses again and again. Set twice is set once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class SchedulesUnavailableError(Exception):
    """They could not be read or set; the text says why. What was asked for may have been done: ask again."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule as the clock has it.

    Attributes:
        cron: five fields, in UTC unless it says otherwise.
        next_at: when it calls next, where that is told.
    """

    id: str
    url: str
    cron: str
    is_paused: bool
    next_at: datetime | None


class Schedules(Protocol):
    """The schedules of one account."""

    async def install(self, schedule_id: str, *, path: str, cron: str) -> None:
        """Have `path` of ours called, by a POST. The same id overwrites: any number of times is once.

        Raises:
            SchedulesUnavailableError.
        """
        ...

    async def list(self) -> list[Schedule]:
        """All of the account. Raises SchedulesUnavailableError."""
        ...

    async def remove(self, schedule_id: str) -> bool:
        """Call it no more. False: there was none. Raises SchedulesUnavailableError."""
        ...
