"""What a folder of this machine needs so that what is in it survives a power cut."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

KNOWN_MAX: Final = 10_000
"""Folders remembered as durable, some 200 bytes each: those of the sets of some days."""

STAGED_MAX: Final = 10**9
"""Two who put the same file anew at once take one name once in so many times; the second tries again then."""


class DurableFolder:
    """Makes files below a folder of this machine survive a power cut, waiting for the disk as seldom as it can.

    A file survives when its bytes, its folder's list and the lists of all folders above were synced. A folder
    that this process has once made stay need not be made stay again: of a set's photos only the first waits
    for the folders above its own.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root.absolute())
        # By path: which folder it was, since one that is made again is another.
        self._stay: dict[str, tuple[int, int]] = {}

    def keep(self, path: Path) -> None:
        """On return the file and its place survive: the row that points at it is durable, too."""
        name = str(path.absolute())
        _sync(name)
        passed: dict[str, tuple[int, int]] = {}
        for folder in _folders_up_to(self._root, name):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                found = os.fstat(descriptor)
                passed[folder] = found.st_dev, found.st_ino
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if self._stay.get(folder) == passed[folder]:
                break
        if len(self._stay) >= KNOWN_MAX:
            self._stay.clear()
        # Only now: before the last sync a crash could have taken the first folder with all that is in it.
        self._stay.update(passed)

    def put_anew(self, path: Path, data: bytes) -> None:
        """On return these bytes stand where a file of this name was, and survive; until then what was there.

        Whatever crashes: a row may point at it already, so the new bytes are on the disk before they get the
        name. The file stays as old as it was: whoever sweeps asks since when it was there.
        """
        was = path.stat()
        # obstore leaves names that end like this out of its lists: they are its own, too.
        staged = path.with_name(f"{path.name}#{secrets.randbelow(STAGED_MAX)}")
        # Before the cleaning up begins: a name that is taken is somebody else's file.
        file = staged.open("xb")
        try:
            with file:
                file.write(data)
                file.flush()
                os.utime(file.fileno(), ns=(was.st_atime_ns, was.st_mtime_ns))
                os.fsync(file.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        self.keep(path)

    def keep_removed(self, path: Path) -> None:
        """On return it survives that the file is gone. Also one that was gone: its remover may have died."""
        for folder in _folders_up_to(self._root, str(path.absolute())):
            if Path(folder).exists():
                _sync(folder)


def _sync(target: str) -> None:
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders_up_to(root: str, path: str) -> Iterator[str]:
    """From the file's own up to the root. As text: a Path of each takes longer than the disk does."""
    if not path.startswith(root.rstrip(os.sep) + os.sep):
        return
    while path != root:
        path = path.rpartition(os.sep)[0] or os.sep
        yield path
