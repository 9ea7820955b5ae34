"""A stored picture goes out: found behind its owner's name and its tombstones, then read piece by piece."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from darkroom.core.photos import PhotoView, find_photo
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found
from darkroom.ports.storage import ObjectMissingError, ObjectStore

_UNFIT: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028-\u202e\u2066-\u2069]')
"""What a file system, a header, or a reader of either would take for something else: control characters,
separators, and marks that turn the writing direction (`gpj.exe` for `exe.jpg`)."""


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A picture that is ready to be read.

    Attributes:
        sha256: of these bytes: the full picture's or the thumbnail's.
        plain_name: a file name in ASCII.
        name: the same with the avatar's name, for people.
    """

    object_key: str
    sha256: str
    size_bytes: int
    content_type: str
    plain_name: str
    name: str
    store: ObjectStore

    async def read(self, first: int, beyond: int) -> AsyncGenerator[bytes]:
        """The bytes from `first` up to, not including, `beyond`.

        Raises:
            RequestRefusedError: 404, the object is gone.
            StorageUnavailableError: no answer; also from the generator, in the middle.
        """
        try:
            return await self.store.read(self.object_key, first=first, beyond=beyond)
        except ObjectMissingError as error:
            raise not_found("photo") from error


async def find_photo_file(
    darkroom: Darkroom, *, user_id: int, photo_id: int, variant: Literal["full", "thumb"]
) -> PhotoFile:
    """One picture of this user. A photo without a thumbnail is shown in full.

    Raises:
        RequestRefusedError: 404: no such photo, somebody else's, or deleted with or without its avatar.
    """
    async with darkroom.database.connection() as tx:
        photo = await find_photo(tx, user_id=user_id, photo_id=photo_id)
    if photo is None:
        raise not_found("photo")
    key, sha256, size, content_type = (
        photo.object_key,
        photo.sha256,
        photo.size_bytes,
        photo.content_type,
    )
    if (
        variant == "thumb"
        and photo.thumbnail_key is not None
        and photo.thumbnail_sha256 is not None
        and photo.thumbnail_bytes is not None
        and photo.thumbnail_type is not None
    ):
        key, sha256 = photo.thumbnail_key, photo.thumbnail_sha256
        size, content_type = photo.thumbnail_bytes, photo.thumbnail_type
    extension = key.rpartition(".")[2]
    return PhotoFile(
        object_key=key,
        sha256=sha256,
        size_bytes=size,
        content_type=content_type,
        plain_name=plain_name(photo, extension),
        name=f"{fit_name(photo.avatar_name)} {photo.job_id}-{photo.prompt_index + 1:02}.{extension}",
        store=darkroom.store,
    )


def plain_name(photo: PhotoView, extension: str) -> str:
    """`darkroom-{job}-{place}.{extension}`: sorts as the set was made, and is safe anywhere."""
    return f"darkroom-{photo.job_id}-{photo.prompt_index + 1:02}.{extension}"


def fit_name(text: str) -> str:
    """A person's words as a part of a file name."""
    return _UNFIT.sub(" ", text).strip(" .") or "darkroom"
