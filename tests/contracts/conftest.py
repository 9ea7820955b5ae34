import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Generator, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
import structlog.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.ports.generation import GenerationRequest, Reference
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.loopback import loopback

Resolve = Callable[..., None]
NOBODY = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


def request_with(
    *, token: UUID | None = None, prompt: str = "a portrait by the window", references: int = 2
) -> GenerationRequest:
    return GenerationRequest(
        task_id=1,
        token=token or uuid4(),
        prompt=prompt,
        prompt_index=0,
        seed=7,
        style_id="signature",
        references=tuple(
            Reference(f"references/{number}.jpg", "0" * 64, "image/jpeg")
            for number in range(references)
        ),
    )


@dataclass
class Receiver:
    """Our own side of callbacks: keeps what came, with its headers."""

    base_url: str = NOBODY
    tokens: list[str] = field(default_factory=list[str])
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def take(self, request: Request) -> Response:
        """Keep it and say thanks."""
        self.tokens.append(request.path_params["token"])
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        return Response(status_code=200)


class MakeProvider(Protocol):
    """Makes a provider that talks to the twin, closed after the test."""

    def __call__(
        self,
        *,
        model: str = ...,
        api_key: str = ...,
        base_url: str | None = ...,
        transport: httpx.AsyncBaseTransport | None = ...,
        reference_link: Callable[[str], str] = ...,
        call_seconds: float = ...,
    ) -> KieProvider:
        """Build one."""
        ...


def link_to(object_key: str) -> str:
    return f"https://photos.example/{object_key}?signed=1"


@pytest.fixture
async def twin() -> AsyncGenerator[KieTwin]:
    async with kie_twin() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    keeper = Receiver()
    route = Route("/api/webhooks/generation/kie/{token}", keeper.take, methods=["POST"])
    async with loopback(Starlette(routes=[route])) as base_url:
        keeper.base_url = base_url
        yield keeper


@pytest.fixture
async def make_provider(twin: KieTwin, receiver: Receiver) -> AsyncGenerator[MakeProvider]:
    async with AsyncExitStack() as stack:

        def make(
            *,
            model: str = "nano-banana-pro",
            api_key: str = "twin-key",
            base_url: str | None = None,
            transport: httpx.AsyncBaseTransport | None = None,
            reference_link: Callable[[str], str] = link_to,
            call_seconds: float = 10,
        ) -> KieProvider:
            provider = KieProvider(
                base_url=base_url or twin.base_url,
                api_key=api_key,
                model=model,
                callback_base_url=receiver.base_url,
                reference_link=reference_link,
                downloader=Downloader(allow_private=True, hosts_allowed=None, timeout_seconds=5),
                transport=transport,
                call_seconds=call_seconds,
            )
            stack.push_async_callback(provider.close)
            return provider

        yield make


@pytest.fixture
def kie(make_provider: MakeProvider) -> KieProvider:
    return make_provider()


@pytest.fixture
def downloader() -> Downloader:
    return Downloader(allow_private=True, hosts_allowed=None, timeout_seconds=5)


@pytest.fixture
async def result_url(twin: KieTwin) -> str:
    """A finished task's picture, ordered at the twin itself."""
    order = {"model": "nano-banana-pro", "input": {"prompt": "a portrait"}}
    headers = {"Authorization": "Bearer twin-key"}
    async with httpx.AsyncClient(base_url=twin.base_url, headers=headers, trust_env=False) as http:
        answer = await http.post("/api/v1/jobs/createTask", json=order)
    task_id = answer.json()["data"]["taskId"]
    await twin.finish(task_id)
    return twin.result_url(twin.tasks[task_id])


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Replace the name service: each look-up gives the next list of addresses."""

    def install(*answers: list[str]) -> None:
        left = list(answers)

        async def getaddrinfo(_host: str, port: int, **_options: object) -> list[Any]:
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM,
                    socket.IPPROTO_TCP,
                    "",
                    (address, port),
                )
                for address in left.pop(0)
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return install


class Rerouted(httpx.AsyncBaseTransport):
    """Carries requests for the internet to a stand-in on loopback."""

    def __init__(self, base_url: str) -> None:
        self.requests: list[httpx.Request] = []
        self._base_url = httpx.URL(base_url)
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Note where it was to go, and go to the stand-in."""
        self.requests.append(request)
        there = self._base_url.copy_with(raw_path=request.url.raw_path)
        return await self._inner.handle_async_request(
            httpx.Request("GET", there, headers=request.headers)
        )

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


@pytest.fixture
async def internet(twin: KieTwin) -> AsyncGenerator[Rerouted]:
    transport = Rerouted(twin.base_url)
    yield transport
    await transport.aclose()


@pytest.fixture
def strict(internet: Rerouted) -> Downloader:
    """As in production, with the wire rerouted."""
    return Downloader(
        allow_private=False, hosts_allowed=None, timeout_seconds=5, transport=internet
    )


@pytest.fixture
def log_lines() -> Generator[list[MutableMapping[str, Any]]]:
    """What is logged from information upwards, whatever the run's own level."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


def answering(
    body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> httpx.MockTransport:
    """A kie.ai that always says the same, for answers that the twin is too polite to give."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.MockTransport(
        lambda _request: httpx.Response(status, content=content, headers=headers)
    )
