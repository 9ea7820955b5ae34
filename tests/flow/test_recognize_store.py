"""The object store is the one that the database's photos are in, or nobody works with it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.adapters.storage import open_storage
from darkroom.core import store_mark
from darkroom.core.store_mark import StoreMark, StoreNote, note_store, note_store_instead
from darkroom.db.database import Connection, Database
from darkroom.flow import recognize_store as recognizing
from darkroom.flow.check_bucket import BucketReport, audit_bucket
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.examine import examine_mark
from darkroom.flow.prepare import prepare
from darkroom.flow.recognize_store import (
    MARK_KEY,
    ForeignStoreError,
    adopt_store,
    look_at_store,
    recognize_store,
)
from darkroom.flow.store_watch import StoreIs, StoreWatch
from darkroom.flow.sweep_bucket import sweep_bucket
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.checkup import Grade
from darkroom.ports.generation import GenerationRequest
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError
from darkroom.wiring import bundled_catalog
from tests.conftest import Clone
from tests.logs import logged
from tests.scripted import picture_of
from tests.shop import Shop, open_shop


def _on(shop: Shop, folder: Path) -> Darkroom:
    """The same database, with a store of its own: another machine."""
    return replace(shop.darkroom, store=open_storage(None, folder), store_watch=StoreWatch())


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
    async def take(tx: Connection, store_id: UUID, *, here: str | None) -> StoreNote:
        note = await note_store(tx, store_id, here=here)
        return await note_store_instead(tx, StoreMark(note.database_id, store_id), here=here)

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
    with pytest.raises(ForeignStoreError, match=r"it bears no mark; .* `darkroom adopt-store`$"):
        await recognize_store(there)
    for _ in range(2):
        await adopt_store(there)
    await recognize_store(there)
    with pytest.raises(ForeignStoreError, match="it bears this database's mark, but another"):
        await recognize_store(here)
    await adopt_store(here)
    await recognize_store(here)


async def test_of_a_store_that_was_copied_with_its_mark_the_adopted_one_stays(
    shop: Shop, tmp_path: Path
) -> None:
    """Both bore the right mark, and whoever was left on the old one sold on into it."""
    old = _on(shop, tmp_path / "old")
    await recognize_store(old)
    copytree(tmp_path / "old", tmp_path / "new")
    new = _on(shop, tmp_path / "new")
    await adopt_store(new)
    await recognize_store(new)
    with pytest.raises(ForeignStoreError, match="this database's mark, but another store"):
        await recognize_store(old)


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


@asynccontextmanager
async def _shop_of(dsn: str, folder: Path) -> AsyncGenerator[Shop]:
    database = Database(dsn, pool_size=5)
    await database.open()
    try:
        async with open_shop(database, folder) as shop:
            yield shop
    finally:
        await database.close()


async def _other_pictures(shop: Shop) -> None:
    """A shop of its own: its pictures are not those of the first one."""

    async def fetch(request: GenerationRequest) -> bytes:
        return picture_of(request.task_id + 100_000)

    shop.provider.on_fetch = fetch
    await shop.rows("UPDATE store_mark SET database_id = gen_random_uuid() RETURNING number")


async def _staging_sweeps(shop: Shop, clone: Clone, folder: Path, *, by_name: bool) -> BucketReport:
    """Staging has production's storage settings; its operator does as the refusal says. Then the audit."""
    await recognize_store(shop.darkroom)
    await shop.sold()
    await shop.drain()
    with clone() as dsn:
        async with _shop_of(dsn, folder) as staging:
            await _other_pictures(staging)
            await staging.sold()
            await staging.drain()
            here = replace(staging.darkroom, store=shop.darkroom.store, store_watch=StoreWatch())
            with pytest.raises(ForeignStoreError) as refused:
                await prepare(here, bundled_catalog())
            whose = await shop.value("SELECT database_id FROM store_mark")
            assert f"another database, {whose}; " in str(refused.value)
            assert f"`darkroom adopt-store --from-database {whose}`" in str(refused.value)
            with suppress(ForeignStoreError):
                await adopt_store(here, from_database=whose if by_name else None)
            await staging.advance(3 * 86_400)
            await sweep_bucket(here)
    return await audit_bucket(replace(shop.darkroom, store_watch=_believed()), limit=None)


def _believed() -> StoreWatch:
    """Of a process that looked just now, and found its own."""
    watch = StoreWatch()
    watch.learn(StoreIs.OURS)
    return watch


async def test_another_shops_store_is_not_adopted_by_the_command_alone(
    shop: Shop, clone: Clone, tmp_path: Path
) -> None:
    """The refusal named the command, which asked nothing; the sweep deleted the other shop's photos."""
    report = await _staging_sweeps(shop, clone, tmp_path / "staging", by_name=False)
    assert (report.photos, report.findings) == (7, 0)
    assert (await look_at_store(shop.database, shop.darkroom.store)).found is StoreIs.OURS


async def test_twin_taken_over_by_name_another_shops_photos_are_swept(
    shop: Shop, clone: Clone, tmp_path: Path
) -> None:
    """The guard removed, by the word that it asks for: what the command alone did."""
    report = await _staging_sweeps(shop, clone, tmp_path / "staging", by_name=True)
    assert (report.photos, report.findings) == (7, 7)


