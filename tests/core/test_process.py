"""What a process of ours runs on. In processes of their own: the collector is one for a whole process."""

import asyncio
import os
import subprocess
import sys

from darkroom.edges.terminal import run


def _printed(program: str) -> str:
    # What a test before this one has set must not do the program's work.
    fresh = {name: value for name, value in os.environ.items() if name != "UV_THREADPOOL_SIZE"}
    done = subprocess.run(  # noqa: S603 - this Python, a text of ours
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=True, env=fresh,
    )  # fmt: skip
    return done.stdout.strip()


def test_commands_run_on_uvloop() -> None:
    """`make bench` measured it and `darkroom run` did not have it."""

    async def loop_room() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(loop_room()) == "uvloop"


async def test_so_do_the_tests() -> None:
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"


def test_two_names_that_nobody_answers_for_hold_up_no_address() -> None:
    """uvloop looks addresses up, too, two at once: a worker stood still behind two dead hosts."""
    found = _printed(
        "import asyncio\n"
        "from pathlib import Path\n"
        "from darkroom.kit.process import NAME_THREADS, run_loop\n"
        "async def main():\n"
        "    await asyncio.get_running_loop().getaddrinfo('localhost', 80, proto=6)\n"
        "    names = [one.read_text() for one in Path('/proc/self/task').glob('*/comm')]\n"
        "    print(names.count('libuv-worker\\n') == NAME_THREADS)\n"
        "run_loop(main())\n"
    )
    assert found == "True"


def test_the_collector_leaves_alone_what_was_there_and_still_frees_circles() -> None:
    found = _printed(
        "import gc, weakref\n"
        "from darkroom.kit.process import YOUNG_MAX, spare_the_collector\n"
        "class Ring: pass\n"
        "old = [Ring() for _ in range(1000)]\n"
        "spare_the_collector()\n"
        "seen = {id(one) for one in gc.get_objects()}\n"
        "print(sum(id(one) in seen for one in old))\n"
        "ring = Ring(); ring.itself = ring; gone = weakref.ref(ring); del ring\n"
        "kept = [[] for _ in range(YOUNG_MAX + 1)]\n"
        "print(gone() is None)\n"
    )
    assert found.split() == ["0", "True"]
