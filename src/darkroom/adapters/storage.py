"""Objects by obstore: a local folder by default, S3 or R2 by address."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from darkroom.kit.outside import outside_call
from darkroom.ports.storage import (
    ObjectConflictError,
    ObjectMissingError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore import BytesStream, GetOptions, ListStream, ObjectMeta

CALL_SECONDS: Final = 30
"""50 MB, the largest object, at 2 MB/s."""
PIECE_BYTES: Final = 262_144
"""What a slow reader holds: 64 readers at once are 16 MB; a 2 MB photo is eight pieces."""
LINK_HOURS: Final = 6
"""A provider reads a selfie when a task's turn comes: hours in a full queue (external-apis 1.2)."""


class Storage:
    """Write-once objects in one store."""

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes durably; the same bytes again are success.

        A put whose answer was lost comes back as "already there": the bytes are read back and compared,
        so a retry inside the client can never turn our own success into an error (external-apis 6.2).

        Raises:
            ObjectConflictError: already there with other bytes.
            StorageUnavailableError: no answer; putting again is harmless.
        """
        attributes = None if self._folder is not None else {"Content-Type": content_type}
        try:
            async with outside_call("storage.put", timeout_seconds=CALL_SECONDS):
                await self._store.put_async(key, data, mode="create", attributes=attributes)
        except AlreadyExistsError:
            await self._compare(key, data)
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"put: {type(error).__name__}") from error
        if self._folder is not None:
            await asyncio.to_thread(_sync_to_disk, self._folder, self._folder / key)

    async def _compare(self, key: str, data: bytes) -> None:
        there = await self.get(key)
        if hashlib.sha256(there).digest() != hashlib.sha256(data).digest():
            raise ObjectConflictError(key)

    async def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissingError, StorageUnavailableError."""
        try:
            async with outside_call("storage.get", timeout_seconds=CALL_SECONDS):
                result = await self._store.get_async(key)
                return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise ObjectMissingError(key) from error
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"get: {type(error).__name__}") from error

    async def read(
        self, key: str, *, first: int = 0, beyond: int | None = None
    ) -> AsyncGenerator[bytes]:
        """The object's bytes from `first` up to, not including, `beyond`, piece by piece.

        Raises:
            ObjectMissingError: no such object.
            StorageUnavailableError: no answer; also from the generator, in the middle.
        """
        options: GetOptions = {}
        if beyond is not None:
            options = {"range": (first, beyond)}
        elif first:
            options = {"range": {"offset": first}}
        try:
            async with outside_call("storage.read", timeout_seconds=CALL_SECONDS):
                result = await self._store.get_async(key, options=options)
        except FileNotFoundError as error:
            raise ObjectMissingError(key) from error
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"read: {type(error).__name__}") from error
        return _pieces(result.stream(min_chunk_size=PIECE_BYTES))

    async def delete(self, key: str) -> None:
        """Remove the object if it is there, durably. Raises StorageUnavailableError."""
        try:
            async with outside_call("storage.delete", timeout_seconds=CALL_SECONDS):
                with contextlib.suppress(FileNotFoundError):
                    await self._store.delete_async(key)
                if self._folder is not None:
                    await asyncio.to_thread(_sync_folders, self._folder, self._folder / key)
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"delete: {type(error).__name__}") from error

    async def list_keys(self, folder: str) -> list[str]:
        """The keys of all objects under `folder/`. Raises StorageUnavailableError."""
        try:
            async with outside_call("storage.list", timeout_seconds=CALL_SECONDS):
                listing: ListStream[Sequence[ObjectMeta]] = self._store.list(f"{folder}/")  # pyright: ignore[reportUnknownMemberType] - another overload's
                found = await listing.collect_async()
        except FileNotFoundError:
            return []
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"list: {type(error).__name__}") from error
        return sorted(one["path"] for one in found)

    def readable_link(self, key: str) -> str:
        """An address under which a provider can read one object for LINK_HOURS.

        Raises:
            TypeError: the store is a folder, which cannot give addresses.
        """
        if not isinstance(self._store, AzureStore | GCSStore | S3Store):
            raise TypeError("this store cannot give addresses")
        return obstore.sign(self._store, "GET", key, timedelta(hours=LINK_HOURS))


async def _pieces(stream: "BytesStream") -> AsyncGenerator[bytes]:
    # The reader's own pace is not timed here: each piece is, from when it is asked for.
    while True:
        try:
            async with outside_call("storage.piece", timeout_seconds=CALL_SECONDS):
                piece = await anext(stream, None)
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"piece: {type(error).__name__}") from error
        if piece is None:
            return
        yield bytes(piece)


def _sync_to_disk(root: Path, path: Path) -> None:
    """Make a file and its place survive a power cut: the row that points at it is durable, too."""
    _sync(path)
    _sync_folders(root, path)


def _sync_folders(root: Path, path: Path) -> None:
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


def open_storage(url: str | None, folder: Path) -> Storage:
    """The store at `url`, or a folder of this machine."""
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        return Storage(LocalStore(folder), folder=folder)
    return Storage(from_url(url))
