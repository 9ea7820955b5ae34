"""A process whose store is not its own any more, or never was, puts and deletes nothing there."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from darkroom.adapters.storage import Storage, open_storage
from darkroom.core.selfies import bury_selfie
from darkroom.flow import collect_photos, erase_pictures
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.check_bucket import audit_bucket, check_bucket
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.forget_me import forget_leavers, forget_me
from darkroom.flow.prepare import prepare
from darkroom.flow.recognize_store import ForeignStoreError, adopt_store
from darkroom.flow.steps import HOUSE_STEPS
from darkroom.flow.store_watch import LOOK_AGAIN_SECONDS, StoreIs, StoreWatch
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.sweep_bucket import sweep_bucket
from darkroom.flow.watch_store import may_delete, may_put, watch_store
from darkroom.flow.work_in_calls import house_rounds, work_rounds
from darkroom.ports.storage import StorageUnavailableError
from darkroom.wiring import bundled_catalog
from tests.logs import logged
from tests.scripted import picture_of
from tests.shop import Shop

PHOTOS = "SELECT count(*) FROM generated_photos"
ERASED = "SELECT count(*) FROM reference_photos WHERE erased_at IS NOT NULL"


class _Away:
    """A store that answers nothing, until it does."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self.is_away = True
        self.looks = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    async def get(self, key: str, *, most_bytes: int) -> bytes:
        self.looks += 1
        if self.is_away:
            raise StorageUnavailableError("get: no answer")
        return await self._inner.get(key, most_bytes=most_bytes)


def _process(shop: Shop, store: object) -> Darkroom:
    """Another process, which has looked at nothing yet."""
    return replace(shop.darkroom, store=store, store_watch=StoreWatch())  # pyright: ignore[reportArgumentType]


async def _yes(_darkroom: Darkroom) -> bool:
    return True


async def _minute(shop: Shop, process: Darkroom) -> None:
    """What a worker does beside its orders."""
    await shop.advance(61)
    for step in HOUSE_STEPS:
        await step.run(process)


async def _deleted_selfie(shop: Shop) -> str:
    """Somebody deletes a selfie; its key."""
    customer = await shop.customer()
    (row,) = await shop.rows("SELECT id, object_key FROM reference_photos")
    async with shop.database.connection() as tx:
        await bury_selfie(
            tx, user_id=customer.user_id, avatar_id=customer.avatar_id, selfie_id=row["id"]
        )
    return row["object_key"]


async def _believed_at_its_start(shop: Shop, folder: Path) -> tuple[Darkroom, _Away, str]:
    """A worker with a wrong setting, whose store did not answer when it started; and a selfie to erase."""
    await prepare(shop.darkroom, bundled_catalog())
    key = await _deleted_selfie(shop)
    store = _Away(open_storage(None, folder))
    process = _process(shop, store)
    await prepare(process, bundled_catalog())
    return process, store, key


async def test_a_store_that_was_believed_is_looked_at_before_anything_is_erased(
    shop: Shop, tmp_path: Path
) -> None:
    """It was believed for ever: the selfie was `erased`, and its bytes lay in the right store."""
    process, store, key = await _believed_at_its_start(shop, tmp_path / "other")
    await _minute(shop, process)
    assert await shop.value(ERASED) == 0, "nobody knows whose store it is"
    store.is_away = False
    lines = await logged(lambda: _minute(shop, process))
    assert await shop.value(ERASED) == 0
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert "it bears no mark" in error["reason"]
    await _minute(shop, shop.darkroom)
    assert await shop.value(ERASED) == 1
    assert key not in await shop.darkroom.store.list_keys("references")


