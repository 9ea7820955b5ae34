"""Files of a folder that come at once are written one after the other, and made durable together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from obstore.store import LocalStore

from darkroom.adapters.storage_disk import Disk
from darkroom.adapters.storage_folder import DurableFolder

FILES_MAX: Final = 80
"""In one group: two rounds of twenty photos, each with its thumbnail; more wait for the next."""
BYTES_MAX: Final = 16_000_000
"""Of one group, or a single file: a quarter of a second of a slow disk, well below what counts as slow."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to be written, and who waits for it."""

    key: str
    data: bytes
    waiter: asyncio.Future[None]


class FilesTogether:
    """Write-once files. The first is written at once; what comes meanwhile goes together with the next sync.

    Args:
        store: of `folder`; refuses a second file of the same name.
        folder: where the files lie.
        disk: below the folder.
        durable: for a file that lies on another disk, below a mount inside the folder.
    """

    def __init__(self, store: LocalStore, folder: Path, disk: Disk, durable: DurableFolder) -> None:
        self._store = store
        self._folder = folder
        self._disk = disk
        self._durable = durable
        # A disk that hangs holds this thread, and nobody else's.
        self._thread = ThreadPoolExecutor(1, "storage-together")
        self._waiting: list[NewFile] = []
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_quick(self) -> bool:
        """Whether this is the quicker way now: not while others keep the disk busy."""
        return self._disk.is_quick

    def close(self) -> None:
        """Wait for what the disk is doing."""
        self._thread.shutdown()

    async def put(self, key: str, data: bytes) -> None:
        """On return the file and its place survive a power cut. Cancelled, it may be written all the same.

        Raises:
            AlreadyExistsError: of obstore; a file has this name, and it may not be durable.
            BaseError, OSError: nothing is known of the file.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(NewFile(key, data, waiter))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="storage-together")
        try:
            await waiter
        finally:
            # A disk that hangs must not keep the bytes of all who gave up.
            self._waiting = [one for one in self._waiting if one.waiter is not waiter]

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while group := self._next_group():
            outcomes: Sequence[Exception | None]
            try:
                files = [(one.key, one.data) for one in group]
                outcomes = await loop.run_in_executor(self._thread, self.write, files)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                outcomes = [error] * len(group)
            except BaseException:
                # Nobody comes after this: whoever still waits would wait for ever.
                for one in (*group, *self._waiting):
                    one.waiter.cancel()
                self._waiting = []
                raise
            for one, error in zip(group, outcomes, strict=True):
                if one.waiter.done():
                    continue
                if error is None:
                    one.waiter.set_result(None)
                else:
                    one.waiter.set_exception(error)

    def _next_group(self) -> list[NewFile]:
        """The oldest that somebody still waits for, within the bounds, at least one."""
        waiting = [one for one in self._waiting if not one.waiter.done()]
        group: list[NewFile] = []
        size = 0
        for one in waiting[:FILES_MAX]:
            size += len(one.data)
            if group and size > BYTES_MAX:
                break
            group.append(one)
        self._waiting = waiting[len(group) :]
        return group

    def write(self, files: Sequence[tuple[str, bytes]]) -> Sequence[Exception | None]:
        """In one thread: what became of each, in order; None: it is durable. Raises nothing of the disk."""
        outcomes = [self._write_one(key, data) for key, data in files]
        if None in outcomes:
            try:
                self._disk.sync()
            except OSError as error:
                return [error if outcome is None else outcome for outcome in outcomes]
        return outcomes

    def _write_one(self, key: str, data: bytes) -> Exception | None:
        path = self._folder / key
        try:
            self._store.put(key, data, mode="create", use_multipart=False)
            if path.stat().st_dev != self._disk.device:
                self._durable.keep(path)
        except Exception as error:  # noqa: BLE001 - of this file alone, whatever it is
            return error
        return None
