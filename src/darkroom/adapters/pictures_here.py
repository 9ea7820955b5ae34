"""Pictures opened in this process, in threads that are not missed when a decoder keeps one."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from darkroom.adapters.thumbnails import develop_now
from darkroom.kit.log import get_logger
from darkroom.ports.pictures import DecoderHangsError, Developed

log = get_logger("adapters")

HANGS_AFTER_SECONDS: Final = 60
"""Decoding takes 40 ms, and of 50 megapixels 2 s; forty of those wait for the threads, 14 s with six of them,
and a busy machine takes four times as long."""
THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
"""As many as Python gives to blocking work."""


class DeveloperHere:
    """Opens pictures in threads of its own: names are looked up in others, and files are written in others.

    Args:
        hangs_after_seconds: in which a picture is to be opened, the wait for a thread included; None: for ever.
        work: what is done there with its bytes.
    """

    def __init__(
        self,
        *,
        hangs_after_seconds: float | None = HANGS_AFTER_SECONDS,
        work: Callable[[bytes], Developed] = develop_now,
    ) -> None:
        self._hangs_after_seconds = hangs_after_seconds
        self._work = work
        self._threads = _open()

    async def develop(self, data: bytes) -> Developed:
        """As `thumbnails.develop`.

        Raises:
            BadResultError: as there.
            DecoderHangsError: it did not come to its end. Its thread is lost, until it does; pictures that come
                from now on are opened in others.
        """
        threads = self._threads
        try:
            async with asyncio.timeout(self._hangs_after_seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, self._work, data)
        except TimeoutError as error:
            if self._threads is threads:
                # Those that wait there already are opened by the threads that are left, or come here as well.
                threads.shutdown(wait=False)
                self._threads = _open()
            log.exception(
                "a decoder hangs: its thread is lost, and this process will not end by itself"
            )
            raise DecoderHangsError(f"not opened in {self._hangs_after_seconds} s") from error

    async def close(self) -> None:
        """Let the idle threads go. Waits for nobody."""
        self._threads.shutdown(wait=False)


def _open() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "pictures")
