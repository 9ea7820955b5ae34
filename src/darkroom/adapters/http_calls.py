"""HTTP as the photos' way speaks it: nothing is followed, remembered or guessed that was not asked for.

By aiohttp, not httpx, which the rarer calls use: a call costs a quarter of the processor's time (ADR 0021).
"""

import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Final

import httpx
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from yarl import URL

CONNECTIONS_MAX: Final = 100
"""Of one caller at once. A worker has two lanes of a batch of 20 in each step; chores ask one by one."""
KEPT_SECONDS: Final = 5
"""How long an idle connection is kept: those who serve us close theirs after 15 s at the earliest, as a rule,
and what they close while we are writing is lost."""

HEAD_BYTES_MAX, HEADERS_MAX = 65_536, 1_000
"""Of one line and one field of an answer's head, and of fields: what stands in front of those we call may add
policies and reports by the kilobyte, and an answer that is not read is lost."""

NOTHING_SENT: Final = (ClientConnectorError, ConnectionTimeoutError)
"""No connection came about: whoever was called knows nothing of the call."""


@cache
def trusted_authorities() -> ssl.SSLContext:
    """Who may vouch for the hosts we call. Reading them takes 30 ms: once a process."""
    return httpx.create_ssl_context(trust_env=False)


class HttpCaller:
    """Opens calls, each on a connection of its own unless `keep_connections`. Connects with the first call.

    No cookies, no proxies of the environment, no redirects, and nothing is sent twice: whoever calls decides.

    Args:
        connect_seconds: until there is a connection: the wait for a free one, the look-up and the handshake.
        keep_connections: for questions that may be asked twice. A kept connection that the other side has just
            closed loses an answer.
        unpack: answers may come packed although nobody asked for it; otherwise bodies are left as they come.
        headers: of every call.
    """

    def __init__(
        self,
        *,
        connect_seconds: float,
        keep_connections: bool = False,
        unpack: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._keep_connections = keep_connections
        self._unpack = unpack
        self._headers = headers
        self._session: ClientSession | None = None

    def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """A call, from its sending to the end of the block, in which its answer is read.

        Args:
            method: GET or POST.
            url: where to. Its host may be an address; then the name is in `headers` and `server_hostname`.
            headers: of this call.
            body: what is sent.
            server_hostname: whom the certificate must name, if not the url's host.

        Raises:
            ClientError: at the block's beginning; one of NOTHING_SENT is certain that nothing was sent. Also
                while the answer is read.
        """
        if self._session is None:
            self._session = self._connected()
        return self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            server_hostname=server_hostname,
            allow_redirects=False,
        )

    async def close(self) -> None:
        """Close what is open, when nobody calls any more: whoever waits for a free connection is cancelled.

        A call after that connects anew.
        """
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _connected(self) -> ClientSession:
        # Limits are taken as they are: by itself the library rounds those of five seconds and more up.
        never = float("inf")
        if self._keep_connections:
            connector = TCPConnector(
                ssl=trusted_authorities(),
                limit=CONNECTIONS_MAX,
                keepalive_timeout=KEPT_SECONDS,
                timeout_ceil_threshold=never,
            )
        else:
            connector = TCPConnector(
                ssl=trusted_authorities(),
                limit=CONNECTIONS_MAX,
                force_close=True,
                timeout_ceil_threshold=never,
            )
        return ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            headers=self._headers,
            timeout=ClientTimeout(total=None, connect=self._connect_seconds, ceil_threshold=never),
            auto_decompress=self._unpack,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADERS_MAX,
            middlewares=(_send_once,),
            trust_env=False,
        )


class AnswerLostError(ClientError):
    """The connection was lost before the whole answer came."""


class HungUpError(AnswerLostError):
    """The other side closed it without a word."""


class BrokenOffError(AnswerLostError):
    """It was reset, or could not be written to."""


async def _send_once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """The library sends a GET again when its connection was lost; it does not know this error."""
    try:
        return await handler(request)
    except NOTHING_SENT:
        raise
    except ServerDisconnectedError as error:
        raise HungUpError from error
    except ClientOSError as error:
        raise BrokenOffError from error


async def read_at_most(response: ClientResponse, bytes_max: int) -> bytes | None:
    """The body as it came; None: it is larger. Counted while it comes: an announced length is not believed.

    Raises:
        ClientError: it was cut short.
    """
    body = bytearray()
    protocol = None if response.connection is None else response.connection.protocol
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > bytes_max:
            return None
    if protocol is not None and isinstance(protocol.exception(), ClientOSError):
        # An answer without a length ends with its connection; this one did not come to its end.
        raise BrokenOffError
    return bytes(body)