async def test_twin_without_the_look_a_selfie_is_called_erased_where_it_never_was(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, store, key = await _believed_at_its_start(shop, tmp_path / "other")
    store.is_away = False
    monkeypatch.setattr(erase_pictures, "may_delete", _yes)
    await _minute(shop, process)
    assert await shop.value(ERASED) == 1
    assert await shop.darkroom.store.get(key), "somebody's face, and no row has it any more"


async def _moved_while_it_works(shop: Shop, folder: Path) -> tuple[Darkroom, Darkroom]:
    """A worker goes on after the shop moved; and who works with the new store. A set is paid for."""
    old = _process(shop, shop.darkroom.store)
    await prepare(old, bundled_catalog())
    new = _process(shop, open_storage(None, folder))
    await adopt_store(new)
    await shop.sold()
    for step in ("submit", "poll"):
        await shop.step(step)
    return old, new


async def test_a_worker_whose_shop_has_moved_stores_nothing_any_more(
    shop: Shop, tmp_path: Path
) -> None:
    """It stored on where nobody looks: seven photos missing in the new store."""
    old, new = await _moved_while_it_works(shop, tmp_path / "new")
    assert await watch_store(old) == 0
    assert _gauge() == 1
    assert await collect_photos.collect_due_photos(old) == 0
    with pytest.raises(StorageUnavailableError):
        await add_selfie(old, avatar_id=1, data=picture_of(-77))
    assert await sweep_bucket(old) == 0
    assert await shop.value(PHOTOS) == 0
    await watch_store(new)
    assert _gauge() == 0
    assert await collect_photos.collect_due_photos(new) == 7
    assert (await audit_bucket(new, limit=None)).clean
    # An operator may take it back; nothing is started anew for that.
    await adopt_store(replace(old, store_watch=StoreWatch()))
    assert not await may_put(old)
    await watch_store(old)
    assert await may_put(old)
    shop.darkroom = new


async def test_a_worker_that_could_keep_nothing_buys_nothing(shop: Shop, tmp_path: Path) -> None:
    """Pictures waited at their provider until their links died, and were bought again and again."""
    old = _process(shop, shop.darkroom.store)
    await prepare(old, bundled_catalog())
    await adopt_store(_process(shop, open_storage(None, tmp_path / "new")))
    await shop.sold()
    await watch_store(old)
    assert await submit_due_tasks(old) == 0
    assert shop.provider.created == {}
    assert await submit_due_tasks(shop.darkroom) == 7
    shop.audit_at_end = False


async def test_twin_without_the_look_its_photos_lie_where_nobody_looks(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await _moved_while_it_works(shop, tmp_path / "new")
    monkeypatch.setattr(collect_photos, "may_put", _yes)
    await watch_store(old)
    await collect_photos.collect_due_photos(old)
    assert (await audit_bucket(new, limit=None)).findings == 7
    shop.audit_at_end = False


def _gauge() -> float:
    return float(REGISTRY.get_sample_value("darkroom_store_foreign") or 0)


async def test_a_store_that_is_away_is_not_foreign(shop: Shop) -> None:
    """Photos wait for it by themselves; nothing is deleted until it has answered."""
    await prepare(shop.darkroom, bundled_catalog())
    store = _Away(open_storage(None, Path("nowhere")))
    process = _process(shop, store)
    process.store_watch.learn(StoreIs.OURS)
    await watch_store(process)
    assert await may_put(process)
    assert not await may_delete(process)
    assert _gauge() == 0


async def test_what_was_foreign_stays_so_while_it_does_not_answer(
    shop: Shop, tmp_path: Path
) -> None:
    await prepare(shop.darkroom, bundled_catalog())
    store = _Away(open_storage(None, tmp_path / "other"))
    process = _process(shop, store)
    store.is_away = False
    await watch_store(process)
    store.is_away = True
    await watch_store(process)
    assert not await may_put(process)


async def test_many_who_ask_share_one_look(shop: Shop) -> None:
    """A question to the store each minute, and none in each round."""
    await prepare(shop.darkroom, bundled_catalog())
    store = _Away(shop.darkroom.store)  # pyright: ignore[reportArgumentType]
    store.is_away = False
    process = _process(shop, store)
    for _ in range(9):
        assert await may_put(process)
        assert await may_delete(process)
    assert store.looks == 1
    process.store_watch.good_until -= LOOK_AGAIN_SECONDS
    assert await may_delete(process)
    assert store.looks == 2


@pytest.mark.parametrize("rounds", [work_rounds, house_rounds])
async def test_a_call_of_hosting_without_a_worker_looks_again_by_itself(
    shop: Shop, tmp_path: Path, rounds: Callable[..., Awaitable[object]]
) -> None:
    """Its process was frozen since its last call, and the shop has moved meanwhile."""
    old, new = await _moved_while_it_works(shop, tmp_path / "new")
    old.store_watch.good_until -= LOOK_AGAIN_SECONDS
    await rounds(old, seconds=5)
    assert old.store_watch.is_foreign
    assert await shop.value(PHOTOS) == 0
    shop.darkroom = new
    await shop.drain()


async def test_a_leaver_gets_the_money_and_waits_for_the_rest(shop: Shop, tmp_path: Path) -> None:
    await prepare(shop.darkroom, bundled_catalog())
    customer = await shop.customer()
    process = _process(shop, open_storage(None, tmp_path / "other"))
    await forget_me(process, user_id=customer.user_id)
    for _ in range(3):
        await shop.advance(400)
        await forget_leavers(process)
    assert await shop.value("SELECT wiped_at IS NOT NULL AND forgotten_at IS NULL FROM users")
    for _ in range(3):
        await shop.advance(400)
        await _minute(shop, shop.darkroom)
    assert await shop.value("SELECT forgotten_at IS NOT NULL FROM users")


async def test_nothing_is_called_missing_by_a_look_at_another_store(
    shop: Shop, tmp_path: Path
) -> None:
    """`darkroom audit --bucket` from a laptop: all of production's photos were `missing`."""
    await prepare(shop.darkroom, bundled_catalog())
    await shop.sold()
    await shop.drain()
    await shop.advance(61)
    laptop = _process(shop, open_storage(None, tmp_path / "laptop"))
    with pytest.raises(ForeignStoreError, match="it bears no mark"):
        await audit_bucket(laptop, limit=None)
    assert await check_bucket(laptop) == 0
    assert await shop.value("SELECT count(*) FROM generated_photos WHERE bytes_finding > ''") == 0
    assert (await audit_bucket(shop.darkroom, limit=None)).clean


async def test_before_its_first_start_nothing_is_called_missing(shop: Shop, tmp_path: Path) -> None:
    """Nobody has said yet which store it is; a look marks none."""
    laptop = _process(shop, open_storage(None, tmp_path / "laptop"))
    with pytest.raises(ForeignStoreError, match="was not marked yet"):
        await audit_bucket(laptop, limit=None)
    assert await laptop.store.list_keys("marks") == []
