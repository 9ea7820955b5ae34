"""Work in processes of our own: one at a time in each, killed when it takes too long, gone with us."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from typing import TypeVar, TypeVarTuple

from darkroom.kit.outside import outside_call

T = TypeVar("T")
Given = TypeVarTuple("Given")


class ProcessLostError(Exception):
    """The process died at this work, or was ended because it took too long."""


class ProcessSlowError(ProcessLostError):
    """It took too long."""


class OwnProcesses:
    """A few processes, each with an executor of its own.

    A work that hangs or kills its process takes nobody else's with it, and its caller knows whose
    fault it was. Nothing is started before the first work.
    """

    def __init__(
        self,
        call: str,
        *,
        processes: int,
        seconds: float,
        works_per_process: int,
        enter: Callable[[], None],
        idle: list[ProcessPoolExecutor] | None = None,
    ) -> None:
        """Prepare; `idle` are executors that run already (tests keep theirs warm between loops)."""
        self._call = call
        self._seconds = seconds
        self._works_per_process = works_per_process
        self._enter = enter
        self._turns = asyncio.Semaphore(processes)
        self._idle = [] if idle is None else idle

    async def run(self, work: Callable[[*Given], T], *arguments: *Given) -> T:
        """Do the work in a process, as soon as one is free.

        Raises:
            ProcessSlowError: it took longer than `seconds`, starting a process included.
            ProcessLostError: its process died.
            Exception: whatever the work raised.
        """
        async with self._turns:
            executor = self._idle.pop() if self._idle else self._open()
            lost = True
            try:
                async with outside_call(self._call, timeout_seconds=self._seconds):
                    loop = asyncio.get_running_loop()
                    result = await loop.run_in_executor(executor, work, *arguments)
                lost = False
            except TimeoutError as error:
                raise ProcessSlowError(f"{self._call} took over {self._seconds} s") from error
            except BrokenProcessPool as error:
                raise ProcessLostError(f"the process of {self._call} died") from error
            except Exception:
                lost = False
                raise
            finally:
                # Cancelled, too: nobody waits for this work any more, and the next one must not.
                if lost:
                    _kill(executor)
                else:
                    self._idle.append(executor)
        return result

    async def close(self) -> None:
        """End the idle processes; those at work end with their callers."""
        while self._idle:
            executor = self._idle.pop()
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    def _open(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=self._enter,
            max_tasks_per_child=self._works_per_process,
        )


def _kill(executor: ProcessPoolExecutor) -> None:
    # The executor has no public way to end a process that never answers (before Python 3.14).
    processes: dict[int, multiprocessing.Process] = getattr(executor, "_processes", None) or {}
    for process in list(processes.values()):
        process.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def enter_process() -> None:
    """Begin a child: leave Ctrl-C to the parent, use one core, and never outlive the parent."""
    import cv2  # noqa: PLC0415 - only the child needs it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    # A killed owner closes no pipes: without this its children would wait for work for ever.
    wait_for_any([sentinel])
    os._exit(1)
