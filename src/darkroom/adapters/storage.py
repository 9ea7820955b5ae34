"""Objects by obstore: a local folder by default, S3 or R2 by address."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from darkroom.adapters.storage_answers import errors_of
from darkroom.adapters.storage_disk import Disk
from darkroom.adapters.storage_folder import (
    DurableFolder,
    is_open_to_others,
    make_private,
)
from darkroom.adapters.storage_line import Line, LineFullError
from darkroom.adapters.storage_pages import described, page_of_bucket, page_of_folder
from darkroom.adapters.storage_proof import prove_with
from darkroom.adapters.storage_s3 import (
    MULTIPART_ABOVE_BYTES,
    PART_BYTES,
    PARTS_AT_ONCE,
    REQUEST_SECONDS,
    STREAM_SECONDS,
    S3Place,
    advice_of,
    open_bucket,
    reason_of,
)
from darkroom.adapters.storage_together import FilesTogether
from darkroom.kit.outside import outside_call
from darkroom.ports.storage import (
    OBJECT_BYTES_MAX,
    NoLinksError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectTooLargeError,
    StorageBrokenError,
    StorageUnavailableError,
    StoredObject,
    StoreDoubt,
)

if TYPE_CHECKING:
    from obstore import Attributes, BytesStream, GetOptions, GetResult

CALL_SECONDS: Final = 30
"""50 MB, the largest object, at 2 MB/s."""
PIECE_BYTES: Final = 262_144
"""What a slow reader holds: 64 readers at once are 16 MB; a 2 MB photo is eight pieces."""
LINK_HOURS: Final = 6
"""A provider reads a selfie when a task's turn comes: hours in a full queue (external-apis 1.2)."""
LINK_SECONDS_MAX: Final = 7 * 86_400
"""S3's own limit, which nothing but S3 checks (external-apis 6.2)."""
PAGE_MAX: Final = 1000
"""What one answer of S3 lists at most."""
WRITERS: Final = 6
"""Files of a folder written at once: they keep a disk busy, and a batch that waits for them has its 30 s."""
PUTS_MAX: Final = 2
"""Of one object in one call: the second when what was in the way is gone."""
PROOFS: Final = "proofs"
"""The folder of what `prove` puts; an object that it could not remove is swept."""


