"""A crash at every place of the code, then the rest of the day: nothing lost, nothing doubled.

The places are read from the code (`places`). One that the story never passes fails the test, so that a new
one cannot be forgotten.

A telling of the day costs seconds, so that it is struck at several places, from all over the code. A place that
such a telling did not pass (an earlier crash led the day another way), or every place of a telling that ended
wrongly, is struck in a day of its own: the failure names that place, or says that only together they go wrong.

`-k "submit.after_call:vanish"` runs the telling that is struck there; `CRASH_TOGETHER=1` before it, that place
alone. `CRASH_VISITS` above one (`make soak`) always strikes alone.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Final

import pytest

from darkroom.core.audit import run_audit
from darkroom.flow import settle_unknown
from tests.crash.places import Form, Place, places
from tests.crash.story import LARGER, SMALL, tell
from tests.crash.vanishing import Crash, World, world

VISITS: Final = int(os.environ.get("CRASH_VISITS", "1"))
"""At how many of its visits each place is struck, one in each case. `make soak` asks for more."""
TOGETHER: Final = 1 if VISITS > 1 else int(os.environ.get("CRASH_TOGETHER", "5"))
"""At how many places one telling is struck."""
CASES: Final = places()


def _groups(cases: Sequence[Place], together: int) -> list[list[Place]]:
    """The cases in groups. Neighbours in the list are neighbours in the code: they never share a day."""
    stride = -(-len(cases) // together)
    return [list(cases[first::stride]) for first in range(stride)]


GROUPS: Final = _groups(CASES, TOGETHER)
Days = Callable[[], AbstractContextManager[World]]
"""Makes a world for one more telling, on a database and a folder of its own."""


@pytest.fixture
def days(clone: Callable[[], AbstractContextManager[str]], server: str, tmp_path: Path) -> Days:
    """As many days as a test needs."""
    numbers = count()

    @contextmanager
    def day() -> Generator[World]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        with clone() as dsn, world(dsn, server, folder, Crash()) as told:
            yield told

    return day


def _judge(told: World, *struck: Place) -> None:
    """What must be true at the end of the day, whatever happened in it."""
    insist = told.insist
    jobs = insist(lambda shop: shop.rows("SELECT id, status FROM generation_jobs"))
    # One set misses a photo that could not be made again: its whole price went back. One is a photo made again.
    assert Counter(job["status"] for job in jobs) == {"completed": 6, "partial": 1}
    unused = insist(
        lambda shop: shop.value(
            "SELECT count(*) FROM payments WHERE status = 'succeeded' AND NOT generation_consumed"
        )
    )
    assert unused == 0, "paid and nothing started"
    photos = insist(lambda shop: shop.value("SELECT count(*) FROM generated_photos"))
    assert photos == SMALL * 5 + LARGER - 1 + 1
    _judge_money(told)
    # One answer is lost by the story, one task fails there, one link is dead. A process that dies while it is
    # creating takes the answers of all its open calls with it: each may cost one more task. A lost connection
    # costs none, the answer is written again; nothing else costs any.
    spare = 3 + 20 * sum(place.form is Form.VANISH and "submit" in str(place) for place in struck)
    assert len(told.provider.created) <= photos + spare
    report = insist(lambda shop: run_audit(shop.database))
    assert report.clean, report.findings


def _judge_money(told: World) -> None:
    """What went back, by the bank's own books: each once, and all of it known to us."""
    insist = told.insist
    rows = insist(lambda shop: shop.rows("SELECT reason, status, amount_minor FROM refunds"))
    assert {row["status"] for row in rows} == {"succeeded"}
    reasons = Counter(row["reason"] for row in rows)
    # Of what somebody at the bank gave back a little, the rest follows on the same row.
    # Two payments came to a customer who was leaving: whoever hears of one first says why it goes back.
    assert reasons.pop("asked_back") + reasons.pop("late", 0) == 1 + 2
    assert reasons == {"outside": 1, "operator": 2, "compensation_failed": 1, "unused": 1}
    theirs = sum(told.bank.returned_minor(one) for one in told.bank.returned)
    ours = insist(lambda shop: shop.value("SELECT sum(amount_minor) FROM provider_refunds"))
    assert theirs == ours == 5 * 49_900 + 99_900 + 100
    told_of = insist(
        lambda shop: shop.value("SELECT count(*) FROM customer_messages WHERE kind = 'money_back'")
    )
    assert told_of == len(rows)


