"""A folder of this machine is walked in the order of keys, and no further than a page needs."""

import os
from pathlib import Path

import pytest

from darkroom.adapters.storage import open_storage
from darkroom.ports.storage import StorageUnavailableError


def _write(root: Path, *keys: str) -> None:
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())


async def test_folders_and_files_stand_in_the_order_of_their_keys(tmp_path: Path) -> None:
    """A slash stands between a hyphen and a letter."""
    keys = ["g/a", "g/a-b/1", "g/a.b", "g/a/1", "g/a/b/1", "g/a0", "g/ab/1", "g/é/1"]
    keys.remove("g/a")  # a file and a folder of one name cannot both be there
    _write(tmp_path, *keys)
    storage = open_storage(None, tmp_path)
    walked: list[str] = []
    while page := await storage.list_page("g", after=walked[-1] if walked else "", limit=2):
        walked += [one.key for one in page]
    assert walked == sorted(keys)
    assert await storage.list_keys("g/a") == ["g/a/1", "g/a/b/1"]
    assert await storage.describe("g/a/1") == (await storage.list_page("g/a", limit=1))[0]


async def test_what_lies_before_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page read the whole folder: 2 s of a core with 100,000 files, each minute."""
    _write(tmp_path, *(f"g/{number:03}/{photo}" for number in range(100) for photo in range(3)))
    storage = open_storage(None, tmp_path)
    read: list[str] = []
    scandir = os.scandir

    def noted(place: str) -> object:
        read.append(place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", noted)
    page = await storage.list_page("g", after="g/050/1", limit=4)
    assert [one.key for one in page] == ["g/050/2", "g/051/0", "g/051/1", "g/051/2"]
    assert [Path(place).name for place in read] == ["g", "050", "051"]


async def test_files_with_odd_names_and_unfinished_ones_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, "g/a", "g/b\tb", "g/c#12", "g/d\nd/1", "g/z")
    (tmp_path / "g" / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    (tmp_path / "g" / "leads-nowhere").symlink_to(tmp_path / "nothing")
    assert await open_storage(None, tmp_path).list_keys("g") == ["g/a", "g/z"]


async def test_a_folder_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "g/a/1")
    storage = open_storage(None, tmp_path)

    def refuse(place: str) -> None:
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageUnavailableError):
        await storage.list_keys("g")
