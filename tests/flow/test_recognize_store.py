"""The object store is the one that the database's photos are in, or nobody works with it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from darkroom.adapters.storage import open_storage
from darkroom.core.store_mark import StoreMark, note_store
from darkroom.db.database import Connection
from darkroom.flow import recognize_store as recognizing
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.examine import examine_mark
from darkroom.flow.prepare import prepare
from darkroom.flow.recognize_store import (
    MARK_KEY,
    ForeignStoreError,
    adopt_store,
    recognize_store,
)
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.checkup import Grade
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError
from darkroom.wiring import bundled_catalog
from tests.shop import Shop


def _on(shop: Shop, folder: Path) -> Darkroom:
    """The same database, with a store of its own: another machine."""
    return replace(shop.darkroom, store=open_storage(None, folder))


async def test_two_machines_with_a_folder_each_do_not_work_beside_each_other(
    shop: Shop, tmp_path: Path
) -> None:
    """Photos were delivered into the one and looked for in the other: 404, paid for, and a clean audit."""
    here, there = _on(shop, tmp_path / "here"), _on(shop, tmp_path / "there")
    await prepare(here, bundled_catalog())
    await prepare(here, bundled_catalog())
    with pytest.raises(ForeignStoreError, match="DARKROOM_STORAGE_URL or DARKROOM_DATA_DIR"):
        await prepare(there, bundled_catalog())
    with pytest.raises(ObjectMissingError):
        await there.store.get(MARK_KEY)


async def test_many_first_starts_at_once_mark_it_once(shop: Shop, tmp_path: Path) -> None:
    here = _on(shop, tmp_path / "here")
    await asyncio.gather(*(recognize_store(here) for _ in range(8)))
    mark = (await here.store.get(MARK_KEY)).decode().strip()
    assert mark == await shop.value("SELECT database_id || ' ' || store_id FROM store_mark")


async def test_of_two_folders_that_are_marked_at_once_one_is_the_store(
    shop: Shop, tmp_path: Path
) -> None:
    """API and worker come up together, each with its own disk: both marked theirs, and both were content."""
    both = [_on(shop, tmp_path / name) for name in ("one", "two")]
    started = await _start_together(both)
    assert sorted(started) == [False, True]
    assert [await _starts(one) for one in both] == started, "and so it stays"


async def test_twin_where_the_database_takes_every_store_both_start(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take(tx: Connection, store_id: UUID, *, instead: bool = False) -> StoreMark:
        del instead
        return await note_store(tx, store_id, instead=True)

    monkeypatch.setattr(recognizing, "note_store", take)
    both = [_on(shop, tmp_path / name) for name in ("one", "two")]
    assert await _start_together(both) == [True, True]


async def _starts(one: Darkroom) -> bool:
    try:
        await recognize_store(one)
    except ForeignStoreError:
        return False
    return True


async def _start_together(both: list[Darkroom]) -> list[bool]:
    """Each has put its mark before either is noted."""
    ways = asyncio.Barrier(len(both))

    async def meet(name: str) -> None:
        if name == "store.marked":
            await ways.wait()

    with checkpoints_handled_by(meet):
        return await asyncio.gather(*(_starts(one) for one in both))


async def test_a_mark_whose_process_died_is_noted_by_the_next_start(
    shop: Shop, tmp_path: Path
) -> None:
    here = _on(shop, tmp_path / "here")
    await recognize_store(here)
    noted = await shop.value("SELECT store_id FROM store_mark")
    await shop.rows("UPDATE store_mark SET store_id = NULL RETURNING number")
    await recognize_store(here)
    assert await shop.value("SELECT store_id FROM store_mark") == noted


async def test_another_databases_store_is_not_marked_over(shop: Shop, tmp_path: Path) -> None:
    here = _on(shop, tmp_path / "here")
    await here.store.put_once(MARK_KEY, b"another one\n", "text/plain")
    with pytest.raises(ForeignStoreError):
        await recognize_store(here)
    await shop.rows("UPDATE store_mark SET store_id = gen_random_uuid() RETURNING number")
    with pytest.raises(ForeignStoreError):
        await recognize_store(here)
    assert await here.store.get(MARK_KEY) == b"another one\n"


async def test_an_operator_may_say_that_it_is_the_one_from_now_on(
    shop: Shop, tmp_path: Path
) -> None:
    """After a restore, a move, a lost bucket."""
    here, there = _on(shop, tmp_path / "here"), _on(shop, tmp_path / "there")
    await recognize_store(here)
    await there.store.put_once(MARK_KEY, b"x" * 100, "text/plain")
    for _ in range(2):
        await adopt_store(there)
    await recognize_store(there)


async def test_a_store_that_is_away_stops_nobody(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders wait for it; a restart meanwhile must not be the end of the shop."""
    here = _on(shop, tmp_path / "here")

    async def away(_key: str, *, most_bytes: int = 0) -> bytes:
        del most_bytes
        raise StorageUnavailableError("get: TimeoutError")

    with monkeypatch.context() as patched:
        patched.setattr(here.store, "get", away)
        await recognize_store(here)
        assert (await examine_mark(shop.database, here.store)).grade is Grade.DOUBTFUL
    assert await shop.value("SELECT store_id FROM store_mark") is None
    await recognize_store(here)


async def test_a_store_that_hangs_holds_no_start(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cold start waited half a minute for it, and all requests with it."""
    here = _on(shop, tmp_path / "here")

    async def hang(_key: str, *, most_bytes: int = 0) -> bytes:
        del most_bytes
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(here.store, "get", hang)
    monkeypatch.setattr(recognizing, "LOOK_SECONDS", 0.05)
    async with asyncio.timeout(5):
        await recognize_store(here)


async def test_doctor_says_whose_store_it_is(shop: Shop, tmp_path: Path) -> None:
    here, there = _on(shop, tmp_path / "here"), _on(shop, tmp_path / "there")
    assert (await examine_mark(shop.database, here.store)).grade is Grade.WELL
    await recognize_store(here)
    assert (await examine_mark(shop.database, here.store)).grade is Grade.WELL
    assert (await examine_mark(shop.database, there.store)).grade is Grade.WRONG