def _strike(days: Days, crash: Crash) -> None:
    """A day of its own with these crashes, and the verdict."""
    with days() as told:
        tell(told, crash)
        _judge(told, *crash.struck)


def _strike_each(group: list[Place], strike: Callable[[Crash], None], visit: int = 1) -> None:
    """Every place of the group is struck, and the day ends well: all in one day, or each in its own."""
    together = Crash(*group, visit=visit)
    wrong: Exception | None = None
    if len(group) > 1:
        try:
            strike(together)
        except Exception as error:  # noqa: BLE001 - whatever it was, each place is struck again alone
            wrong = error
    for place in group if wrong else together.missed:
        crash = Crash(place, visit=visit)
        try:
            strike(crash)
        except Exception as error:
            error.add_note(f"struck at {place} alone")
            raise
        assert crash.happened or visit > 1, f"the story never passes {place}"
    if wrong:
        names = ", ".join(map(str, together.struck))
        raise AssertionError(f"each alone ends well, together they do not: {names}") from wrong


@pytest.mark.timeout(300)
@pytest.mark.parametrize("visit", range(1, VISITS + 1))
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "+".join(map(str, group)))
def test_after_a_crash_there_every_order_is_whole(
    days: Days, record_property: Callable[[str, object], None], group: list[Place], visit: int
) -> None:
    """bugbook A2, bugbook B6, bugbook C1 and what else a death between two steps did to the older design."""
    record_property("cases", len(group))
    _strike_each(group, lambda crash: _strike(days, crash), visit)


def test_the_story_without_a_crash_wastes_what_the_provider_lost(
    dsn: str, server: str, tmp_path: Path
) -> None:
    with world(dsn, server, tmp_path, Crash()) as told:
        tell(told, Crash())
        _judge(told)


def test_the_enumeration_is_not_empty() -> None:
    assert len(CASES) >= 200, len(CASES)
    assert {case.form for case in CASES} == set(Form)


ONE, OTHER = (Place(name, Form.VANISH) for name in ("one", "other"))


def test_what_goes_wrong_only_together_is_found() -> None:
    """The group's own twin: either alone is harmless, and the test must not let the two of them go."""
    struck: list[int] = []

    def both_are_too_many(crash: Crash) -> None:
        crash.strikes("one")
        crash.strikes("other")
        struck.append(len(crash.struck))
        assert len(crash.struck) == 1

    with pytest.raises(AssertionError, match="together they do not: one:vanish, other:vanish"):
        _strike_each([ONE, OTHER], both_are_too_many)
    assert struck == [2, 1, 1]


def test_what_goes_wrong_at_one_place_names_it() -> None:
    def dies_of_other(crash: Crash) -> None:
        crash.strikes("one")
        assert not crash.strikes("other"), "stuck"

    with pytest.raises(AssertionError, match="stuck") as wrong:
        _strike_each([ONE, OTHER], dies_of_other)
    assert wrong.value.__notes__ == ["struck at other:vanish alone"]


def test_a_place_that_a_telling_missed_is_struck_alone_and_must_be_passed() -> None:
    struck: list[Place] = []

    def passes_other_only_alone(crash: Crash) -> None:
        if not crash.strikes("one"):
            crash.strikes("other")
        struck.extend(crash.struck)

    def passes_one(crash: Crash) -> None:
        crash.strikes("one")

    _strike_each([ONE, OTHER], passes_other_only_alone)
    assert struck == [ONE, OTHER]
    with pytest.raises(AssertionError, match="never passes other:vanish"):
        _strike_each([ONE, OTHER], passes_one)


def test_every_place_is_in_one_group_far_from_its_neighbours() -> None:
    groups = _groups(CASES, 5)
    assert Counter(place for group in groups for place in group) == Counter(CASES)
    for group in groups:
        numbers = [CASES.index(place) for place in group]
        assert all(after - before > 50 for before, after in pairwise(numbers))


def test_twin_a_worker_that_never_looks_at_lapsed_calls_is_found(
    dsn: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: who died between call and record leaves the photo stuck for good (bugbook B6)."""

    async def nothing(*_args: object, **_kwargs: object) -> int:
        return 0

    monkeypatch.setattr(settle_unknown, "settle_lapsed_submitting", nothing)
    place = Place("submit.after_call", Form.VANISH)
    with (
        world(dsn, server, tmp_path, Crash()) as told,
        pytest.raises(AssertionError, match="stuck"),
    ):
        tell(told, Crash(place))
