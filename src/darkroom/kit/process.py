"""How a process of ours runs: on which event loop, and when Python looks for garbage."""

import gc
import os
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import uvloop

T = TypeVar("T")

YOUNG_MAX: Final = 20_000
"""Objects that are made before the collector looks at the young ones: a request of ours makes some thousand,
nearly all of which are gone by themselves. Garbage in circles waits for it: some megabytes at most."""
OLD_AFTER: Final = 20
"""Looks at the young before one at the middle, and of the middle before one at all: each more than the
library's ten: what lives that long mostly stays."""


NAME_THREADS: Final = 32
"""Threads that look names up, half of them at once. By itself it would be two at once, and plain addresses wait
in the same line: two hosts whose names nobody answers for would hold up every other call."""


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on uvloop, which is what `make bench` measures.

    As asyncio.run: Ctrl-C cancels what runs, and what was begun is cleaned up.
    """
    # Read once in a process, when the first of them is needed.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(NAME_THREADS))
    return uvloop.run(main)


def spare_the_collector() -> None:
    """Call it once, when all that lives as long as the process is built. Harmless twice.

    Only where a process begins: what is frozen is never freed, which a process that builds many would notice.

    Python's collector walks through everything that is alive, again and again, and finds nothing: the
    application alone is 140,000 objects, 60 ms or more of standing still. From here on it looks only at what
    was made later, and less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, OLD_AFTER, OLD_AFTER)