class Storage:
    """Write-once objects in one store.

    Args:
        store: for everything that is over in one request.
        streams: the same place, with time for bodies that are read slowly; None is `store` itself.
        folder: where `store` is a folder of this machine.
        together: of the same folder, where its disk keeps many files at once.
        line: the way to a bucket, where what is put shares it.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        streams: ObjectStore | None = None,
        folder: Path | None = None,
        together: FilesTogether | None = None,
        line: Line | None = None,
    ) -> None:
        self._store = store
        self._streams = streams or store
        self._folder = folder
        self._is_bucket = isinstance(store, S3Store)
        self._durable = None if folder is None else DurableFolder(folder)
        self._together = together
        self._line = line
        # Threads of its own: a disk that hangs must not take those that look names up and decode.
        self._writers = ThreadPoolExecutor(WRITERS, "storage")

    def _errors_of(self, call: str, key: str) -> contextlib.AbstractContextManager[None]:
        return errors_of(call, key, is_bucket=self._is_bucket)

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes durably; the same bytes again are success.

        A put whose answer was lost comes back as "already there", and so does a rival that is still being
        written (409): the bytes are read back and compared, so that a retry inside the client can never turn
        our own success into an error (external-apis 6.2).

        Up to MULTIPART_ABOVE_BYTES the store itself refuses a second write (If-None-Match). Larger objects go
        in parts, where obstore sends no condition: what is there already is compared and left alone, and of
        two who find nothing and write at once, the later one replaces the other's bytes by the same: a key
        carries the hash of its content. Other bytes under such a key in that moment would take two pictures
        with one hash, or a broken key; `darkroom audit --bucket` reads every object against its row.

        In a folder, what is there already may be what a power cut left of it, or bytes that the disk could not
        write and only remembers: they are written anew, to another place of the disk, before they count.

        Raises:
            ObjectConflictError: already there with other bytes.
            StorageUnavailableError: no answer, or no turn on the line; putting again is harmless.
        """
        in_parts = self._folder is None and len(data) > MULTIPART_ABOVE_BYTES
        for _ in range(PUTS_MAX):
            if in_parts and await self._has(key, data):
                break
            if await self._put(key, data, content_type, in_parts=in_parts):
                return
            if await self._has(key, data):
                break
        else:
            raise StorageUnavailableError("put: it is there and is not")
        if self._folder is not None and self._durable is not None:
            await self._put_anew(self._durable, self._folder / key, data)

    async def _put_anew(self, durable: DurableFolder, path: Path, data: bytes) -> None:
        """These bytes in place of the same, or of a part of them; on return they survive a power cut.

        Synced as it is, a file that could not be written once says no, and yes the next time (fsync(2)).
        """
        put = partial(durable.put_anew, path, data)
        try:
            async with outside_call("storage.put", timeout_seconds=CALL_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._writers, put)
        except OSError as error:
            raise StorageUnavailableError(f"put: {reason_of(error)}") from error

    async def _put(self, key: str, data: bytes, content_type: str, *, in_parts: bool) -> bool:
        """Whether it was written, durably; False: something is there."""
        attributes: Attributes = {"Content-Type": content_type}
        mode: Literal["create"] | None = None if in_parts else "create"
        try:
            async with (
                self._room_for(len(data), in_parts=in_parts),
                outside_call("storage.put", timeout_seconds=CALL_SECONDS),
            ):
                if self._together is not None and self._together.is_quick:
                    await self._together.put(key, data)
                    return True
                if self._folder is not None and self._durable is not None:
                    path = self._folder / key
                    put = partial(self._put_file, self._durable, path, key, data)
                    await asyncio.get_running_loop().run_in_executor(self._writers, put)
                    return True
                await self._store.put_async(
                    key,
                    data,
                    mode=mode,
                    attributes=attributes,
                    use_multipart=in_parts,
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
        except AlreadyExistsError:
            return False
        except (BaseError, OSError, TimeoutError, LineFullError) as error:
            raise StorageUnavailableError(f"put: {reason_of(error)}") from error
        return True

    def _room_for(
        self, size_bytes: int, *, in_parts: bool
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """A turn on the line to the bucket, waited for before the call's own time begins."""
        if self._line is None:
            return contextlib.nullcontext()
        if not in_parts:
            return self._line.room(size_bytes, "storage.put")
        rounds = ceil(size_bytes / (PART_BYTES * PARTS_AT_ONCE))
        return self._line.room(PART_BYTES * PARTS_AT_ONCE, "storage.put", rounds=rounds)

    def _put_file(self, durable: DurableFolder, path: Path, key: str, data: bytes) -> None:
        """In one thread: each change of threads costs as much as writing a small file."""
        self._store.put(key, data, mode="create", use_multipart=False)
        durable.keep(path)

    async def _has(self, key: str, data: bytes) -> bool:
        """Whether exactly these bytes are there; False: nothing is. Raises ObjectConflictError.

        In a folder also what a power cut leaves of them: the name stays when the bytes did not all arrive.
        """
        try:
            there = await self.get(key, most_bytes=len(data))
        except ObjectMissingError:
            return False
        except ObjectTooLargeError:
            raise ObjectConflictError(key) from None
        torn = self._folder is not None and data.startswith(there.rstrip(b"\0"))
        if there != data and not torn:
            raise ObjectConflictError(key)
        return True

    async def get(self, key: str, *, most_bytes: int = OBJECT_BYTES_MAX) -> bytes:
        """The whole object, if it is not larger than its reader expects.

        Raises:
            ObjectMissingError: no such object.
            ObjectTooLargeError: larger, and not read.
            StorageUnavailableError: no answer, or not all of it.
        """
        with self._errors_of("get", key):
            async with outside_call("storage.get", timeout_seconds=CALL_SECONDS):
                result = await self._streams.get_async(key)
                size = result.meta["size"]
                if size > most_bytes:
                    raise ObjectTooLargeError(f"{key}: {size} bytes")
                data = bytes(await result.bytes_async())
        if len(data) != size:
            raise StorageUnavailableError("get: not all of it came")
        return data

    async def describe(self, key: str) -> StoredObject:
        """Size and age, by one HEAD. Raises ObjectMissingError, StorageUnavailableError.

        What HEAD does not find is asked for with a body: only that says who answered.
        """
        with self._errors_of("describe", key):
            async with outside_call("storage.describe", timeout_seconds=CALL_SECONDS):
                try:
                    return described(await self._store.head_async(key))
                except FileNotFoundError:
                    if not self._is_bucket:
                        raise
                one_byte: GetOptions = {"range": (0, 1)}
                return described((await self._store.get_async(key, options=one_byte)).meta)

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
        with self._errors_of("read", key):
            async with outside_call("storage.read", timeout_seconds=CALL_SECONDS):
                result: GetResult = await self._streams.get_async(key, options=options)
        return _pieces(result.stream(min_chunk_size=PIECE_BYTES))

    async def delete(self, key: str) -> None:
        """Remove the object if it is there, durably. Raises StorageUnavailableError.

        S3 answers 204 also for what is not there: a 404 that names no key is somebody else's.
        """
        with contextlib.suppress(ObjectMissingError), self._errors_of("delete", key):
            async with outside_call("storage.delete", timeout_seconds=CALL_SECONDS):
                await self._delete(key)

    async def _delete(self, key: str) -> None:
        if self._folder is None or self._durable is None:
            await self._store.delete_async(key)
            return
        with contextlib.suppress(FileNotFoundError):
            await self._store.delete_async(key)
        await asyncio.to_thread(self._durable.keep_removed, self._folder / key)

    async def list_keys(self, folder: str) -> list[str]:
        """The keys of all objects under `folder/`. Raises StorageUnavailableError."""
        found: list[str] = []
        while page := await self.list_page(
            folder, after=found[-1] if found else "", limit=PAGE_MAX
        ):
            found += [one.key for one in page]
        return found

    async def list_page(self, folder: str, *, after: str = "", limit: int) -> list[StoredObject]:
        """The next `limit` objects under `folder/`, by key; what is held is that much, never the bucket.

        To obstore a page of HTML is a list of nothing. So nothing is believed only of a store that says of a
        key which nobody ever used that it is not there, and says it as S3 does.

        Raises StorageUnavailableError, also when a store lists in another order: a walk would skip objects.
        """
        if not 1 <= limit <= PAGE_MAX:
            raise ValueError(f"a page has 1 to {PAGE_MAX} objects")
        with contextlib.suppress(ObjectMissingError), self._errors_of("list_page", folder):
            async with outside_call("storage.list_page", timeout_seconds=CALL_SECONDS):
                if self._folder is not None:
                    read = partial(page_of_folder, self._folder, folder, after=after, limit=limit)
                    return await asyncio.get_running_loop().run_in_executor(self._writers, read)
                page = await page_of_bucket(self._store, folder, after=after, limit=limit)
                if page or not self._is_bucket:
                    return page
                await self._store.get_async(f"{PROOFS}/{uuid4().hex}")
                raise StorageUnavailableError("list_page: this is no object store's answer")
        return []

    async def remove_unfinished(self, folder: str, *, old_seconds: float, limit: int) -> int:
        """Of a folder. A bucket shows whole objects; parts that were given up are for its lifecycle rule.

        Raises StorageUnavailableError.
        """
        if self._folder is None or self._durable is None:
            return 0
        remove = partial(
            self._durable.remove_unfinished, folder, old_seconds=old_seconds, limit=limit
        )
        with self._errors_of("remove_unfinished", folder):
            async with outside_call("storage.remove_unfinished", timeout_seconds=CALL_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._writers, remove)

    def readable_link(self, key: str) -> str:
        """An address under which a provider can read one object for LINK_HOURS.

        Raises:
            NoLinksError: the store is a folder, which cannot give addresses.
        """
        return self._link("GET", key, timedelta(hours=LINK_HOURS))

    def writable_link(self, key: str, *, seconds: int) -> str:
        """An address to which one object can be PUT; it binds neither size nor type (external-apis 6.1).

        Raises:
            NoLinksError: the store is a folder, which cannot give addresses.
            ValueError: `seconds` outside 1 to a week.
        """
        if not 1 <= seconds <= LINK_SECONDS_MAX:
            raise ValueError("a link is good for 1 second to 7 days")
        return self._link("PUT", key, timedelta(seconds=seconds))

    def _link(self, method: Literal["GET", "PUT"], key: str, time: timedelta) -> str:
        if not isinstance(self._store, S3Store):
            raise NoLinksError(
                "this store cannot give addresses: set DARKROOM_STORAGE_URL to s3://…"
            )
        return obstore.sign(self._store, method, key, time)

    async def prove(self) -> frozenset[StoreDoubt]:
        """Put twice, be refused, read back, find, delete: on one object that is removed in any case.

        A bucket that keeps versions is known by reading one of an object that was deleted: R2 gives each
        object a version, too, and keeps none.

        Raises:
            StorageBrokenError: one line that says what is wrong.
        """
        key = f"{PROOFS}/{uuid4().hex}"
        try:
            version = await prove_with(self, key, put=self._put, version_of=self._version_of)
            return await self._doubts(key, version)
        except StorageUnavailableError as error:
            raise StorageBrokenError(advice_of(error.__cause__ or error)) from error
        finally:
            with contextlib.suppress(StorageUnavailableError):
                await self.delete(key)

    async def _doubts(self, key: str, version: str | None) -> frozenset[StoreDoubt]:
        doubts: set[StoreDoubt] = set()
        if version is not None and await self._has_version(key, version):
            doubts.add(StoreDoubt.KEEPS_VERSIONS)
        if self._folder is not None and await asyncio.to_thread(is_open_to_others, self._folder):
            doubts.add(StoreDoubt.OPEN_TO_OTHERS)
        return frozenset(doubts)

    async def _version_of(self, key: str) -> str | None:
        with self._errors_of("describe", key):
            async with outside_call("storage.describe", timeout_seconds=CALL_SECONDS):
                return (await self._store.head_async(key)).get("version")

    async def _has_version(self, key: str, version: str) -> bool:
        """Whether one that was deleted can still be read. Whatever does not give it is a no."""
        with contextlib.suppress(ObjectMissingError, StorageUnavailableError):
            with self._errors_of("get", key):
                async with outside_call("storage.get", timeout_seconds=CALL_SECONDS):
                    await self._store.get_async(key, options={"version": version})
            return True
        return False


async def _pieces(stream: "BytesStream") -> AsyncGenerator[bytes]:
    # The reader's own pace is not timed here: each piece is, from when it is asked for.
    while True:
        try:
            async with outside_call("storage.piece", timeout_seconds=CALL_SECONDS):
                piece = await anext(stream, None)
        except (BaseError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(f"piece: {reason_of(error)}") from error
        if piece is None:
            return
        yield bytes(piece)


def open_s3(place: S3Place, *, request_seconds: float = REQUEST_SECONDS) -> Storage:
    """A bucket of S3 or R2. Nothing is asked yet."""
    return Storage(
        open_bucket(place, request_seconds=request_seconds),
        streams=open_bucket(place, request_seconds=STREAM_SECONDS),
        line=Line(request_seconds=request_seconds),
    )


def open_storage(place: S3Place | None, folder: Path) -> Storage:
    """The bucket at `place`, or a folder of this machine."""
    if place is not None:
        return open_s3(place)
    make_private(folder)
    store, disk = LocalStore(folder), Disk.below(folder)
    if disk is None:
        return Storage(store, folder=folder)
    together = FilesTogether(store, folder, disk, DurableFolder(folder))
    return Storage(store, folder=folder, together=together)


def open_memory() -> Storage:
    """Objects of this process alone: for simulations of many orders."""
    return Storage(MemoryStore())
