"""What a folder of this machine needs so that what is in it survives a power cut."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from darkroom.kit.log import get_logger

log = get_logger("adapters")

KNOWN_MAX: Final = 10_000
"""Folders remembered as durable, some 200 bytes each: those of the sets of some days."""

PRIVATE: Final = 0o700
OTHERS: Final = 0o077

STAGED_MAX: Final = 10**9
"""Two who put the same file anew at once take one name once in so many times; the second tries again then."""
_STAGED: Final = re.compile(r".+#[0-9]+")
"""What is written before it gets its name, by obstore and by us. No key of ours looks like it."""


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

    def remove_unfinished(self, folder: str, *, old_seconds: float, limit: int) -> int:
        """Remove what puts below `folder` left whose process died in the middle; how many, at most `limit`.

        They are in no list, and may hold a whole selfie: also one whose own file is gone, where the process
        died between giving it its name and taking the first one away. Their age is told by when their entry
        last changed, which a writer cannot set. Whoever still writes after so long fails, and puts again.
        """
        removed = 0
        for path in _staged_below(f"{self._root}{os.sep}{folder}"):
            if removed >= limit:
                break
            try:
                if time.time() - path.lstat().st_ctime < old_seconds:
                    continue
                path.unlink()
                self.keep_removed(path)
            except FileNotFoundError:
                continue  # its writer, or somebody who sweeps, came first
            except OSError as error:
                # One that may not be removed must not keep those behind it.
                log.warning(
                    "unfinished file not removed", name=path.name, error=type(error).__name__
                )
                continue
            removed += 1
        return removed

    def keep_removed(self, path: Path) -> None:
        """On return it survives that the file is gone. Also one that was gone: its remover may have died."""
        for folder in _folders_up_to(self._root, str(path.absolute())):
            if Path(folder).exists():
                _sync(folder)


def make_private(folder: Path) -> None:
    """Make the folder, which nobody but the program's user can look into; also one that was there.

    What is below needs no more then: selfies and photos were anybody's on the machine, by the usual umask. One
    that is somebody else's, or on a disk that cannot be written, stays as it is; the doctor says so.
    """
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if is_open_to_others(folder):
        try:
            folder.chmod(PRIVATE)
        except OSError as error:
            log.warning("photos can be read by others", error=type(error).__name__)


def is_open_to_others(folder: Path) -> bool:
    """Whether somebody but its owner may look into the folder, by its mode."""
    return bool(folder.stat().st_mode & OTHERS)


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is one that is being written, or was when its writer died."""
    return _STAGED.fullmatch(name) is not None


def _staged_below(folder: str) -> Iterator[Path]:
    """Raises OSError: a folder could not be read. Not one that goes meanwhile."""

    def raise_it(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, _, names in os.walk(folder, onerror=raise_it):
        yield from (Path(place, name) for name in names if is_unfinished(name))


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
