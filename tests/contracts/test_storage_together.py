"""Files that come at once: one wait for the disk, and each its own outcome."""

import asyncio
import errno
import os
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore

from darkroom.adapters import storage_together
from darkroom.adapters.storage import Storage
from darkroom.adapters.storage_disk import Disk
from darkroom.adapters.storage_folder import DurableFolder
from darkroom.adapters.storage_together import FilesTogether
from darkroom.ports.storage import ObjectConflictError, StorageUnavailableError


class WatchedDisk(Disk):
    """The real disk, which notes the files that were there at each sync, and waits where it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.seen: list[list[str]] = []
        self.fails = False
        self.quick = True
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    @property
    def is_quick(self) -> bool:
        return self.quick

    def sync(self) -> None:
        self.begun.set()
        assert self.may_go_on.wait(10)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        self.seen.append(sorted(one.name for one in self.folder.rglob("*.jpg")))
        super().sync()


@pytest.fixture
def disk(tmp_path: Path) -> WatchedDisk:
    return WatchedDisk(tmp_path)


@pytest.fixture
def together(tmp_path: Path, disk: WatchedDisk) -> Generator[FilesTogether]:
    made = FilesTogether(LocalStore(tmp_path), tmp_path, disk, DurableFolder(tmp_path))
    yield made
    made.close()


async def _until_it_syncs(disk: WatchedDisk) -> None:
    assert await asyncio.to_thread(disk.begun.wait, 10)


async def _first_held_up(
    together: FilesTogether, disk: WatchedDisk, keys: Sequence[str]
) -> list[asyncio.Task[None]]:
    """The first file is being synced, and the others wait."""
    disk.may_go_on.clear()
    tasks = [asyncio.create_task(together.put(keys[0], b"first"))]
    await _until_it_syncs(disk)
    tasks += [asyncio.create_task(together.put(key, key.encode())) for key in keys[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_the_first_is_synced_goes_together_into_the_next(
    together: FilesTogether, disk: WatchedDisk, tmp_path: Path
) -> None:
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg", "7/c.jpg", "8/d.jpg"])
    assert not any(task.done() for task in tasks)
    disk.may_go_on.set()
    await asyncio.gather(*tasks)
    assert disk.seen == [["a.jpg"], ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]]
    assert (tmp_path / "8" / "d.jpg").read_bytes() == b"8/d.jpg"


async def test_nobody_is_told_before_the_disk_was(
    together: FilesTogether, disk: WatchedDisk
) -> None:
    """Were it the other way, a power cut could leave a row without its photo."""
    (task,) = await _first_held_up(together, disk, ["a.jpg"])
    assert not task.done()
    disk.fails = True
    disk.may_go_on.set()
    with pytest.raises(OSError, match="Input/output error"):
        await task


async def test_of_a_group_only_the_one_that_is_there_already_is_refused(
    together: FilesTogether, disk: WatchedDisk, tmp_path: Path
) -> None:
    (tmp_path / "b.jpg").write_bytes(b"another")
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg", "c.jpg"])
    disk.may_go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), AlreadyExistsError, type(None)]
    assert (tmp_path / "b.jpg").read_bytes() == b"another"


async def test_who_stopped_waiting_before_its_turn_leaves_no_file(
    together: FilesTogether, disk: WatchedDisk, tmp_path: Path
) -> None:
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg", "c.jpg"])
    tasks[1].cancel()
    disk.may_go_on.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert not (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize(("bound", "most"), [("FILES_MAX", 2), ("BYTES_MAX", 11)])
async def test_a_group_has_bounds_and_the_rest_comes_next(
    together: FilesTogether,
    disk: WatchedDisk,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    most: int,
) -> None:
    monkeypatch.setattr(storage_together, bound, most)
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    disk.may_go_on.set()
    await asyncio.gather(*tasks)
    assert [len(seen) for seen in disk.seen] == [1, 3, 4]


async def test_a_file_on_another_disk_below_the_folder_is_synced_for_itself(
    together: FilesTogether, disk: WatchedDisk, synced: list[str]
) -> None:
    """The disk that is told keeps nothing of what lies on another."""
    await together.put("a.jpg", b"ours")
    assert "a.jpg" not in synced
    disk.device += 1
    await together.put("b.jpg", b"elsewhere")
    assert "b.jpg" in synced


async def test_while_the_disk_is_slow_each_file_is_synced_for_itself(
    together: FilesTogether, disk: WatchedDisk, tmp_path: Path, synced: list[str]
) -> None:
    storage = Storage(LocalStore(tmp_path), folder=tmp_path, together=together)
    await storage.put_once("a.jpg", b"quick", "image/jpeg")
    assert disk.seen == [["a.jpg"]]
    assert "a.jpg" not in synced
    disk.quick = False
    await storage.put_once("b.jpg", b"slow", "image/jpeg")
    assert disk.seen == [["a.jpg"]]
    assert "b.jpg" in synced


async def test_a_file_whose_sync_failed_is_written_anew_when_it_is_put_again(
    together: FilesTogether, disk: WatchedDisk, tmp_path: Path, synced: list[str]
) -> None:
    """It is there and may not stay. Synced again as it is, the disk says no once, and then yes."""
    storage = Storage(LocalStore(tmp_path), folder=tmp_path, together=together)
    disk.fails = True
    with pytest.raises(StorageUnavailableError):
        await storage.put_once("a.jpg", b"photo", "image/jpeg")
    assert synced == []
    unsynced = (tmp_path / "a.jpg").stat().st_ino
    await storage.put_once("a.jpg", b"photo", "image/jpeg")
    assert [name.partition("#")[0] for name in synced[:1]] == ["a.jpg"]
    assert (tmp_path / "a.jpg").stat().st_ino != unsynced


@pytest.mark.parametrize("left", [b"", b"pho", b"pho\0\0"])
async def test_what_a_power_cut_left_of_a_file_is_written_anew(
    together: FilesTogether, tmp_path: Path, left: bytes
) -> None:
    """Its name stays when its bytes do not: taken for another's, the photo would be bought again."""
    storage = Storage(LocalStore(tmp_path), folder=tmp_path, together=together)
    (tmp_path / "a.jpg").write_bytes(left)
    await storage.put_once("a.jpg", b"photo", "image/jpeg")
    assert (tmp_path / "a.jpg").read_bytes() == b"photo"


