"""What can go wrong between us and an S3 store, on order or from a seed: a proxy in front of a real one.

Requests pass byte for byte, `Host` included, so that their signatures hold: the client signs the proxy's
address and the server checks what it was sent. What the server behind is too lenient about is refused here, as
S3 and R2 do: a body that is not the one that was signed, headers that R2 does not know.
"""

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.twin.loopback import Cut, Links, loopback

ANSWER_SECONDS: Final = 30
"""The server behind is on this machine."""
_SLOW_DOWN: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Reduce your rate of simultaneous writes to the same object.</Message></Error>"
)
_PAGE: Final = b"<html><head><title>Darkroom</title></head><body>Back in a minute</body></html>"
"""Well formed, as obstore needs it to read a list of nothing out of it."""
_UNKNOWN_TO_R2: Final = (
    "x-amz-acl",
    "x-amz-grant-",
    "x-amz-tagging",
    "x-amz-object-lock-",
    "x-amz-request-payer",
    "x-amz-server-side-encryption",
    "x-amz-website-redirect-location",
)
"""How the names of headers begin that R2 answers 501 to (external-apis 6.1)."""
_METHODS: Final = ["GET", "HEAD", "PUT", "POST", "DELETE"]
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_HOPS: Final = frozenset({b"connection", b"transfer-encoding", b"keep-alive"})
"""Said between two neighbours, and not passed on."""


class StoreFault(Enum):
    """What can go wrong with one request."""

    UNHEARD_503 = "unheard_503"
    """The server does it; the client is told 503."""
    UNHEARD_CUT = "unheard_cut"
    """The server does it; the client's connection is cut instead of an answer."""
    SLOW_DOWN = "slow_down"
    """429, as R2 answers two writes a second of one key; the server sees nothing."""
    SLOW = "slow"
    """The server is asked, and the answer waits until `StoreProxy.go_on`, or for `StoreProxy.slow_seconds`."""
    PAGE_404 = "page_404"
    """404 with a page of HTML, as a proxy says whose store is being restarted; the server sees nothing."""
    PAGE_200 = "page_200"
    """The same page as if it were the answer."""
    FORBIDDEN = "forbidden"
    """403 with S3's own words; the server sees nothing."""
    SHORT_BODY = "short_body"
    """The whole length is promised, half of the body comes, and the connection is cut."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A request about to pass. `number` counts those of its method on this proxy, from 1."""

    method: str
    path: str
    number: int


Faults = Callable[[StoreRequest], StoreFault | None]


def no_faults(_request: StoreRequest) -> StoreFault | None:
    """Nothing goes wrong."""
    return None


class SeededStoreFaults:
    """Faults drawn from a seed: only the seed, the method and its number decide.

    Args:
        seed: what is drawn from.
        rates: the share of requests that each kind strikes; together at most 1.

    Raises:
        ValueError: shares that make more than 1.
    """

    def __init__(self, seed: int, rates: Mapping[StoreFault, float]) -> None:
        if sum(rates.values()) > 1 or min(rates.values(), default=0) < 0:
            raise ValueError("the shares of all faults must be between 0 and 1 together")
        self._seed = seed
        self._rates = {kind: rates[kind] for kind in StoreFault if kind in rates}

    def __call__(self, request: StoreRequest) -> StoreFault | None:
        """The fate of this request."""
        lot = random.Random(f"{self._seed}/{request.method}/{request.number}")  # noqa: S311 - to repeat a run
        drawn = lot.random()
        for kind, rate in self._rates.items():
            drawn -= rate
            if drawn < 0:
                return kind
        return None


