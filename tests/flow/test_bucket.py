"""The stored bytes are looked at again and again, and what nobody needs goes, and nothing else."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from darkroom.adapters import storage_folder
from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.adapters.storage import open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.config import Settings
from darkroom.core import bucket
from darkroom.core.bucket import LooseSelfie
from darkroom.db.database import Database
from darkroom.edges import bucket_audit, terminal
from darkroom.edges.cli import build_cli
from darkroom.flow import sweep_bucket as sweeping
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.check_bucket import BUCKET_FINDINGS, Progress, audit_bucket, check_bucket
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.erase_pictures import erase_pictures
from darkroom.flow.remove import remove_avatar
from darkroom.flow.sweep_bucket import sweep_bucket
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.limits import Limits
from darkroom.ports.generation import Again, GenerationRequest, Refused
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError
from darkroom.twin.kie import kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.store_faults import store_proxy
from tests.logs import logged
from tests.scripted import picture_of
from tests.shop import Customer, Shop, open_shop
from tests.wires import wires_of

DAY: Final = 86_400
JPEG: Final = "image/jpeg"
HASH: Final = "0123456789abcdef"


def file_of(folder: Path, key: str) -> Path:
    return folder / f"objects-{os.getpid()}" / key


async def keys_of(shop: Shop) -> set[str]:
    """Everything that lies in the store."""
    pages = [await shop.darkroom.store.list_keys(folder) for folder in sweeping.FOLDERS]
    return {key for page in pages for key in page}


async def photo_keys(shop: Shop) -> list[str]:
    rows = await shop.rows("SELECT object_key FROM generated_photos ORDER BY id")
    return [row["object_key"] for row in rows]


async def put(shop: Shop, *keys: str) -> list[str]:
    for key in keys:
        await shop.darkroom.store.put_once(key, key.encode(), JPEG)
    return list(keys)


async def sweep_all(shop: Shop) -> int:
    """The walk once around, and whoever erases after it."""
    swept = 0
    for _ in range(50):
        swept += await sweep_bucket(shop.darkroom)
        row = (await shop.rows("SELECT folder FROM bucket_walks WHERE name = 'sweep'"))[0]
        await shop.advance(3601)
        if row["folder"] == "":
            break
    while await erase_pictures(shop.darkroom):
        pass
    return swept


async def sold_and_delivered(shop: Shop) -> Customer:
    customer, _ = await shop.sold()
    await shop.drain()
    return customer


async def test_every_stored_photo_is_read_and_the_longest_unseen_first(shop: Shop) -> None:
    await sold_and_delivered(shop)
    await shop.rows("UPDATE generated_photos SET bytes_checked_at = NULL RETURNING id")
    seen: list[Progress] = []
    report = await audit_bucket(shop.darkroom, limit=3, report=seen.append)
    assert (report.checked, report.photos, report.never_checked) == (3, 7, 4)
    assert report.clean
    report = await audit_bucket(shop.darkroom, limit=4)
    assert (report.checked, report.never_checked) == (4, 0)
    report = await audit_bucket(shop.darkroom, limit=None, report=seen.append)
    assert (report.checked, report.clean) == (7, True)
    assert seen == [Progress(3, 3), Progress(7, 7)]


async def test_bytes_that_are_gone_cut_changed_or_no_picture_are_found_with_their_rows(
    shop: Shop, tmp_path: Path
) -> None:
    await sold_and_delivered(shop)
    keys = await photo_keys(shop)
    files = [file_of(tmp_path, key) for key in keys]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].write_bytes(files[2].read_bytes() + b"x")
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    files[4].write_bytes(b"not a picture")
    shop.audit_at_end = False  # the row is made to fit, and its key then does not name it
    await shop.rows(
        "UPDATE generated_photos SET sha256 = %s, size_bytes = 13 WHERE object_key = %s RETURNING id",
        hashlib.sha256(b"not a picture").hexdigest(),
        keys[4],
    )
    report = await audit_bucket(shop.darkroom, limit=None)
    assert not report.clean
    assert report.findings == 5
    assert [(row["object_key"], row["finding"]) for row in report.rows] == list(
        zip(
            keys,
            ["missing", "other_size", "other_size", "other_bytes", "not_a_picture"],
            strict=False,
        )
    )
    # What is whole again is no finding any more.
    files[3].write_bytes(whole)
    assert (await audit_bucket(shop.darkroom, limit=None)).findings == 4


async def test_a_worker_looks_at_a_batch_each_minute_and_alarms(shop: Shop, tmp_path: Path) -> None:
    await sold_and_delivered(shop)
    await shop.advance(61)
    assert await check_bucket(shop.darkroom) == 7
    assert await check_bucket(shop.darkroom) == 0, "not due: also for another process"
    keys = await photo_keys(shop)
    file_of(tmp_path, keys[2]).unlink()
    await shop.advance(61)
    lines = await logged(lambda: check_bucket(shop.darkroom))
    assert [line["object_key"] for line in lines if line["log_level"] == "error"] == [keys[2]]
    assert BUCKET_FINDINGS._value.get() == 1  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def test_a_store_that_does_not_answer_is_no_finding(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sold_and_delivered(shop)

    async def silent(_key: str, *, most_bytes: int = 0) -> bytes:
        del most_bytes
        raise StorageUnavailableError("get: TimeoutError")

    monkeypatch.setattr(shop.darkroom.store, "get", silent)
    await shop.rows("UPDATE generated_photos SET bytes_checked_at = NULL RETURNING id")
    report = await audit_bucket(shop.darkroom, limit=None)
    assert (report.clean, report.findings, report.failure) == (False, 0, "get: TimeoutError")
    assert report.never_checked == 7


def _withhold(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, key: str, *, answers: int | None = None
) -> None:
    """The store answers 500 for one object, and for everything after so many answers."""
    real, given = shop.darkroom.store.get, 0

    async def get(asked: str, *, most_bytes: int) -> bytes:
        nonlocal given
        if asked == key or given == answers:
            raise StorageUnavailableError("get: 500")
        given += 1
        return await real(asked, most_bytes=most_bytes)

    monkeypatch.setattr(shop.darkroom.store, "get", get)


async def test_one_object_that_is_never_given_out_is_a_finding_and_holds_up_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came first in each round; a look at all photos broke off at it."""
    shop.darkroom = replace(shop.darkroom, limits=Limits(batch=3))
    await sold_and_delivered(shop)
    keys = await photo_keys(shop)
    with monkeypatch.context() as away:
        _withhold(shop, away, keys[0])
        await shop.rows("UPDATE generated_photos SET bytes_checked_at = NULL RETURNING id")
        report = await audit_bucket(shop.darkroom, limit=6)
        assert (report.checked, report.failure, report.never_checked) == (6, None, 1)
        await shop.advance(61)
        await check_bucket(shop.darkroom)
        report = await audit_bucket(shop.darkroom, limit=None)
        assert (report.checked, report.failure, report.clean) == (7, None, False)
        assert [(row["object_key"], row["finding"]) for row in report.rows] == [
            (keys[0], "unreadable")
        ]
        assert BUCKET_FINDINGS._value.get() == 1  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    assert (await audit_bucket(shop.darkroom, limit=None)).clean