@pytest.mark.parametrize("there", [b"phone", b"photograph", b"x"])
async def test_other_bytes_under_a_name_are_nobodys_to_replace(
    together: FilesTogether, tmp_path: Path, there: bytes
) -> None:
    storage = Storage(LocalStore(tmp_path), folder=tmp_path, together=together)
    (tmp_path / "a.jpg").write_bytes(there)
    with pytest.raises(ObjectConflictError):
        await storage.put_once("a.jpg", b"photo", "image/jpeg")
    assert (tmp_path / "a.jpg").read_bytes() == there


async def test_a_disk_that_refuses_the_second_time_is_no_answer(
    together: FilesTogether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(LocalStore(tmp_path), folder=tmp_path, together=together)
    (tmp_path / "a.jpg").write_bytes(b"photo")

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageUnavailableError):
        await storage.put_once("a.jpg", b"photo", "image/jpeg")


async def test_a_name_that_the_store_refuses_costs_nobody_else(
    together: FilesTogether, disk: WatchedDisk
) -> None:
    tasks = await _first_held_up(together, disk, ["a.jpg", "../b.jpg", "c.jpg"])
    disk.may_go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert isinstance(outcomes[1], Exception)


async def test_bytes_of_those_who_gave_up_are_let_go_while_the_disk_hangs(
    together: FilesTogether, disk: WatchedDisk
) -> None:
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg", "c.jpg"])
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    assert together._waiting == []  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nobody else sees it
    disk.may_go_on.set()
    await tasks[0]


async def test_a_writer_that_is_stopped_leaves_nobody_waiting(
    together: FilesTogether, disk: WatchedDisk
) -> None:
    tasks = await _first_held_up(together, disk, ["a.jpg", "b.jpg"])
    (writer,) = (one for one in asyncio.all_tasks() if one.get_name() == "storage-together")
    writer.cancel()
    disk.may_go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes] == [asyncio.CancelledError] * 2
