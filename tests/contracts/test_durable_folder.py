"""What a photo's row may point at: a file that a power cut leaves where it is."""

import os
import time
from pathlib import Path

import pytest

from darkroom.adapters import storage_folder
from darkroom.adapters.storage_folder import DurableFolder


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")
    return path


def test_the_first_file_syncs_every_folder_above_and_the_next_only_its_own(
    tmp_path: Path, synced: list[str]
) -> None:
    root = tmp_path / "objects"
    durable = DurableFolder(root)
    durable.keep(_write(root / "generated" / "7" / "a.jpg"))
    assert synced == ["a.jpg", "7", "generated", "objects"]
    synced.clear()
    durable.keep(_write(root / "generated" / "7" / "b.jpg"))
    assert synced == ["b.jpg", "7"]
    synced.clear()
    durable.keep(_write(root / "generated" / "8" / "c.jpg"))
    assert synced == ["c.jpg", "8", "generated"]


def test_a_folder_that_was_made_again_is_synced_again(tmp_path: Path, synced: list[str]) -> None:
    root = tmp_path / "objects"
    durable = DurableFolder(root)
    durable.keep(_write(root / "generated" / "7" / "a.jpg"))
    synced.clear()
    # Still there under another name, so that the new folder cannot get its number on the disk.
    (root / "generated" / "7").rename(tmp_path / "elsewhere")
    durable.keep(_write(root / "generated" / "7" / "a.jpg"))
    assert synced == ["a.jpg", "7", "generated"]


def test_what_failed_to_sync_is_not_counted_as_staying(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "objects"
    durable = DurableFolder(root)
    path = _write(root / "generated" / "7" / "a.jpg")
    noted = os.fsync

    def fails_at_the_root(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == root:
            raise OSError("no space left on device")
        noted(descriptor)

    monkeypatch.setattr(os, "fsync", fails_at_the_root)
    with pytest.raises(OSError, match="no space"):
        durable.keep(path)
    monkeypatch.setattr(os, "fsync", noted)
    synced.clear()
    durable.keep(path)
    assert synced == ["a.jpg", "7", "generated", "objects"]


def test_a_removal_syncs_the_folders_that_are_left(tmp_path: Path, synced: list[str]) -> None:
    root = tmp_path / "objects"
    root.mkdir()
    DurableFolder(root).keep_removed(root / "generated" / "7" / "a.jpg")
    assert synced == ["objects"]


def test_the_working_folder_is_a_folder_like_any_other(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared as text, `a.jpg` does not lie below `.`, and nothing above it would be synced."""
    monkeypatch.chdir(tmp_path)
    DurableFolder(Path()).keep(_write(Path("generated") / "a.jpg"))
    assert synced == ["a.jpg", "generated", tmp_path.name]


def test_what_is_put_anew_has_its_name_only_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row may point at the file that is replaced: a power cut in the middle must not cost it."""
    path = _write(tmp_path / "7" / "a.jpg")
    os.utime(path, (1_000_000, 1_000_000))
    really, stood = os.fsync, list[tuple[str, bytes]]()

    def noted(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink().name
        stood.append((synced.partition("#")[0], path.read_bytes()))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    DurableFolder(tmp_path).put_anew(path, b"the same, anew")
    # Its bytes first, while the old ones stand; then the name's folder and those above.
    assert stood[0] == ("a.jpg", b"photo")
    assert ("7", b"the same, anew") in stood[1:]
    assert path.stat().st_mtime == 1_000_000
    assert [one.name for one in path.parent.iterdir()] == ["a.jpg"]


def test_what_could_not_be_put_anew_leaves_the_old_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.jpg")

    def refuse(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        DurableFolder(tmp_path).put_anew(path, b"anew")
    assert path.read_bytes() == b"photo"
    assert [one.name for one in tmp_path.iterdir()] == ["a.jpg"]


def test_a_name_that_somebody_else_stages_under_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.jpg")
    theirs = _write(tmp_path / "a.jpg#7")

    def seven(_most: int) -> int:
        return 7

    monkeypatch.setattr(storage_folder.secrets, "randbelow", seven)
    with pytest.raises(FileExistsError):
        DurableFolder(tmp_path).put_anew(path, b"anew")
    assert theirs.read_bytes() == b"photo"


def test_what_a_dead_writer_left_is_removed_when_it_is_old_and_nothing_else(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that no list shows may hold a whole selfie, also when the selfie itself is deleted."""
    selfies = tmp_path / "references" / "7"
    kept = [_write(selfies / name) for name in ("a.jpg", "a#1.jpg", "b.jpg#", "#1")]
    left = [_write(selfies / name) for name in ("a.jpg#1", "b.jpg#20")]
    other = _write(tmp_path / "generated" / "c.jpg#1")
    # As `put_anew` does, and as a writer could: neither makes it older than it is.
    os.utime(left[0], (1_000_000, 1_000_000))
    durable, now = DurableFolder(tmp_path), time.time()
    assert durable.remove_unfinished("references", old_seconds=3600, limit=10) == 0
    monkeypatch.setattr(storage_folder.time, "time", lambda: now + 3601)
    synced.clear()
    assert durable.remove_unfinished("references", old_seconds=3600, limit=1) == 1
    assert synced[0] == "7"
    assert durable.remove_unfinished("references", old_seconds=3600, limit=10) == 1
    assert durable.remove_unfinished("references", old_seconds=3600, limit=10) == 0
    assert [path.exists() for path in (*kept, *left, other)] == [True] * 4 + [False] * 2 + [True]
    assert durable.remove_unfinished("nobodys", old_seconds=0, limit=10) == 0
