"""Several crashes in one telling, and the verdict on each place all the same.

A telling costs seconds, so that it is struck at several places, from all over the code. A place that such a
telling did not pass (an earlier crash led the day another way), or every place of a telling that ended wrongly,
is struck in a day of its own: the failure names that place, or says that only together they go wrong.

One crash may mend what another broke: a process that is new, a lease that ran out meanwhile. Struck alone is
what `make soak` does, and `CRASH_TOGETHER=1`; for one place with `-k "submit.after_call:vanish"`. Without that
variable `-k` runs the telling that is struck there and elsewhere.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

from tests.crash.places import Place
from tests.crash.vanishing import Crash

VISITS: Final = int(os.environ.get("CRASH_VISITS", "1"))
"""At how many of its visits each place is struck, one in each case. `make soak` asks for more, each alone."""


def together(usually: int) -> int:
    """At how many places one telling is struck."""
    return 1 if VISITS > 1 else int(os.environ.get("CRASH_TOGETHER", str(usually)))


def in_groups(places: Sequence[Place], size: int) -> list[list[Place]]:
    """Groups of that size at most. Neighbours in the list, who are so in the code, never share a day."""
    stride = -(-len(places) // size)
    return [list(places[first::stride]) for first in range(stride)]


def name_of(group: list[Place]) -> str:
    """The id of the group's case: it names each place."""
    return "+".join(map(str, group))


def strike_each(group: list[Place], strike: Callable[[Crash], None], visit: int = 1) -> None:
    """Every place of the group is struck, and the day ends well: all in one day, or each in its own.

    Args:
        group: the places.
        strike: a day of its own with that crash, and the verdict.
        visit: at which of its visits each is struck; from the second on there may be none.

    Raises:
        AssertionError: a place goes wrong alone (a note names it), all of them only together, or the day
            never passes one.
    """
    crashes = Crash(*group, visit=visit)
    wrong: Exception | None = None
    if len(group) > 1:
        try:
            strike(crashes)
        except Exception as error:  # noqa: BLE001 - whatever it was, each place is struck again alone
            wrong = error
    for place in group if wrong else crashes.missed:
        crash = Crash(place, visit=visit)
        try:
            strike(crash)
        except Exception as error:
            error.add_note(f"struck at {place} alone")
            raise
        assert crash.happened or visit > 1, f"the story never passes {place}"
    if wrong:
        names = ", ".join(map(str, crashes.struck))
        raise AssertionError(f"each alone ends well, together they do not: {names}") from wrong
