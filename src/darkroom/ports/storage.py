"""What we ask of an object store. Putting is harmless twice: the key carries the content's hash."""

from collections.abc import AsyncGenerator
from typing import Protocol


class ObjectMissingError(Exception):
    """No object has this key."""


class ObjectConflictError(Exception):
    """An object with this key and other bytes exists: a broken store or a broken key."""


class StorageUnavailableError(Exception):
    """The store did not answer. The put may have happened; doing it again is harmless."""


class ObjectStore(Protocol):
    """Write-once objects by key."""

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        """Store the bytes; when it returns they survive a crash of this machine's processes and power.

        "Already there" with the same bytes is success.

        Raises:
            ObjectConflictError: already there with other bytes.
            StorageUnavailableError: no answer.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissingError, StorageUnavailableError."""
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
        """The keys of all objects under `folder/`. Raises StorageUnavailableError."""
        ...
