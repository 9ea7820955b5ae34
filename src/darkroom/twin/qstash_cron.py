"""When a schedule fires: five fields in UTC, or in the zone that `CRON_TZ=Area/City` names."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

_FIELDS: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_DAYS_MAX: Final = 366 * 8
"""The longest way to a 29th of February."""
_SUNDAY_TOO: Final = 7


def _read_field(text: str, first: int, last: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        begin = first if span == "*" else int(low)
        end = last if span == "*" or (step and not high) else int(high or low)
        if not (first <= begin <= end <= last and int(step or 1) > 0):
            raise ValueError(f"{part} is out of range")
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression that was understood."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: tzinfo

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read it. Raises ValueError."""
        words = text.split()
        zone: tzinfo = UTC
        if words and words[0].startswith("CRON_TZ="):
            zone = ZoneInfo(words.pop(0).removeprefix("CRON_TZ="))
        if len(words) != len(_FIELDS):
            raise ValueError(f"{len(words)} fields instead of {len(_FIELDS)}")
        fields = [_read_field(word, *bounds) for word, bounds in zip(words, _FIELDS, strict=True)]
        return cls(*fields, any_day=words[2] == "*", any_weekday=words[4] == "*", zone=zone)

    def next_after(self, seconds: float) -> float:
        """The first moment to fire after this one, in unix seconds. Raises ValueError if there is none."""
        after = datetime.fromtimestamp(seconds, self.zone)
        for number in range(_DAYS_MAX):
            day = after.date() + timedelta(days=number)
            if not self._has_day(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                    if moment.timestamp() > seconds:
                        return moment.timestamp()
        raise ValueError("it never fires")

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        weekday = day.isoweekday()
        by_weekday = weekday in self.weekdays or (
            weekday == _SUNDAY_TOO and not self.weekdays.isdisjoint({0, _SUNDAY_TOO})
        )
        by_day = day.day in self.days
        # Both named: either will do, as crons have always had it.
        if not self.any_day and not self.any_weekday:
            return by_day or by_weekday
        return by_day and by_weekday
