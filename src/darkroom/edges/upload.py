"""Files in a multipart body: counted as they stream, hashed, spooled, and gone when the request ends."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from darkroom.flow.add_selfie import Upload
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.received_file import FILE_BYTES_MAX, ReceivedFile
from darkroom.ports.storage import StorageUnavailableError

FILES_MAX: Final = 8
"""What an avatar keeps: a request with more could not be accepted whole."""
PARTS_MAX: Final = 32
"""The files and a form's few other fields."""
AROUND_BYTES_MAX: Final = 1024 * 1024
"""Boundaries, part headers and other fields: 32 parts of a few KB."""
REQUEST_BYTES_MAX: Final = FILES_MAX * FILE_BYTES_MAX + AROUND_BYTES_MAX
RECEIVE_SECONDS: Final = 600
"""Eight files of 30 MB at 400 KB/s, a poor mobile uplink."""
FILE_NAME_MAX: Final = 100


class _Form:
    """Follows the parser through the parts of one body."""

    def __init__(self, boundary: bytes) -> None:
        self.files: list[ReceivedFile] = []
        self.is_whole = False
        self._parts = 0
        self._current: ReceivedFile | None = None
        self._field = b""
        self._value = b""
        self._disposition = b""
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_field,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise RequestRefusedError(400, "INVALID_MULTIPART", "The form has too many parts")
        self._current = None
        self._disposition = b""

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if b"filename" not in options:
            return
        if len(self.files) == FILES_MAX:
            raise RequestRefusedError(
                400, "TOO_MANY_FILES", f"Send at most {FILES_MAX} files at once", limit=FILES_MAX
            )
        self._current = ReceivedFile(_shown_name(options[b"filename"]))
        self.files.append(self._current)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.add(data[start:end])

    def _end(self) -> None:
        self.is_whole = True


def _shown_name(raw: bytes) -> str:
    """The name for the answer only: it is never stored and never a path."""
    name = raw.decode("utf-8", "replace").rsplit("/", 1)[-1].rsplit("\\", 1)[-1]
    return "".join(character for character in name if character.isprintable())[:FILE_NAME_MAX]


def boundary_of(request: Request) -> bytes:
    """What divides the body's parts. Raises RequestRefusedError 415, 400."""
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise RequestRefusedError(
            415, "UNSUPPORTED_MEDIA_TYPE", "Send the photos as multipart/form-data"
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise RequestRefusedError(400, "INVALID_MULTIPART", "The form names no boundary")
    return boundary


def files_of(request: Request, boundary: bytes) -> AbstractAsyncContextManager[Sequence[Upload]]:
    """The files of the request's body, for as long as the block runs.

    Raises:
        RequestRefusedError: 400 for a body that is no whole form, has no file or more than FILES_MAX;
            408 for one that takes longer than RECEIVE_SECONDS.
        StorageUnavailableError: the temporary files could not be written.
    """

    @asynccontextmanager
    async def received() -> AsyncGenerator[Sequence[Upload]]:
        form: _Form | None = None
        try:
            form = _Form(boundary)
            await _receive(request, form)
            yield [file.as_upload() for file in form.files]
        except FormParserError as error:
            raise RequestRefusedError(400, "INVALID_MULTIPART", "The form is damaged") from error
        finally:
            for file in () if form is None else form.files:
                file.close()

    return received()


async def _receive(request: Request, form: _Form) -> None:
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for chunk in request.stream():
                if chunk:
                    # In a thread: it hashes, and writes to a disk that may be slow.
                    await asyncio.to_thread(form.parser.write, chunk)
        await asyncio.to_thread(form.parser.finalize)
    except TimeoutError as error:
        raise RequestRefusedError(408, "UPLOAD_TOO_SLOW", "The upload took too long") from error
    except ClientDisconnect as error:
        raise RequestRefusedError(400, "UPLOAD_CUT_OFF", "The upload did not arrive") from error
    except OSError as error:
        raise StorageUnavailableError(f"spool: {type(error).__name__}") from error
    if not form.is_whole:
        raise RequestRefusedError(400, "INVALID_MULTIPART", "The form is not whole")
    if not form.files:
        raise RequestRefusedError(400, "NO_FILES", "The form has no files")
