"""What can go wrong between us and an S3 store, on order or from a seed: a proxy in front of a real one.

Requests pass byte for byte, `Host` included, so that their signatures hold: the client signs the proxy's
address and the server checks what it was sent.
"""

import asyncio
import contextlib
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
_METHODS: Final = ["GET", "HEAD", "PUT", "POST", "DELETE"]
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
    """

    def __init__(self, upstream: str, links: Links) -> None:
        self.faults: Faults = no_faults
        self.endpoint = ""
        self.struck: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.went_on = asyncio.Event()
        self.slow_seconds: float | None = None
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
        if fault is StoreFault.SLOW_DOWN:
            await request.body()
            return Response(_SLOW_DOWN, 429, media_type="application/xml")
        answer = await self._ask(request, path)
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
        return _as_is(answer)

    async def _ask(self, request: Request, path: str) -> httpx.Response:
        query = request.scope["query_string"]
        url = httpx.URL(self._upstream).copy_with(
            raw_path=path.encode() + (b"?" + query if query else b"")
        )
        headers = [(name, value) for name, value in request.headers.raw if name not in _HOPS]
        # Built by itself: a client would add headers of its own, and a body of nothing.
        passed = httpx.Request(request.method, url, headers=headers, content=await request.body())
        return await self._http.send(passed)

    async def close(self) -> None:
        """Close what is open."""
        self.go_on()
        await self._http.aclose()


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
