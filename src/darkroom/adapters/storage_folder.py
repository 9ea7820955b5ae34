"""What a folder of this machine needs so that what is in it survives a power cut."""

import os
from pathlib import Path


def sync_to_disk(root: Path, path: Path) -> None:
    """Make a file and its place survive a power cut: the row that points at it is durable, too."""
    _sync(path)
    sync_folders(root, path)


def sync_folders(root: Path, path: Path) -> None:
    """Make what a folder holds, or holds no longer, survive a power cut."""
    for folder in _folders_up_to(root, path):
        if folder.exists():
            _sync(folder)


def _sync(*targets: Path) -> None:
    for target in targets:
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _folders_up_to(root: Path, path: Path) -> list[Path]:
    return [folder for folder in path.parents if folder == root or root in folder.parents]
