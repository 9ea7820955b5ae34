"""What runs in the children of the intake's tests: apart, so that a child imports no test."""

import os
import threading
from pathlib import Path

from darkroom.adapters.intake import limit_memory
from darkroom.ports.intake import RefusalCode


def enter_poor() -> None:
    """Begin with very little memory."""
    limit_memory(64 * 1024 * 1024)


def enter_plain() -> None:
    """Nothing to prepare."""


def take(megabytes: int) -> int:
    """Ask for memory."""
    return len(bytearray(megabytes * 1024 * 1024))


def hang() -> None:
    """Never answer."""
    threading.Event().wait()


def die_once(mark: str, data: bytes) -> RefusalCode:
    """Die at the first call, and only then."""
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(9)
    return RefusalCode.NOT_AN_IMAGE if data else RefusalCode.EMPTY


def die(_data: bytes) -> None:
    """Die."""
    os._exit(9)
