"""Named places between two steps, where a test may stop the world.

In production a checkpoint does nothing. A test installs a handler that waits, raises, or kills the
process; the crash suite lists the names from the code and visits each.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

Handler = Callable[[str], Awaitable[None]]


class _Installed:
    handler: Handler | None = None


async def checkpoint(name: str) -> None:
    """Pass the place called `name` (lower case, dotted: `submit.before_call`)."""
    if _Installed.handler is not None:
        await _Installed.handler(name)


@contextmanager
def checkpoints_handled_by(handler: Handler) -> Generator[None]:
    """Call `handler` at every checkpoint of this process until the block ends."""
    before = _Installed.handler
    _Installed.handler = handler
    try:
        yield
    finally:
        _Installed.handler = before
