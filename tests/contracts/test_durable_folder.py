"""What a photo's row may point at: a file that a power cut leaves where it is."""

import os
from pathlib import Path

import pytest

from darkroom.adapters.storage_folder import DurableFolder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was synced, in order."""
    names: list[str] = []
    really = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


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