async def test_a_store_that_goes_away_in_the_middle_of_a_batch_is_no_finding(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sold_and_delivered(shop)
    await shop.rows("UPDATE generated_photos SET bytes_checked_at = NULL RETURNING id")
    _withhold(shop, monkeypatch, "none", answers=3)
    report = await audit_bucket(shop.darkroom, limit=None)
    assert (report.checked, report.findings, report.failure) == (3, 0, "get: 500")
    assert report.never_checked == 4


async def test_a_photo_that_is_being_erased_is_not_looked_at(shop: Shop, tmp_path: Path) -> None:
    await sold_and_delivered(shop)
    first = (await photo_keys(shop))[0]
    file_of(tmp_path, first).unlink()
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now(), erasing_at = darkroom_now() "
        "WHERE object_key = %s RETURNING id",
        first,
    )
    report = await audit_bucket(shop.darkroom, limit=None)
    assert (report.clean, report.photos) == (True, 6)


async def test_what_nobody_needs_goes_after_a_day_and_everything_else_stays(shop: Shop) -> None:
    customer = await sold_and_delivered(shop)
    needed = await keys_of(shop)
    assert len(needed) == 7 + 7 + 1
    picture, place = (await photo_keys(shop))[0], f"{customer.avatar_id}/signature"
    folder = picture.rpartition("/")[0]
    selfie = hashlib.sha256(b"never kept").hexdigest()
    orphans = await put(
        shop,
        f"{folder}/0-{HASH}.jpg",
        f"{folder.replace('generated', 'thumbnails')}/6-{HASH}.jpg",
        f"references/{customer.avatar_id}/{selfie}.jpg",
        f"proofs/{HASH}",
        f"uploads/1/{HASH}",
    )
    strangers = await put(
        shop,
        # Of a task that we do not know: the database may be an old copy.
        f"generated/{place}/999999/0-{HASH}.jpg",
        f"generated/{place}/1/77-{HASH}.jpg",
        f"references/999999/{selfie}.jpg",
        # Not named by us.
        "generated/readme.txt",
        f"references/{customer.avatar_id}/portrait.jpg",
    )
    await shop.advance(3601)
    assert await sweep_all(shop) == 0, "younger than a day"
    assert await keys_of(shop) == needed | {*orphans, *strangers}
    await shop.advance(DAY)
    assert await sweep_all(shop) == len(orphans)
    assert await keys_of(shop) == needed | set(strangers)
    assert (await audit_bucket(shop.darkroom, limit=None)).clean


