"""The objects of a store in the order of their keys, page by page: of a bucket, and of a folder."""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore.store import ObjectStore

from darkroom.adapters.storage_folder import is_unfinished
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError, StoredObject

if TYPE_CHECKING:
    from obstore import ListStream, ObjectMeta

log = get_logger("adapters")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_KEY: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""In no key that obstore takes. A file's name that is not UTF-8 has surrogates here."""


def described(meta: "ObjectMeta") -> StoredObject:
    """What obstore says of an object."""
    return StoredObject(meta["path"], meta["size"], meta["last_modified"])


async def page_of_bucket(
    store: ObjectStore, folder: str, *, after: str, limit: int
) -> list[StoredObject]:
    """The first `limit` objects below `folder/` after `after`, as S3 lists them: in the order of keys.

    "Folders" made at a console are objects whose names end with a slash. obstore leaves the slash out, so they
    seem to stand in the wrong place; those that do are passed over, and so is the one of `folder` itself. They
    hold nothing, and nothing of ours has such a name.

    Raises:
        StorageUnavailableError: the store lists in another order: a walk would skip objects.
    """
    stream: ListStream[Sequence[ObjectMeta]] = store.list(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - another overload's
        f"{folder}/", offset=after or None, chunk_size=limit
    )
    found: list[StoredObject] = []
    last = after
    async for chunk in stream:
        for one in chunk:
            key = one["path"]
            if key > last and key != folder:
                found.append(described(one))
                last = key
            elif f"{key}/" > last or key == folder:
                log.info("folder marker passed over", key=ascii(f"{key}/"))
                last = max(last, f"{key}/")
            else:
                raise StorageUnavailableError(
                    "list_page: the store does not list in the keys' order"
                )
        if len(found) >= limit:
            break
    return found[:limit]


def page_of_folder(root: Path, folder: str, *, after: str, limit: int) -> list[StoredObject]:
    """The first `limit` files below `folder/` after `after`, in the order of their keys.

    Read folder by folder, and only those that the page is in: what lies before `after` is not looked into.
    Files that are being written are in no list; those whose names are no keys are passed over. Raises OSError.
    """
    return list(islice(_files_after(str(root), f"{folder}/", after), limit))


def _files_after(root: str, prefix: str, after: str) -> Iterator[StoredObject]:
    for name, entry in _entries(f"{root}{os.sep}{prefix}"):
        key = f"{prefix}{name}"
        if name.endswith("/"):
            # All keys below begin with this one: they come before `after` together, unless it is one of them.
            if key > after or after.startswith(key):
                yield from _files_after(root, key, after)
        elif key > after and not is_unfinished(name):
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue  # it went meanwhile
            changed = _EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000)
            yield StoredObject(key, found.st_size, changed)


def _entries(place: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What lies in one folder, folders with a slash behind their names: the order of the keys below them."""
    try:
        with os.scandir(place) as entries:
            named = [(f"{one.name}/" if one.is_dir() else one.name, one) for one in entries]
    except FileNotFoundError:
        return []
    odd = [name for name, _ in named if not _is_part_of_a_key(name)]
    if odd:
        log.warning("files with odd names passed over", names=[ascii(one) for one in odd[:3]])
        named = [one for one in named if one[0] not in odd]
    return sorted(named, key=lambda one: one[0])


def _is_part_of_a_key(name: str) -> bool:
    """Whether obstore can name it: text without control characters."""
    return _NO_KEY.search(name) is None
