"""What we ask of an object store. Putting is harmless twice: the key carries the content's hash."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Protocol

OBJECT_BYTES_MAX: Final = 50_000_000
"""The largest object of ours: the downloader refuses a larger result, and a selfie becomes far less."""


class ObjectMissingError(Exception):
    """No object has this key."""


class ObjectConflictError(Exception):
    """An object with this key and other bytes exists: a broken store or a broken key."""


class StorageUnavailableError(Exception):
    """The store did not answer, or refused us. A put may have happened; doing it again is harmless."""


class ObjectTooLargeError(StorageUnavailableError):
    """The object is larger than the caller is willing to hold. None of its bytes were read.

    Whoever set no limit of their own meets it as bytes that cannot be had now: an operator's case, no crash.
    """


class StorageBrokenError(Exception):
    """The store does not keep what Darkroom rests on. The text is one line for the operator."""


class StoreDoubt(Enum):
    """What a store does beside what Darkroom rests on, and what an operator should know of."""

    KEEPS_VERSIONS = "keeps_versions"
    """What was deleted can still be read: erased selfies are kept."""
    OPEN_TO_OTHERS = "open_to_others"
    """Other users of this machine can read what is in the folder."""


class NoLinksError(Exception):
    """This store cannot give addresses: a folder is nowhere on the net."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says about an object without giving its bytes.

    Attributes:
        modified_at: by the store's own clock, with a time zone.
    """

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """Write-once objects by key."""

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes; when it returns they survive a crash of this machine's processes and power.

        "Already there" with the same bytes is success, and leaves the object as old as it was.

        Raises:
            ObjectConflictError: already there with other bytes.
            StorageUnavailableError: no answer.
        """
        ...

    async def get(self, key: str, *, most_bytes: int = OBJECT_BYTES_MAX) -> bytes:
        """The whole object. What somebody else may have put is read with a limit of its own.

        Raises:
            ObjectMissingError: no such object.
            ObjectTooLargeError: it has more than `most_bytes`.
            StorageUnavailableError: no answer.
        """
        ...

    async def describe(self, key: str) -> StoredObject:
        """Size and age, without the bytes. Raises ObjectMissingError, StorageUnavailableError."""
        ...

    async def read(
        self, key: str, *, first: int = 0, beyond: int | None = None
    ) -> AsyncGenerator[bytes]:
        """The object's bytes from `first` up to, not including, `beyond`, piece by piece.

        The store has answered when this returns: what is missing is known before anybody was promised
        anything. Each piece is fetched when it is asked for, so that a slow reader holds one piece.
        Close the generator when it is left early.

        Raises:
            ObjectMissingError: no such object.
            StorageUnavailableError: no answer; also from the generator, in the middle.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the object if it is there. When it returns, no crash brings it back.

        Raises StorageUnavailableError: it may be gone; deleting again is harmless.
        """
        ...

    async def list_keys(self, folder: str) -> list[str]:
        """The keys of all objects under `folder/`. Raises StorageUnavailableError.

        For a folder of one avatar: all of them are held. A whole bucket is walked by `list_page`.
        """
        ...

    async def list_page(self, folder: str, *, after: str = "", limit: int) -> list[StoredObject]:
        """The first `limit` objects under `folder/` whose keys come after `after`, in the keys' order.

        Fewer than `limit`: there are no more. An object that comes or goes meanwhile may be missed or
        shown; all that were there before and after are shown.

        Raises StorageUnavailableError; ValueError for a `limit` outside 1 to 1000.
        """
        ...

    async def remove_unfinished(self, folder: str, *, old_seconds: float, limit: int) -> int:
        """Remove what puts under `folder/` left whose process died in the middle, and which no list shows.

        Only what nobody touched for `old_seconds`, by the store's own clock, and `limit` of them at most;
        returns how many. A crash leaves the rest.

        Raises StorageUnavailableError.
        """
        ...

    def readable_link(self, key: str) -> str:
        """An address under which a provider can read one object for hours. Asks nobody. Raises NoLinksError."""
        ...

    def writable_link(self, key: str, *, seconds: int) -> str:
        """An address to which one object can be PUT for so long. Asks nobody.

        It binds the key and the time only: neither the size, nor the type, nor that nothing is there yet.
        Whoever hands it out reads what came with a limit (`describe`, `get`) and keeps a copy of its own.

        Raises:
            NoLinksError: this store cannot give addresses.
            ValueError: `seconds` outside 1 to a week.
        """
        ...

    async def prove(self) -> frozenset[StoreDoubt]:
        """Try once, on an object that is removed again, all that Darkroom rests on.

        Returns what works and somebody should look at all the same.

        Raises:
            StorageBrokenError: the one line says what is wrong, and with which setting.
        """
        ...