async def _restored(shop: Shop, *, younger: bool = False) -> list[str]:
    """An old database gave the numbers of lost days out again: what those days left, under such numbers."""
    customer = await sold_and_delivered(shop)
    picture = (await photo_keys(shop))[0].rpartition("-")[0]
    _, avatar, style, rest = picture.split("/", 3)
    selfie = hashlib.sha256(b"of the lost days").hexdigest()
    lost = (
        # The same numbers under another avatar, another style, or only earlier.
        f"generated/{avatar}1/{style}/{rest}-{HASH}.jpg",
        f"thumbnails/{avatar}/creative/{rest}-{HASH}.jpg",
        f"generated/{avatar}/{style}/{rest}-{HASH}.jpg",
        f"references/{customer.avatar_id}/{selfie}.jpg",
    )
    await put(shop, *lost)
    # The lost days were before this database's orders: as old by the store's clock, as young by the rows'.
    for statement in (
        "UPDATE kie_tasks SET created_at = created_at + make_interval(days => 1) RETURNING id",
        "UPDATE avatars SET created_at = created_at + make_interval(days => 1) RETURNING id",
    )[: 2 if younger else 0]:
        await shop.rows(statement)  # pyright: ignore[reportArgumentType]
    await shop.advance(3 * DAY)
    await sweep_all(shop)
    left = await keys_of(shop)
    return [key for key in lost if key in left]


async def test_what_an_order_of_the_same_number_left_in_lost_days_is_not_swept(shop: Shop) -> None:
    """Only job and place were looked at: after a restore the photos of lost days were deleted."""
    assert len(await _restored(shop, younger=True)) == 4


async def test_what_is_of_its_own_days_is_told_by_avatar_and_style(shop: Shop) -> None:
    assert [key.split("/")[0] for key in await _restored(shop)] == ["generated", "thumbnails"]


async def test_twin_where_the_number_is_enough_the_lost_days_photos_are_swept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_OF_ITS_TASK", "TRUE")
    monkeypatch.setattr(bucket, "_OF_ITS_AVATAR", "TRUE")
    assert await _restored(shop, younger=True) == []


async def test_a_walk_goes_on_where_it_was_left_and_a_crash_repeats_a_page(shop: Shop) -> None:
    shop.darkroom = replace(shop.darkroom, limits=Limits(bucket_page=4))
    await sold_and_delivered(shop)
    folder = (await photo_keys(shop))[0].rpartition("/")[0]
    orphans = await put(shop, *(f"{folder}/{number}-{HASH}.jpg" for number in range(7)))
    await shop.advance(2 * DAY)

    async def die(name: str) -> None:
        if name == "bucket.swept":
            raise ConnectionError

    await shop.rows("UPDATE bucket_walks SET folder = '', after_key = '' RETURNING name")
    with checkpoints_handled_by(die), pytest.raises(ConnectionError):
        await sweep_bucket(shop.darkroom)
    assert await sweep_bucket(shop.darkroom) == 0, "somebody has it, for all anybody knows"
    await shop.advance(sweeping.HOLD_SECONDS)
    await sweep_all(shop)
    left = await keys_of(shop)
    assert not left & set(orphans)
    assert len(left) == 7 + 7 + 1


