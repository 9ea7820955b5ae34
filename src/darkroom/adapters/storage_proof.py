"""One object, put, put again, read, found and deleted: all that Darkroom rests on, tried once on a store."""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from darkroom.ports.storage import (
    ObjectMissingError,
    ObjectStore,
    ObjectTooLargeError,
    StorageBrokenError,
)

SKEW_SECONDS_MAX: Final = 300
"""A third of what S3 still takes for a signature, so that it is told before all calls fail."""


class Put(Protocol):
    """Write one object; False: something is there."""

    async def __call__(self, key: str, data: bytes, content_type: str, *, in_parts: bool) -> bool:
        """Once."""
        ...


async def prove_with(
    store: ObjectStore,
    key: str,
    *,
    put: Put,
    version_of: Callable[[str], Awaitable[str | None]],
) -> str | None:
    """Try all of it on `key`, which nobody ever used. It may be left behind: whoever calls removes it.

    Returns the version that the object had, if the store gives its objects versions.

    Raises:
        StorageBrokenError: one line that says what is wrong.
        StorageUnavailableError: no answer.
    """
    first, second = b"first", b"other"
    if not await put(key, first, "text/plain", in_parts=False):
        raise StorageBrokenError("the store says that a key is taken which nobody ever used")
    if await put(key, second, "text/plain", in_parts=False):
        raise StorageBrokenError("the store ignores If-None-Match: a second write won")
    try:
        if await store.get(key, most_bytes=len(first)) != first:
            raise StorageBrokenError("the store gives back other bytes than were put")
        seen = await store.describe(key)
        version = await version_of(key)
    except (ObjectMissingError, ObjectTooLargeError) as error:
        raise StorageBrokenError("what was put is not there when it is read back") from error
    skew = abs((datetime.now(UTC) - seen.modified_at).total_seconds())
    if skew > SKEW_SECONDS_MAX:
        raise StorageBrokenError(f"the store's clock and ours differ by {skew:.0f} s")
    folder = key.rpartition("/")[0]
    listed = await store.list_page(folder, after=key[:-1], limit=10)
    if key not in [one.key for one in listed]:
        raise StorageBrokenError("what was put is not listed")
    await store.delete(key)
    with contextlib.suppress(ObjectMissingError):
        await store.get(key)
        raise StorageBrokenError("what was deleted is still there")
    return version
