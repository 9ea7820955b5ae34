"""What carries the QStash SDK's requests: bounded in time and size, without its own retries.

The SDK alone waits 600 s for an answer of any size, and repeats by itself what we repeat knowingly.
"""

from collections.abc import AsyncIterator
from typing import Final, cast

import httpx
from qstash.asyncio.http import AsyncHttpClient

from darkroom.adapters.http_calls import trusted_authorities

ANSWER_BYTES_MAX: Final = 1_000_000
"""The longest answer is the list of schedules: a thousand on the largest plan (external-apis 2.6), half a
kilobyte each, twice over."""


class AnswerTooLargeError(httpx.TransportError):
    """More came than anybody should read."""


class _Counted(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen_bytes = 0
        async for piece in self._inner:
            seen_bytes += len(piece)
            if seen_bytes > ANSWER_BYTES_MAX:
                raise AnswerTooLargeError("the answer is too large")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _SmallAnswers(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        response.stream = _Counted(cast("httpx.AsyncByteStream", response.stream))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class BoundedHttp(AsyncHttpClient):
    """The SDK's client, on a transport of ours: one try, `timeout_seconds` each, small answers only."""

    def __init__(self, token: str, *, base_url: str, timeout_seconds: float) -> None:
        super().__init__(token, retry=False, base_url=base_url)
        self._client = httpx.AsyncClient(
            timeout=timeout_seconds,
            transport=_SmallAnswers(
                httpx.AsyncHTTPTransport(verify=trusted_authorities(), trust_env=False)
            ),
            # A compressed megabyte may be a gigabyte.
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()