async def test_another_databases_store_is_adopted_by_its_name(shop: Shop, tmp_path: Path) -> None:
    here = _on(shop, tmp_path / "here")
    for content, whose in ((b"x" * 100, UUID(int=0)), (f"{uuid4()} {uuid4()}".encode(), None)):
        await here.store.delete(MARK_KEY)
        await here.store.put_once(MARK_KEY, content, "text/plain")
        with pytest.raises(ForeignStoreError):
            await adopt_store(here, from_database=uuid4())
        with pytest.raises(ForeignStoreError) as refused:
            await adopt_store(here)
        named = UUID(str(refused.value).rpartition(" ")[2].strip("`"))
        assert whose in (named, None)
        await adopt_store(here, from_database=named)
        await recognize_store(here)


async def _copy(shop: Shop, dsn: str) -> None:
    """The rows as a dump carries them."""
    (row,) = await shop.rows("SELECT database_id, store_id, server FROM store_mark")
    with psycopg.connect(dsn, autocommit=True) as copy:
        copy.execute(
            "UPDATE store_mark SET database_id = %(database_id)s, store_id = %(store_id)s, "
            "server = %(server)s",
            row,
        )


async def test_a_copied_database_does_not_work_with_its_originals_store(
    shop: Shop, clone: Clone, tmp_path: Path
) -> None:
    """A dump into staging, with production's storage settings: both ids were rows of the dump."""
    await recognize_store(shop.darkroom)
    with clone() as dsn:
        await _copy(shop, dsn)
        async with _shop_of(dsn, tmp_path / "staging") as staging:
            here = replace(staging.darkroom, store=shop.darkroom.store, store_watch=StoreWatch())
            with pytest.raises(ForeignStoreError, match="this database is a copy"):
                await prepare(here, bundled_catalog())
            # A move: the operator says so, and from then on the old one is the stranger.
            for _ in range(2):
                await adopt_store(here)
            await prepare(here, bundled_catalog())
            moved = await staging.value("SELECT database_id FROM store_mark")
    with pytest.raises(ForeignStoreError, match=f"another database, {moved}"):
        await recognize_store(replace(shop.darkroom, store_watch=StoreWatch()))


async def test_staging_that_is_copied_again_knows_its_own_store(
    shop: Shop, clone: Clone, tmp_path: Path
) -> None:
    """Each week a fresh dump, into the same database, beside a bucket of its own."""
    await recognize_store(shop.darkroom)
    with clone() as dsn:
        async with _shop_of(dsn, tmp_path / "staging") as staging:
            here = replace(staging.darkroom, store_watch=StoreWatch())
            for refusal in ("no mark", "this database's mark"):
                await _copy(shop, dsn)
                with pytest.raises(ForeignStoreError, match=refusal):
                    await prepare(here, bundled_catalog())
                await adopt_store(here)
                await prepare(here, bundled_catalog())
    assert (await look_at_store(shop.database, shop.darkroom.store)).found is StoreIs.OURS


async def test_twin_where_the_server_is_not_noted_the_copy_starts(
    shop: Shop, clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: nobody reads where the database is."""

    async def nowhere(_tx: Connection) -> None:
        return None

    monkeypatch.setattr(store_mark, "_read_server", nowhere)
    await recognize_store(shop.darkroom)
    with clone() as dsn:
        await _copy(shop, dsn)
        async with _shop_of(dsn, tmp_path / "staging") as staging:
            await recognize_store(
                replace(staging.darkroom, store=shop.darkroom.store, store_watch=StoreWatch())
            )


async def test_a_mark_of_before_is_good_and_gets_its_server(shop: Shop, tmp_path: Path) -> None:
    here = _on(shop, tmp_path / "here")
    await recognize_store(here)
    noted = await shop.value("SELECT server FROM store_mark")
    assert noted == await shop.value(
        "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid "
        "FROM pg_database WHERE datname = current_database()"
    )
    await shop.rows("UPDATE store_mark SET server = NULL RETURNING number")
    await recognize_store(here)
    assert await shop.value("SELECT server FROM store_mark") == noted


async def test_who_may_not_ask_where_the_database_is_starts_with_a_warning(
    shop: Shop, tmp_path: Path
) -> None:
    here = _on(shop, tmp_path / "here")
    await recognize_store(here)
    user = f"plain_{uuid4().hex}"
    with psycopg.connect(shop.database.dsn, autocommit=True) as one:
        one.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(user)))
        one.execute(SQL("GRANT SELECT, UPDATE ON store_mark TO {}").format(Identifier(user)))
        one.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        plain = Database(make_conninfo(shop.database.dsn, user=user), pool_size=1)
        try:
            await plain.open()
            lines = await logged(lambda: recognize_store(replace(here, database=plain)))
            assert "pg_control_system" in lines[0]["event"]
        finally:
            await plain.close()
            one.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
            one.execute(SQL("DROP OWNED BY {}").format(Identifier(user)))
            one.execute(SQL("DROP ROLE {}").format(Identifier(user)))
