"""A crash before and after every call that the real adapters make, then the rest of the day.

`test_every_checkpoint` tells a larger day on scripted outsides; here are fewer steps, and everything between
us and the stand-ins is real: kie.ai's, QStash's, the bank's protocols over HTTP, and S3 on a real server.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from darkroom.adapters.generation.kie import KieProvider
from darkroom.adapters.storage import Storage, open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.core.audit import run_audit
from darkroom.ports.storage import ObjectConflictError
from tests import shop as shop_of_tests
from tests.crash.outside_names import OUTSIDE_CALLS, UNSPOKEN
from tests.crash.outside_story import PHOTOS, tell
from tests.crash.outside_town import OutsideWorld, OwnLoop, Town, open_town
from tests.crash.places import Form, Place
from tests.crash.together import VISITS, in_groups, name_of, strike_each, together
from tests.crash.vanishing import Crash

CALLS: Final = sorted(OUTSIDE_CALLS - UNSPOKEN.keys())
CASES: Final = [
    Place(f"outside.{call}.{when}", Form.VANISH) for call in CALLS for when in ("before", "after")
]
GROUPS: Final = in_groups(CASES, together(usually=4))
PRICE_MINOR: Final = 49_900


@pytest.fixture(scope="module")
def own_loop() -> Generator[OwnLoop]:
    """Where the stand-ins live."""
    loop = OwnLoop()
    yield loop
    loop.close()


Days = Callable[[], AbstractContextManager[OutsideWorld]]
"""Makes a world for one more telling, with stand-ins, a database, a folder and a place in S3 of its own."""


@pytest.fixture
def days(
    clone: Callable[[], AbstractContextManager[str]],
    own_loop: OwnLoop,
    server: str,
    tmp_path: Path,
    s3_place: S3Place,
) -> Days:
    """As many days as a test needs. Whoever vanished in one is buried after its verdict."""
    numbers = count()

    @contextmanager
    def day() -> Generator[OutsideWorld]:
        number = next(numbers)
        folder = tmp_path / str(number)
        folder.mkdir()
        place = replace(s3_place, prefix=f"{s3_place.prefix}-{number}")
        with clone() as dsn, open_town(own_loop, folder, place) as town:
            made = OutsideWorld(dsn, server, folder, town)
            try:
                yield made
            finally:
                made.close()

    return day


@pytest.fixture
def town(own_loop: OwnLoop, tmp_path: Path, s3_place: S3Place) -> Generator[Town]:
    """The stand-ins of one case."""
    with open_town(own_loop, tmp_path, s3_place) as opened:
        yield opened


@pytest.fixture
def world(dsn: str, server: str, tmp_path: Path, town: Town) -> Generator[OutsideWorld]:
    """A world on them. Whoever vanished in it is buried after the verdict."""
    made = OutsideWorld(dsn, server, tmp_path, town)
    yield made
    made.close()


def _judge(world: OutsideWorld, *, answers_lost: int) -> None:
    """What must be true at the end of the day, by our rows and by everybody else's books."""
    insist, town = world.insist, world.town
    jobs = insist(lambda shop: shop.rows("SELECT status, completed_photos FROM generation_jobs"))
    assert jobs == [{"status": "completed", "completed_photos": PHOTOS}]
    photos = insist(
        lambda shop: shop.rows("SELECT task_id, object_key, sha256 FROM generated_photos")
    )
    assert len({photo["task_id"] for photo in photos}) == len(photos) == PHOTOS
    assert len({photo["sha256"] for photo in photos}) == PHOTOS, "the same photo twice"
    stored = asyncio.run(_stored(town.place))
    assert {key: stored.get(key) for key in (photo["object_key"] for photo in photos)} == {
        photo["object_key"]: photo["sha256"] for photo in photos
    }
    assert len(stored) == PHOTOS, "photos in the bucket that no row knows"
    _judge_books(world, answers_lost=answers_lost)
    report = insist(lambda shop: run_audit(shop.database))
    assert report.clean, report.findings


