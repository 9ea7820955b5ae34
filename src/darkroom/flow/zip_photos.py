"""A whole set as one file, made while it is sent: never on disk, never more than one photo in memory."""

import asyncio
import hashlib
import io
import stat
import zipfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from darkroom.core.jobs import view_job
from darkroom.core.photos import PhotoView, list_lost_photos, list_photos_of_job
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found
from darkroom.flow.hand_out_photos import fit_name, plain_name

PIECE_BYTES: Final = 262_144
"""Handed to the server at a time: it takes the next piece when the client has taken this one."""
_LOCAL, _CENTRAL, _END = 30, 46, 22
"""Bytes of the format's three headers, without the names in the first two (APPNOTE 4.3)."""
_PLAIN_BYTES_MAX: Final = 2**31 - 1
"""zipfile writes other, longer headers beyond this; such a file goes out without a length."""
_UNIX: Final = 3
_LOST: Final = (
    "Этих фотографий сета здесь нет: сейчас их нельзя прочитать. Напишите в поддержку.",
    "These photos of the set are not in here: they cannot be read now. Please write to support.",
)
"""Both languages: a file is kept and handed on."""


class DamagedPhotoError(Exception):
    """A stored object has other bytes than its row says. The file must not look whole."""


@dataclass(frozen=True, slots=True)
class PhotoArchive:
    """A set that is ready to be zipped.

    Attributes:
        photos: what is in it.
        lost: what would be, and is known not to be in the store as it was put there; a small text names them.
        size_bytes: of the whole file, known beforehand: a download that broke off is seen as broken.
    """

    plain_name: str
    name: str
    photos: tuple[PhotoView, ...]
    lost: tuple[PhotoView, ...]
    size_bytes: int | None
    _darkroom: Darkroom

    async def read(self) -> AsyncGenerator[bytes | memoryview]:
        """The file, piece by piece, one object at a time. Leaving early stops it.

        Raises:
            ObjectMissingError, DamagedPhotoError, StorageUnavailableError: in the middle, of a photo that
                was not known to be lost. What was sent ends before its announced length: a ZIP that silently
                lacks a photo is never made.
        """
        window = _Window()
        with zipfile.ZipFile(window, "w", zipfile.ZIP_STORED) as archive:
            for photo in self.photos:
                # In a box that the thread empties: else it may hold one photo while the next one comes.
                box = [await self._darkroom.store.get(photo.object_key)]
                await asyncio.to_thread(_add, archive, photo, box)
                for piece in _cut(window.take()):
                    yield piece
            if self.lost:
                _write(
                    archive, _note_name(self.lost), self.lost[-1].created_at, _note_of(self.lost)
                )
        yield window.take()


async def zip_photos(darkroom: Darkroom, *, user_id: int, job_id: int) -> PhotoArchive:
    """What there is of a set by now, in its order; deleted and late photos are not in it.

    A photo that the last look did not find in the store is named instead: one of them must not keep the others.

    Raises:
        RequestRefusedError: 404: no such job, somebody else's, or no photo to give.
    """
    async with darkroom.database.connection() as tx:
        if await view_job(tx, user_id=user_id, job_id=job_id) is None:
            raise not_found("job")
        every = await list_photos_of_job(tx, user_id=user_id, job_id=job_id)
        lost_ids = await list_lost_photos(tx, job_id)
    photos = tuple(photo for photo in every if photo.id not in lost_ids)
    lost = tuple(photo for photo in every if photo.id in lost_ids)
    if not photos:
        raise not_found("photo")
    entries = [(_name(photo), photo.size_bytes) for photo in photos]
    if lost:
        entries.append((_note_name(lost), len(_note_of(lost))))
    size = _END + sum(_LOCAL + _CENTRAL + 2 * len(name) + length for name, length in entries)
    return PhotoArchive(
        plain_name=f"darkroom-{job_id}.zip",
        name=f"{fit_name(photos[0].avatar_name)} {job_id}.zip",
        photos=photos,
        lost=lost,
        size_bytes=size if size <= _PLAIN_BYTES_MAX else None,
        _darkroom=darkroom,
    )


def _name(photo: PhotoView) -> str:
    return plain_name(photo, photo.object_key.rpartition(".")[2])


def _note_name(lost: tuple[PhotoView, ...]) -> str:
    return f"darkroom-{lost[0].job_id}-lost.txt"


def _note_of(lost: tuple[PhotoView, ...]) -> bytes:
    return "\r\n".join([*_LOST, *(_name(photo) for photo in lost), ""]).encode()


def _add(archive: zipfile.ZipFile, photo: PhotoView, box: list[bytes]) -> None:
    data = box.pop()
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise DamagedPhotoError(photo.object_key)
    _write(archive, _name(photo), photo.created_at, data)


def _write(archive: zipfile.ZipFile, name: str, created_at: datetime, data: bytes) -> None:
    # The row's time, not the clock's: the same set zipped twice is the same file.
    info = zipfile.ZipInfo(name, created_at.timetuple()[:6])
    info.create_system = _UNIX
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(info, data)


def _cut(data: bytes) -> list[memoryview]:
    whole = memoryview(data)
    return [whole[start : start + PIECE_BYTES] for start in range(0, len(whole), PIECE_BYTES)]


class _Window(io.RawIOBase):
    """A file whose written bytes can be taken away; only what was not taken yet can still be changed.

    zipfile goes back to the start of an entry to write its length and checksum there. The entry is still
    here then. A sink that cannot go back at all would put them behind the data, and then unpackers that
    read from the front (Android's among them) refuse entries that are not compressed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = io.BytesIO()
        self._taken = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._held.write(data)

    def tell(self) -> int:
        return self._taken + self._held.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._taken:
            raise io.UnsupportedOperation("what was taken cannot be changed")
        return self._taken + self._held.seek(offset - self._taken)

    def take(self) -> bytes:
        """Everything written since the last time."""
        data = self._held.getvalue()
        self._taken += len(data)
        self._held = io.BytesIO()
        return data