class StoreProxy:
    """The proxy's state.

    Attributes:
        faults: decides about every request; may be changed at any time.
        endpoint: where it listens, as `S3_ENDPOINT`.
        struck: how often each kind struck, by its value.
        seen: requests by method.
        went_on: set by `go_on`; slow answers wait for it.
        slow_seconds: the longest that they wait; None: for as long as it takes.
        uplink_bytes_per_second: of all bodies together that clients send; None: as fast as they come.
        names_versions: every object is said to have a version, as R2 says, which keeps none.
        refused: what was refused here by its code, as S3 or R2 would have.
    """

    def __init__(self, upstream: str, links: Links) -> None:
        self.faults: Faults = no_faults
        self.endpoint = ""
        self.struck: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.went_on = asyncio.Event()
        self.slow_seconds: float | None = None
        self.uplink_bytes_per_second: float | None = None
        self.names_versions = False
        self.refused: Counter[str] = Counter()
        self._uplink = asyncio.Lock()
        self._upstream = upstream
        self._links = links
        self._http = httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS)

    def go_on(self) -> None:
        """Slow answers come now, and from now on at once."""
        self.went_on.set()

    async def pass_on(self, request: Request) -> Response:
        """One request, with what goes wrong with it."""
        self.seen[request.method] += 1
        path = request.scope["raw_path"].decode()
        fault = self.faults(StoreRequest(request.method, path, self.seen[request.method]))
        if fault is not None:
            self.struck[fault.value] += 1
        body = await self._receive(request)
        answer = self._answer_itself(fault) or self._refusal_of(request, body)
        return answer or await self._pass_with(fault, request, path, body)

    async def _receive(self, request: Request) -> bytes:
        """The body, at the uplink's pace. Each piece has its turn, so that all who send have equal shares."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if self.uplink_bytes_per_second is not None:
                async with self._uplink:
                    await asyncio.sleep(len(piece) / self.uplink_bytes_per_second)
        return bytes(body)

    def _answer_itself(self, fault: StoreFault | None) -> Response | None:
        match fault:
            case StoreFault.SLOW_DOWN:
                return Response(_SLOW_DOWN, 429, media_type="application/xml")
            case StoreFault.PAGE_404:
                return Response(_PAGE, 404, media_type="text/html")
            case StoreFault.PAGE_200:
                return Response(_PAGE, 200, media_type="text/html")
            case StoreFault.FORBIDDEN:
                return _error("AccessDenied", 403)
            case _:
                return None

    def _refusal_of(self, request: Request, body: bytes) -> Response | None:
        odd = [name for name in request.headers if name.startswith(_UNKNOWN_TO_R2)]
        signed = request.headers.get("x-amz-content-sha256", _UNSIGNED)
        if odd:
            code, status = "NotImplemented", 501
        elif signed != _UNSIGNED and signed != hashlib.sha256(body).hexdigest():
            code, status = "XAmzContentSHA256Mismatch", 400
        else:
            return None
        self.refused[code] += 1
        return _error(code, status)

    async def _pass_with(
        self, fault: StoreFault | None, request: Request, path: str, body: bytes
    ) -> Response:
        answer = await self._ask(request, path, body)
        match fault:
            case StoreFault.UNHEARD_503:
                return Response(b"", 503)
            case StoreFault.UNHEARD_CUT:
                return Cut(self._links)
            case StoreFault.SHORT_BODY:
                return Cut(self._links, answer.content, answer.headers.get("content-type"))
            case StoreFault.SLOW:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.slow_seconds):
                        await self.went_on.wait()
            case _:
                pass
        whole = _as_is(answer)
        if self.names_versions and answer.is_success and "x-amz-version-id" not in whole.headers:
            whole.headers["x-amz-version-id"] = hashlib.md5(path.encode()).hexdigest()  # noqa: S324 - a name
        return whole

    async def _ask(self, request: Request, path: str, body: bytes) -> httpx.Response:
        query = request.scope["query_string"]
        url = httpx.URL(self._upstream).copy_with(
            raw_path=path.encode() + (b"?" + query if query else b"")
        )
        headers = [(name, value) for name, value in request.headers.raw if name not in _HOPS]
        # Built by itself: a client would add headers of its own, and a body of nothing.
        passed = httpx.Request(request.method, url, headers=headers, content=body)
        return await self._http.send(passed)

    async def close(self) -> None:
        """Close what is open."""
        self.go_on()
        await self._http.aclose()


def _error(code: str, status: int) -> Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'
    return Response(text, status, media_type="application/xml")


def _as_is(answer: httpx.Response) -> Response:
    response = Response(answer.content, answer.status_code)
    # `content-length` of a HEAD is the object's.
    response.raw_headers = [
        (name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOPS
    ]
    return response


@asynccontextmanager
async def store_proxy(upstream: str) -> AsyncGenerator[StoreProxy]:
    """A proxy on a free port of loopback, in front of the S3 server at `upstream`."""
    links: Links = {}
    proxy = StoreProxy(upstream, links)
    application = Starlette(routes=[Route("/{path:path}", proxy.pass_on, methods=_METHODS)])
    try:
        async with loopback(application, links) as proxy.endpoint:
            yield proxy
            proxy.go_on()
    finally:
        await proxy.close()
