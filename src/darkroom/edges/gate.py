"""What stands before every request: body limits, and the demo mode's walls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.edges.envelope import failure
from darkroom.settings_rules import LOOPBACK_HOSTS

BODY_BYTES_MAX: Final = 1_048_576
"""JSON bodies and notices; QStash's own limit is 1 MB on the smallest plan (external-apis 2.6)."""


HEADERS_MAX: Final = 100
"""A browser behind two proxies sends about 40."""
HEADER_BYTES_MAX: Final = 32_768
"""Init data is the largest thing a header carries here, with 8 kB at most."""


class BodyTooLargeError(HTTPException):
    """More bytes came than were allowed. An HTTPException: FastAPI lets it pass while it reads a body."""

    def __init__(self) -> None:
        super().__init__(413, "The body is too large")


@dataclass(frozen=True, slots=True)
class BodyAllowance:
    """A way in that may bring more than BODY_BYTES_MAX, stated by the room that serves it."""

    method: str
    path: re.Pattern[str]
    bytes_max: int


class Gate:
    """Refuses what no handler should see.

    A body is counted as it streams: a chunked one has no length to believe. In demo mode, where a bare
    telegramUserId counts as identity, only this machine gets in: other Host names and anything that
    came through a proxy are told 401.
    """

    def __init__(
        self, app: ASGIApp, *, demo: bool, allowances: Sequence[BodyAllowance] = ()
    ) -> None:
        self._app = app
        self._demo = demo
        self._allowances = allowances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw = scope["headers"]
        size_bytes = sum(len(name) + len(value) for name, value in raw)
        if len(raw) > HEADERS_MAX or size_bytes > HEADER_BYTES_MAX:
            refusal = failure(431, "HEADERS_TOO_LARGE", "Too many headers")
            await refusal(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._demo and not _is_local(headers):
            refusal = failure(401, "UNAUTHORIZED", "Demo mode serves this machine only")
            await refusal(scope, receive, send)
            return
        bytes_max = self._bytes_max(scope)
        seen_bytes = 0
        answered = False

        async def counted() -> Message:
            nonlocal seen_bytes
            message = await receive()
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > bytes_max:
                raise BodyTooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = answered or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except BodyTooLargeError:
            if not answered:
                refusal = failure(413, "TOO_LARGE", "The body is too large")
                await refusal(scope, receive, send)

    def _bytes_max(self, scope: Scope) -> int:
        for allowance in self._allowances:
            if scope["method"] == allowance.method and allowance.path.fullmatch(scope["path"]):
                return allowance.bytes_max
        return BODY_BYTES_MAX


def _is_local(headers: Headers) -> bool:
    host = headers.get("host", "").rsplit(":", 1)[0]
    proxied = any(name.startswith("x-forwarded-") or name == "forwarded" for name in headers)
    return host in LOOPBACK_HOSTS and not proxied
