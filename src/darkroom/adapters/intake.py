"""Customers' files, opened in processes of our own under a limit of memory and of time."""

import asyncio
import io
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from PIL import Image

from darkroom.adapters.processes import (
    OwnProcesses,
    ProcessLostError,
    ProcessSlowError,
    enter_process,
)
from darkroom.adapters.selfie_file import look_at_file, prepare_decoders
from darkroom.kit.log import get_logger
from darkroom.ports.intake import RefusalCode, Selfie

log = get_logger("adapters")

LOOK_SECONDS: Final = 30.0
"""2.5 s for the slowest file that is allowed (50 megapixels of PNG or WebP) and 1.5 s to start a process,
measured on an idle machine; a busy one was seen 8 times slower (local-provider 5)."""
WORKING_BYTES: Final = 1024 * 1024 * 1024
"""50 megapixels of RGBA are 200 MB a copy: WebP's decoder holds three and Pillow one (839 MB measured, the
most of all formats), and the file itself, 30 MB, is there three times: the pipe's, ours, the decoder's."""
FILES_PER_PROCESS: Final = 100
"""A process is replaced after this many files, so that a leak in native code stays small."""


class ProcessIntake:
    """Looks at files one a process at a time. A file that hangs or kills its process loses only itself."""

    def __init__(
        self,
        *,
        processes: int,
        look_seconds: float = LOOK_SECONDS,
        idle: list[ProcessPoolExecutor] | None = None,
    ) -> None:
        self._turns = asyncio.Semaphore(processes)
        self._processes = OwnProcesses(
            "intake.look",
            processes=processes,
            seconds=look_seconds,
            works_per_process=FILES_PER_PROCESS,
            enter=enter_intake,
            idle=idle,
        )

    async def look(self, read: Callable[[], bytes]) -> Selfie | RefusalCode:
        """Read, decode, clean and judge one file.

        Only files whose turn it is are in memory. A file whose process dies is tried once more, since
        the process may have been ended from outside; twice, or too slowly, is the file's own doing.
        """
        async with self._turns:
            data = await asyncio.to_thread(read)
            for _ in range(2):
                try:
                    return await self._processes.run(look_at_file, data)
                except ProcessSlowError:
                    log.warning("a file took too long to open", size_bytes=len(data))
                    break
                except ProcessLostError:
                    log.warning("a file ended its process", size_bytes=len(data))
            return RefusalCode.BOMB

    async def warm(self) -> None:
        """Start one process and load its models, so that the first customer does not wait for them."""
        out = io.BytesIO()
        Image.new("RGB", (320, 320)).save(out, "JPEG")
        await self.look(out.getvalue)

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()


def enter_intake() -> None:
    """Begin a child: load what every look needs, then shut the door to more memory."""
    from darkroom.adapters.generation.studio.models import warm_up  # noqa: PLC0415 - the child's own

    enter_process()
    prepare_decoders()
    warm_up()
    limit_memory(WORKING_BYTES)


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more address space than it has, and nothing beyond."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        # No /proc: macOS, where the limit exists by name and is not kept either.
        return
    limit = pages * resource.getpagesize() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
