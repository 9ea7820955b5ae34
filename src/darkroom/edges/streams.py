"""Answers that are made while they are sent, and the parts of a file that a client may ask for."""

import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_SINGLE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)
"""One range of at most int8's digits. Several ranges, other units and nonsense are answered in full, which
RFC 9110 (14.2) allows: no viewer of pictures asks for several."""


class Source(Protocol):
    """Pieces that must be closed, read to their end or not."""

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """The pieces."""
        ...

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Give back what is held. Harmless twice."""
        ...


class ClosingStream(StreamingResponse):
    """A stream whose source is closed however it ends: sent, broken, left by the client, or never begun."""

    def __init__(
        self,
        source: Source,
        status_code: int = 200,
        headers: dict[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(source, status_code, headers, media_type)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the client leaves, then close."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()


class Span(NamedTuple):
    """Bytes from `first` up to, not including, `beyond`."""

    first: int
    beyond: int


class UnsatisfiableRangeError(Exception):
    """The range begins behind the end."""


def asked_span(headers: Headers, *, etag: str, size_bytes: int) -> Span | None:
    """The one part that is asked for; None: the whole is to be sent.

    `If-Range` counts only with this very ETag: after any other, or a date, the parts a client has may be of
    something else, and it gets the whole.

    Raises:
        UnsatisfiableRangeError: answer 416.
    """
    condition = headers.get("if-range")
    match = _SINGLE.fullmatch(headers.get("range", ""))
    if match is None or (condition is not None and condition.strip() != etag):
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:
        if int(last) == 0:
            raise UnsatisfiableRangeError
        return Span(max(size_bytes - int(last), 0), size_bytes)
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise UnsatisfiableRangeError
    return Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)


def is_known(headers: Headers, etag: str) -> bool:
    """Whether the client has this already (`If-None-Match`, compared weakly as RFC 9110 13.1.2 says)."""
    given = headers.getlist("if-none-match")
    tags = {tag.strip().removeprefix("W/") for line in given for tag in line.split(",")}
    return "*" in tags or etag in tags


def disposition(kind: str, *, plain_name: str, name: str) -> str:
    """`Content-Disposition`: a name in ASCII for everybody, and one for people (RFC 6266, RFC 5987)."""
    return f"{kind}; filename=\"{plain_name}\"; filename*=UTF-8''{quote(name, safe='')}"