async def test_nothing_goes_while_its_task_is_under_way(shop: Shop) -> None:
    customer, job = await shop.sold()
    place = f"generated/{customer.avatar_id}/signature/{job.id}"
    waiting = await put(shop, *(f"{place}/{number}-{HASH}.jpg" for number in range(7)))
    await shop.advance(2 * DAY)
    assert await sweep_all(shop) == 0
    assert set(waiting) < await keys_of(shop)
    shop.audit_at_end = False  # nobody worked on it for two days


async def test_a_failed_photo_keeps_what_a_replay_would_find_until_its_money_goes_back(
    shop: Shop,
) -> None:
    """The same picture put again is as old as before: were it swept, the replayed photo would be lost."""

    async def refuse(request: GenerationRequest) -> Refused | None:
        return Refused("400", "no", Again.NEVER) if request.prompt_index == 0 else None

    shop.provider.on_create = refuse
    customer, job = await shop.sold()
    for _ in range(3):
        for step in ("submit", "poll", "collect"):
            await shop.step(step)
    orphan = f"generated/{customer.avatar_id}/signature/{job.id}/0-{HASH}.jpg"
    await put(shop, orphan)
    await shop.advance(2 * DAY)
    assert await sweep_all(shop) == 0, "its money is not on its way back yet"
    await shop.drain()
    await shop.advance(2 * DAY)
    await sweep_all(shop)  # if the worker's own rounds have not been there already
    assert orphan not in await keys_of(shop)


class _Met:
    """A store that has somebody come by right after bytes were put under `folder`."""

    def __init__(self, inner: Any, folder: str, come_by: Callable[[], Awaitable[object]]) -> None:  # noqa: ANN401
        self._inner, self._folder, self._come_by = inner, folder, come_by
        self._came = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        await self._inner.put_once(key, data, content_type)
        if key.startswith(self._folder) and not self._came:
            self._came = True
            await self._come_by()


async def sweep_between_put_and_row(shop: Shop) -> None:
    """An order whose every picture was put by a worker that died, long ago; the next one meets the sweeper."""
    store = shop.darkroom.store

    async def sweep() -> None:
        await shop.advance(2 * DAY)
        await sweep_bucket(shop.darkroom)

    shop.audit_at_end = False  # the clock runs through the order's whole deadline
    await shop.sold()
    for step in ("submit", "poll"):
        await shop.step(step)
    shop.darkroom = replace(shop.darkroom, store=_Met(store, "generated/", sweep))
    await shop.step("collect")
    shop.darkroom = replace(shop.darkroom, store=store)
    assert await shop.value("SELECT count(*) FROM generated_photos") > 0


async def test_a_worker_between_its_put_and_its_row_loses_nothing_to_the_sweeper(
    shop: Shop,
) -> None:
    await sweep_between_put_and_row(shop)
    assert (await audit_bucket(shop.darkroom, limit=None)).clean


