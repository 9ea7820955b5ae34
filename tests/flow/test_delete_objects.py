"""An object that the store will not delete (a lock, a right, a folder of root's) keeps no other from going."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from prometheus_client import REGISTRY

from darkroom.core.direct_uploads import promise_uploads
from darkroom.flow import delete_objects
from darkroom.flow.forget_me import forget_leavers, forget_me
from darkroom.flow.sweep_bucket import FOLDERS, sweep_bucket
from darkroom.flow.upload_directly import remove_ended_uploads
from darkroom.ports.storage import ObjectStore, StorageUnavailableError
from tests.shop import Shop

DAY: Final = 86_400
JPEG: Final = "image/jpeg"


class _Stubborn:
    """A store that does not delete some objects."""

    def __init__(self, inner: ObjectStore, keeps: Callable[[str], bool]) -> None:
        self._inner, self._keeps = inner, keeps
        self.refused = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    async def delete(self, key: str) -> None:
        if self._keeps(key):
            self.refused += 1
            raise StorageUnavailableError("delete: PermissionDeniedError AccessDenied")
        await self._inner.delete(key)


def _keep(shop: Shop, keeps: Callable[[str], bool]) -> _Stubborn:
    store = _Stubborn(shop.darkroom.store, keeps)
    shop.darkroom = replace(shop.darkroom, store=store)  # pyright: ignore[reportArgumentType]
    return store


async def _orphans(shop: Shop, count: int) -> list[str]:
    """Objects of a photo's task that no row points at, and one in each of the folders behind."""
    await shop.sold()
    await shop.drain()
    place = (await shop.rows("SELECT object_key FROM generated_photos ORDER BY id LIMIT 1"))[0]
    base = place["object_key"].rpartition("-")[0]
    keys = [f"{base}-{number:016}.jpg" for number in range(count)]
    for key in (*keys, "uploads/7/x", "proofs/old"):
        await shop.darkroom.store.put_once(key, b"x", JPEG)
    await shop.advance(3 * DAY)
    return keys


async def _left(shop: Shop) -> set[str]:
    there = {key for folder in FOLDERS for key in await shop.darkroom.store.list_keys(folder)}
    kept = await shop.rows(
        "SELECT object_key AS key FROM generated_photos UNION SELECT thumbnail_key FROM generated_photos "
        "UNION SELECT object_key FROM reference_photos"
    )
    return there - {row["key"] for row in kept}


async def _sweep(shop: Shop, *, rounds: int) -> None:
    for _ in range(rounds):
        await shop.rows(
            "UPDATE bucket_walks SET due_at = darkroom_now() WHERE name = 'sweep' RETURNING name"
        )
        await sweep_bucket(shop.darkroom)


async def test_one_object_that_cannot_be_deleted_stops_neither_the_others_nor_the_walk(
    shop: Shop,
) -> None:
    """After sixty rounds the walk stood where it had begun, and everything behind was still there."""
    first, *_ = await _orphans(shop, 3)
    _keep(shop, lambda key: key == first)
    before = _counted("unneeded")
    await _sweep(shop, rounds=1)
    assert await _left(shop) == {first}
    assert _counted("unneeded") == before + 1
    walk = await shop.rows("SELECT folder, after_key FROM bucket_walks WHERE name = 'sweep'")
    assert walk == [{"folder": "", "after_key": ""}], "it came to its end, and begins anew"


async def test_many_that_lie_beside_each_other_are_passed(shop: Shop) -> None:
    """Somebody else's folder: twelve in a row, and each round gives up after five."""
    keys = await _orphans(shop, 12)
    kept = set(keys)
    _keep(shop, lambda key: key in kept)
    await _sweep(shop, rounds=30)
    assert await _left(shop) == kept


async def test_a_store_that_deletes_nothing_is_not_asked_for_each_object(shop: Shop) -> None:
    """Half a minute each: a page would take hours, and another worker take the walk meanwhile."""
    keys = await _orphans(shop, 12)
    store = _keep(shop, lambda _key: True)
    await _sweep(shop, rounds=1)
    assert store.refused == delete_objects.IN_A_ROW
    assert set(keys) < await _left(shop)


def _counted(step: str) -> float:
    return REGISTRY.get_sample_value("darkroom_objects_not_deleted_total", {"step": step}) or 0


@pytest.mark.parametrize("bad", [1, 3])
async def test_raw_files_behind_one_that_cannot_be_deleted_go(shop: Shop, bad: int) -> None:
    """A customer's faces lay there for good: each round broke off at the first."""
    customer = await shop.customer()
    who = {"user_id": customer.user_id, "avatar_id": customer.avatar_id}
    async with shop.database.transaction() as tx:
        names = [str(number) for number in range(6)]
        ups = await promise_uploads(tx, **who, file_names=names, seconds=600)
    for one in ups:
        await shop.darkroom.store.put_once(one.object_key, b"raw", JPEG)
    kept = {one.object_key for one in ups[:bad]}
    _keep(shop, lambda key: key in kept)
    await shop.advance(DAY)
    assert await remove_ended_uploads(shop.darkroom) == 6 - bad
    assert set(await shop.darkroom.store.list_keys("uploads")) == kept
    assert await shop.value("SELECT count(*) FROM direct_uploads") == bad


async def test_of_a_leaver_goes_what_can_go(shop: Shop) -> None:
    """What no row names lay behind one object that stayed."""
    customer = await shop.customer()
    folder = f"uploads/{customer.avatar_id}"
    for name in "abcd":
        await shop.darkroom.store.put_once(f"{folder}/{name}", b"raw", JPEG)
    open_store = shop.darkroom.store
    _keep(shop, lambda key: key == f"{folder}/a")
    await forget_me(shop.darkroom, user_id=customer.user_id)
    for _ in range(4):
        await shop.advance(400)
        await forget_leavers(shop.darkroom)
        await shop.step("erase")
    assert await shop.darkroom.store.list_keys(folder) == [f"{folder}/a"]
    assert await shop.value("SELECT forgotten_at IS NULL FROM users")
    shop.darkroom = replace(shop.darkroom, store=open_store)
    await forget_leavers(shop.darkroom)
    assert await shop.value("SELECT forgotten_at IS NOT NULL FROM users")
