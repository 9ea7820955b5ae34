"""What a folder of this machine needs so that what is in it survives a power cut."""

import os
from pathlib import Path
from typing import Final

KNOWN_MAX: Final = 10_000
"""Folders remembered as durable, some 200 bytes each: those of the sets of some days."""


class DurableFolder:
    """Makes files below a folder of this machine survive a power cut, waiting for the disk as seldom as it can.

    A file survives when its bytes, its folder's list and the lists of all folders above were synced. A folder
    that this process has once made stay need not be made stay again: of a set's photos only the first waits
    for the folders above its own.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # By path: which folder it was, since one that is made again is another.
        self._stay: dict[Path, tuple[int, int]] = {}

    def keep(self, path: Path) -> None:
        """On return the file and its place survive: the row that points at it is durable, too."""
        _sync(path)
        passed: dict[Path, tuple[int, int]] = {}
        for folder in _folders_up_to(self._root, path):
            found = folder.stat()
            passed[folder] = found.st_dev, found.st_ino
            _sync(folder)
            if self._stay.get(folder) == passed[folder]:
                break
        if len(self._stay) >= KNOWN_MAX:
            self._stay.clear()
        # Only now: before the last sync a crash could have taken the first folder with all that is in it.
        self._stay.update(passed)

    def keep_removed(self, path: Path) -> None:
        """On return it survives that the file is gone. Also one that was gone: its remover may have died."""
        for folder in _folders_up_to(self._root, path):
            if folder.exists():
                _sync(folder)


def _sync(target: Path) -> None:
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders_up_to(root: Path, path: Path) -> list[Path]:
    return [folder for folder in path.parents if folder == root or root in folder.parents]