async def test_twin_a_sweeper_that_does_not_ask_for_the_task_loses_photos(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_ENDED", "TRUE")
    await sweep_between_put_and_row(shop)
    report = await audit_bucket(shop.darkroom, limit=None)
    assert {row["finding"] for row in report.rows} == {"missing"}


async def selfie_between_put_and_row(shop: Shop) -> bytes:
    """Somebody sends a file that a dead process had put and not kept; sweeper and eraser come by."""
    customer = await shop.customer()
    picture = picture_of(-4711)

    async def sweep() -> None:
        await shop.advance(2 * DAY)
        await sweep_bucket(shop.darkroom)
        while await erase_pictures(shop.darkroom):
            pass

    met = replace(shop.darkroom, store=_Met(shop.darkroom.store, "references/", sweep))
    selfie_id = await add_selfie(met, avatar_id=customer.avatar_id, data=picture)
    while await erase_pictures(shop.darkroom):
        pass
    key = await shop.value("SELECT object_key FROM reference_photos WHERE id = %s", selfie_id)
    return await shop.darkroom.store.get(key)


async def test_a_selfie_between_its_put_and_its_row_is_put_elsewhere(shop: Shop) -> None:
    assert await selfie_between_put_and_row(shop)
    rows = await shop.rows(
        "SELECT erased_at IS NULL AS there FROM reference_photos "
        "WHERE avatar_id = (SELECT max(id) FROM avatars) ORDER BY id"
    )
    assert [row["there"] for row in rows] == [True, False, True]


async def test_twin_a_sweeper_that_deletes_loose_selfies_itself_loses_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweeping.list_loose_selfies

    async def careless(*arguments: Any, **named: Any) -> list[LooseSelfie]:  # noqa: ANN401
        return [replace(one, is_nobodys=True) for one in await asked(*arguments, **named)]

    monkeypatch.setattr(sweeping, "list_loose_selfies", careless)
    with pytest.raises(ObjectMissingError):
        await selfie_between_put_and_row(shop)


async def test_what_came_after_its_row_was_erased_goes_too(shop: Shop) -> None:
    """A late put under the key of a photo or a selfie that is gone: somebody's face, and no row has it."""
    customer = await sold_and_delivered(shop)
    photo = (await photo_keys(shop))[0]
    selfie = await shop.value("SELECT object_key FROM reference_photos")
    for key, table in ((photo, "generated_photos"), (selfie, "reference_photos")):
        await shop.darkroom.store.delete(key)
        await put(shop, key)
        statement = {
            "generated_photos": "UPDATE generated_photos SET deleted_at = darkroom_now(), "
            "erasing_at = darkroom_now(), erased_at = darkroom_now() WHERE object_key = %s RETURNING id",
            "reference_photos": "UPDATE reference_photos SET deleted_at = darkroom_now(), "
            "erasing_at = darkroom_now(), erased_at = darkroom_now() WHERE object_key = %s RETURNING id",
        }[table]
        assert await shop.rows(statement, key)  # pyright: ignore[reportArgumentType]
    await shop.advance(2 * DAY)
    await sweep_all(shop)
    assert not {photo, selfie} & await keys_of(shop)
    del customer


async def test_loose_selfies_of_a_deleted_avatar_go_without_a_row(shop: Shop) -> None:
    customer = await shop.customer()
    loose = f"references/{customer.avatar_id}/{'ab' * 32}.jpg"
    await put(shop, loose)
    await remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=customer.avatar_id)
    await shop.advance(2 * DAY)
    assert await sweep_all(shop) == 1
    assert loose not in await keys_of(shop)
    assert await shop.value("SELECT count(*) FROM reference_photos") == 1


