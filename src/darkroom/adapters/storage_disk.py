"""The disk below a folder, told once to keep everything: one wait for many files, instead of four for each."""

import ctypes
import os
import platform
import re
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

KEPT_ON: Final = frozenset({"ext4", "xfs"})
"""File systems of one machine's disk whose syncfs writes data, folders and its own journal, and waits for the
disk's cache. Not what lies in between: FUSE passes no syncfs on, a network's is somebody else's disk."""
LINUX: Final = (5, 17)
"""syncfs tells of pages that could not be written since 5.8 (syncfs(2)), and of a journal since 5.17."""
SLOW_SECONDS: Final = 1.0
"""Longer, and somebody else's backlog on the same disk is waited for: what is ours are some megabytes."""
MOUNTS: Final = Path("/proc/self/mountinfo")
REST_SECONDS: Final = 60
"""Files are synced one by one for so long then: a backup beside us holds up one group a minute, not each."""


class Disk:
    """One folder's disk.

    Attributes:
        device: its number; what lies on another is not kept by `sync`.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Hold the folder open: an error of the disk is told to whoever had it open when it happened.

        Args:
            folder: any that exists; `below` asks whether its disk is one to rely on.
            clock: seconds from anywhere.
        """
        self._clock = clock
        self._descriptor = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.device = os.fstat(self._descriptor).st_dev
        self._rests_until = 0.0
        self._began: float | None = None

    @classmethod
    def below(cls, folder: Path) -> Self | None:
        """The disk below an existing folder; None: files there are to be synced one by one."""
        if not _tells_of_errors():
            return None
        found = cls(folder)
        return found if _file_system_of(found.device) in KEPT_ON else None

    @property
    def is_quick(self) -> bool:
        """Whether `sync` waits for little but what is ours, as far as was seen, also of one under way."""
        now, began = self._clock(), self._began
        return now >= self._rests_until and (began is None or now - began <= SLOW_SECONDS)

    def sync(self) -> None:
        """On return whatever was written to this disk before survives a power cut, names and folders included.

        Raises:
            OSError: something on this disk could not be written, ours or not; nothing is known then.
        """
        began = self._began = self._clock()
        try:
            if _syncfs(self._descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            # syncfs passes over a file system that has given up and only reads by now, and says that all is
            # well; fsync says what it is (ext4 until 6.13).
            os.fsync(self._descriptor)
        finally:
            ended, self._began = self._clock(), None
            if ended - began > SLOW_SECONDS:
                self._rests_until = ended + REST_SECONDS


_C_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)


def _syncfs(descriptor: int) -> int:
    return int(_C_LIBRARY.syncfs(descriptor))


def _tells_of_errors() -> bool:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (
        platform.system() == "Linux"
        and found is not None
        and (int(found[1]), int(found[2])) >= LINUX
        and hasattr(_C_LIBRARY, "syncfs")
    )


def _file_system_of(device: int) -> str | None:
    """By the device's number, as proc_pid_mountinfo(5) has it; None: no mount has exactly this one."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        if place.split()[2] == number:
            return kind.split()[0]
    return None
