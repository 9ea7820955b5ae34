"""A crash at every place of the code, then the rest of the day: nothing lost, nothing doubled.

The places are read from the code (`places`). One that the story never passes fails the test, so that a new
one cannot be forgotten.

A telling is struck at several of them (`together`).
"""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from darkroom.core.audit import run_audit
from darkroom.flow import settle_unknown
from tests.crash.places import Form, Place, places
from tests.crash.story import LARGER, SMALL, tell
from tests.crash.together import VISITS, in_groups, name_of, strike_each, together
from tests.crash.vanishing import Crash, World, world
from tests.whose import strangers_pictures

CASES: Final = places()
GROUPS: Final = in_groups(CASES, together(usually=6))
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
    assert insist(strangers_pictures) == []
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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("visit", range(1, VISITS + 1))
@pytest.mark.parametrize("group", GROUPS, ids=name_of)
def test_after_a_crash_there_every_order_is_whole(
    days: Days, record_property: Callable[[str, object], None], group: list[Place], visit: int
) -> None:
    """bugbook A2, bugbook B6, bugbook C1 and what else a death between two steps did to the older design."""
    record_property("cases", len(group))
    strike_each(group, lambda crash: _strike(days, crash), visit)


def test_the_story_without_a_crash_wastes_what_the_provider_lost(
    dsn: str, server: str, tmp_path: Path
) -> None:
    with world(dsn, server, tmp_path, Crash()) as told:
        tell(told, Crash())
        _judge(told)


def test_the_enumeration_is_not_empty() -> None:
    assert len(CASES) >= 200, len(CASES)
    assert {case.form for case in CASES} == set(Form)


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
