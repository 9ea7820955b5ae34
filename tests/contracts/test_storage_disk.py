"""Which disks are trusted to keep many files at once, and what is done when one is slow or refuses."""

import contextlib
import ctypes
import errno
import os
import platform
from pathlib import Path

import pytest

from darkroom.adapters import storage_disk
from darkroom.adapters.storage_disk import REST_SECONDS, SLOW_SECONDS, Disk


def _mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, number: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 27 0:21 / /proc rw,relatime shared:12 - proc proc rw\n"
        f"27 1 {number} / / rw,relatime shared:1 master:2 - {kind} /dev/vda rw,discard\n"
    )
    monkeypatch.setattr(storage_disk, "MOUNTS", mounts)


def _number_of(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


@pytest.mark.parametrize(
    ("kind", "trusted"),
    [("ext4", True), ("xfs", True), ("fuse.sshfs", False), ("nfs4", False), ("overlay", False)],
)
def test_only_disks_known_to_keep_everything_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, trusted: bool
) -> None:
    _mounted(monkeypatch, tmp_path, kind, _number_of(tmp_path))
    assert (Disk.below(tmp_path) is not None) is trusted


def test_a_device_that_no_mount_names_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subvolumes of btrfs and layers of containers have numbers of their own."""
    _mounted(monkeypatch, tmp_path, "ext4", "4095:1048575")
    assert Disk.below(tmp_path) is None


@pytest.mark.parametrize(
    ("system", "release", "trusted"),
    [
        ("Linux", "5.17.0-63-generic", True),
        ("Linux", "6.1.0-13-amd64", True),
        ("Linux", "5.16.20", False),
        ("Linux", "4.19.0", False),
        ("Linux", "unknown", False),
        ("Darwin", "23.1.0", False),
    ],
)
def test_a_kernel_that_hides_errors_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, release: str, *, trusted: bool
) -> None:
    _mounted(monkeypatch, tmp_path, "ext4", _number_of(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "release", lambda: release)
    assert (Disk.below(tmp_path) is not None) is trusted


def test_the_real_call_is_made_on_the_folder(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.sync()
    assert disk.device == tmp_path.stat().st_dev
    assert storage_disk._syncfs(-1) == -1  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own error, unwrapped
    assert ctypes.get_errno() == errno.EBADF


def test_a_file_system_that_gave_up_says_so_when_its_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """syncfs passes over one that was made read-only by an error, and succeeds."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    disk = Disk(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Read-only"):
        disk.sync()


def test_mounts_that_cannot_be_read_are_no_reason_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_disk, "MOUNTS", tmp_path / "nowhere")
    assert Disk.below(tmp_path) is None
    odd = tmp_path / "mountinfo"
    number = _number_of(tmp_path).encode()
    odd.write_bytes(b"30 1 0:9 / /\xff rw - tmpfs t rw\n27 1 " + number + b" / / rw - xfs d rw\n")
    monkeypatch.setattr(storage_disk, "MOUNTS", odd)
    assert Disk.below(tmp_path) is not None


def test_a_disk_that_could_not_write_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(storage_disk, "_syncfs", refuse)
    with pytest.raises(OSError, match="Input/output error") as raised:
        Disk(tmp_path).sync()
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("fails", [False, True])
def test_while_others_backlog_is_waited_for_it_is_not_the_quicker_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    now = 0.0
    seen: list[bool] = []

    def slowly(_descriptor: int) -> int:
        nonlocal now
        for seconds in (SLOW_SECONDS, 0.1):
            now += seconds
            seen.append(disk.is_quick)
        return -1 if fails else 0

    monkeypatch.setattr(storage_disk, "_syncfs", slowly)
    disk = Disk(tmp_path, clock=lambda: now)
    with contextlib.suppress(OSError):
        disk.sync()
    assert seen == [True, False]
    assert not disk.is_quick


@pytest.mark.parametrize(("took", "rests"), [(SLOW_SECONDS, False), (SLOW_SECONDS + 0.1, True)])
def test_after_others_backlog_was_waited_for_files_are_synced_one_by_one_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, *, rests: bool
) -> None:
    now = 0.0

    def slowly(_descriptor: int) -> int:
        nonlocal now
        now += took
        return 0

    monkeypatch.setattr(storage_disk, "_syncfs", slowly)
    disk = Disk(tmp_path, clock=lambda: now)
    assert disk.is_quick
    disk.sync()
    assert disk.is_quick is not rests
    now += REST_SECONDS
    assert disk.is_quick