async def test_a_selfie_is_gone_from_the_folder_also_where_its_writer_died(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the file got its name and before the first one was taken away: no list shows that one."""
    customer = await shop.customer()
    selfie = file_of(tmp_path, await shop.value("SELECT object_key FROM reference_photos"))
    os.link(selfie, f"{selfie}#1")
    await remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=customer.avatar_id)
    for step in ("selfies", "erase"):
        await shop.step(step)
    left = [path.name for path in selfie.parent.iterdir()]
    assert left == [f"{selfie.name}#1"]
    assert await sweep_all(shop) == 0, "its writer may be alive"
    # By the disk's clock, not the database's.
    now = time.time()
    monkeypatch.setattr(storage_folder.time, "time", lambda: now + DAY)
    assert await sweep_all(shop) == 1
    assert not list(selfie.parent.iterdir())


async def test_a_file_that_may_not_be_removed_stops_neither_the_others_nor_the_walk(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.customer()
    folder = file_of(tmp_path, await shop.value("SELECT object_key FROM reference_photos")).parent
    for name in ("a.jpg#1", "b.jpg#1", "c.jpg#1"):
        (folder / name).write_bytes(b"part")
    really, now = Path.unlink, time.time()

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "b.jpg#1":
            raise PermissionError(13, "Permission denied")
        really(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(storage_folder.time, "time", lambda: now + DAY)
    assert await sweep_all(shop) == 2
    assert sorted(path.name for path in folder.iterdir() if "#" in path.name) == ["b.jpg#1"]
    assert await shop.rows("SELECT folder, after_key FROM bucket_walks WHERE name = 'sweep'") == [
        {"folder": "", "after_key": ""}
    ]


async def test_a_whole_set_by_kie_from_a_bucket_puts_each_selfie_once(
    database: Database, tmp_path: Path, s3_place: S3Place
) -> None:
    """bugbook B25: selfies were uploaded again for each of 23 tasks; here kie.ai reads one object by links."""
    assert s3_place.endpoint is not None
    async with (
        store_proxy(s3_place.endpoint) as proxy,
        kie_twin(Habits(asks_to_finish=1, reads_references=True)) as kie,
    ):
        store = open_s3(replace(s3_place, endpoint=proxy.endpoint))
        provider = KieProvider(
            base_url=kie.base_url,
            api_key="twin-key",
            model="nano-banana-pro",
            callback_base_url="http://127.0.0.1:9",
            reference_link=store.readable_link,
            downloader=Downloader(allow_private=True, hosts_allowed=None),
        )
        async with open_shop(database, tmp_path, provider=provider) as shop:
            shop.darkroom = replace(shop.darkroom, store=store)
            await sold_and_delivered(shop)
            assert proxy.seen["PUT"] == 1 + 7 + 7 + 1, "a selfie, seven photos twice, the mark"
            assert kie.tasks_created == 7
            links = [task.order["input"]["image_input"] for task in kie.tasks.values()]
            assert {len(one) for one in links} == {1}
            assert len({str(one[0]).partition("?")[0] for one in links}) == 1
            assert len(await keys_of(shop)) == 15
            report = await audit_bucket(shop.darkroom, limit=None)
            assert (report.checked, report.clean) == (7, True)
            # The sweeper walks a real bucket, too.
            orphan = (await photo_keys(shop))[3][:-20] + f"{HASH}.jpg"
            await put(shop, orphan)
            await shop.advance(2 * DAY)
            assert await sweep_all(shop) == 1
            assert len(await keys_of(shop)) == 15
        await provider.close()


@pytest.fixture
def type_words(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A person at a terminal, on the shop that lies in `tmp_path`."""
    monkeypatch.setattr(bucket_audit, "console", Console(highlight=False, width=80))
    monkeypatch.setattr(terminal, "errors", Console(highlight=False, width=200, stderr=True))

    @asynccontextmanager
    async def open_darkroom(_settings: Settings):
        database = Database(dsn)
        await database.open()
        try:
            async with open_shop(database, tmp_path) as shop:
                yield shop.darkroom
        finally:
            await database.close()

    def open_it(settings: Settings) -> AbstractAsyncContextManager[Darkroom]:
        return open_darkroom(settings)

    wires = wires_of(open_darkroom=open_it)
    return lambda *words: CliRunner().invoke(build_cli(wires), list(words))


def test_the_command_says_it_in_words_in_json_and_by_its_exit_code(
    dsn: str, tmp_path: Path, type_words: Callable[..., Result]
) -> None:
    async def sell() -> str:
        database = Database(dsn)
        await database.open()
        async with open_shop(database, tmp_path) as shop:
            await sold_and_delivered(shop)
            await shop.rows("UPDATE generated_photos SET bytes_checked_at = NULL RETURNING id")
            key = (await photo_keys(shop))[0]
        await database.close()
        return key

    key = asyncio.run(sell())
    clean = type_words("audit", "--bucket", "--limit", "2")
    assert clean.exit_code == 0, clean.output
    assert "photos read now 2 of 7; never read 5" in clean.output
    assert "bucket clean" in clean.output
    file_of(tmp_path, key).unlink()
    found = type_words("audit", "--bucket", "--all")
    assert found.exit_code == 1
    assert "missing" in found.output
    assert key[:30] in found.output.replace("\n", "")
    assert max(len(line) for line in found.stdout.splitlines()) <= 80
    as_json = type_words("audit", "--bucket", "--all", "--json")
    assert as_json.exit_code == 1
    told = json.loads(as_json.stdout)
    assert (told["clean"], told["findings"], told["checked"]) == (False, 1, 7)
    assert told["rows"][0]["object_key"] == key