def _judge_books(world: OutsideWorld, *, answers_lost: int) -> None:
    """kie.ai's tasks, and the bank's money."""
    insist, town = world.insist, world.town
    tokens = insist(lambda shop: shop.rows("SELECT token::TEXT AS token FROM task_attempts"))
    assert set(town.kie.tasks_by_token) <= {row["token"] for row in tokens}
    painted = {
        task.token: hashlib.sha256(task.picture()).hexdigest() for task in town.kie.tasks.values()
    }
    kept = insist(
        lambda shop: shop.rows(
            "SELECT a.token::TEXT AS token, g.sha256 FROM generated_photos g "
            "JOIN task_attempts a ON a.id = g.attempt_id"
        )
    )
    assert {row["token"]: row["sha256"] for row in kept}.items() <= painted.items(), (
        "another's picture"
    )
    assert set(town.kie.tasks_by_token.values()) == {1}, "two tasks of one attempt"
    assert len(town.kie.wasted) <= answers_lost, "tasks that were paid for and thrown away"
    paid = Counter(row["order_id"] for row in town.bank.payments() if row["status"] == "paid")
    assert set(paid.values()) == {1}, "paid twice for one order"
    ours = insist(
        lambda shop: shop.rows("SELECT status, amount_minor FROM payments ORDER BY status")
    )
    assert ours == [
        {"status": "refunded", "amount_minor": PRICE_MINOR},
        {"status": "succeeded", "amount_minor": PRICE_MINOR},
    ]
    refunded = insist(lambda shop: shop.value("SELECT sum(amount_minor) FROM provider_refunds"))
    assert sum(town.bank.paid_back().values()) == refunded == PRICE_MINOR


async def _stored(place: S3Place) -> dict[str, str]:
    """The hash of every photo in the bucket, read around all processes."""
    store = open_s3(place)
    return {
        key: hashlib.sha256(await store.get(key)).hexdigest()
        for key in await store.list_keys("generated")
    }


def _crash_at(world: OutsideWorld, checkpoint: str, visit: int = 1) -> None:
    crash = Crash(Place(checkpoint, Form.VANISH), visit=visit)
    tell(world, crash)
    assert crash.happened or visit > 1, f"the story never passes {checkpoint}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("visit", range(1, VISITS + 1))
@pytest.mark.parametrize("group", GROUPS, ids=name_of)
def test_after_a_crash_around_an_outside_call_every_photo_is_there_once(
    days: Days, record_property: Callable[[str, object], None], group: list[Place], visit: int
) -> None:
    """bugbook A2, bugbook C1: whose answer is lost with its process is found out, and not asked for again."""
    record_property("cases", len(group))

    def strike(crash: Crash) -> None:
        with days() as world:
            tell(world, crash)
            # All creations that were under way lost their answers; each may have cost a task. Nothing else may.
            creations = sum("kie.create" in place.checkpoint for place in crash.struck)
            _judge(world, answers_lost=PHOTOS * creations)

    strike_each(group, strike, visit)


def test_a_day_without_a_crash_makes_every_call(world: OutsideWorld) -> None:
    """So that a call which is new in an adapter is struck, too, or stands in a list with its reason."""
    tell(world, Crash())
    _judge(world, answers_lost=0)
    parts = [name.split(".") for name in world.passed if name.startswith("outside.")]
    made = {".".join(one[1:-1]) for one in parts if one[-1] == "after"}
    assert made == OUTSIDE_CALLS - UNSPOKEN.keys()


def test_a_day_with_unsigned_callbacks_ends_as_well(
    own_loop: OwnLoop, dsn: str, server: str, tmp_path: Path, s3_place: S3Place
) -> None:
    with open_town(own_loop, tmp_path, s3_place, signs_callbacks=False) as town:
        world = OutsideWorld(dsn, server, tmp_path, town)
        try:
            tell(world, Crash())
            _judge(world, answers_lost=0)
        finally:
            world.close()


def test_every_reason_is_about_a_call_that_there_is() -> None:
    assert set(UNSPOKEN) <= OUTSIDE_CALLS
    assert len(CALLS) >= 15, CALLS


def test_twin_a_store_that_takes_its_own_photo_for_a_strangers_is_found(
    world: OutsideWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: "already there" after a lost answer is a failure, and a paid photo never counts."""

    async def another(_self: Storage, key: str, _data: bytes) -> bool:
        raise ObjectConflictError(key)

    monkeypatch.setattr(Storage, "_has", another)
    monkeypatch.setattr(shop_of_tests, "ROUNDS_MAX", 30)
    with pytest.raises(AssertionError, match="stuck"):
        _crash_at(world, "outside.storage.put.after", visit=3)


def test_twin_a_provider_whose_orphans_nobody_adopts_is_found(
    world: OutsideWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: a task whose answer was lost is paid for, painted, and thrown away."""

    async def nobody(_self: KieProvider, _provider_task_id: str) -> None:
        return None

    monkeypatch.setattr(KieProvider, "whose", nobody)
    tell(world, Crash())
    with pytest.raises(AssertionError, match="thrown away"):
        _judge(world, answers_lost=0)
