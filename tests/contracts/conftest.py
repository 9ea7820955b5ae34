import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
import structlog.testing
from aiohttp import ClientResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from yarl import URL

from darkroom.adapters.download import MAX_BYTES, Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.adapters.http_calls import HttpCaller
from darkroom.adapters.storage import Storage, open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.ports.generation import GenerationRequest, Reference
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.loopback import loopback
from darkroom.twin.store_faults import StoreProxy, store_proxy

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
        place=0,
        take=0,
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
                call_seconds=call_seconds,
            )
            stack.push_async_callback(provider.close)
            return provider

        yield make


@pytest.fixture
def kie(make_provider: MakeProvider) -> KieProvider:
    return make_provider()


class MakeDownloader(Protocol):
    """Makes a downloader that may go to this machine, closed after the test."""

    def __call__(self, *, timeout_seconds: float = ..., max_bytes: int = ...) -> Downloader:
        """Build one."""
        ...


@pytest.fixture
async def make_downloader() -> AsyncGenerator[MakeDownloader]:
    async with AsyncExitStack() as stack:

        def make(*, timeout_seconds: float = 5, max_bytes: int = MAX_BYTES) -> Downloader:
            made = Downloader(
                allow_private=True,
                hosts_allowed=None,
                timeout_seconds=timeout_seconds,
                max_bytes=max_bytes,
            )
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def downloader(make_downloader: MakeDownloader) -> Downloader:
    return make_downloader()


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

        async def getaddrinfo(host: str, port: int, **_options: object) -> list[Any]:
            # uvloop asks for addresses, too, when it connects.
            named = not host.replace(".", "").isdigit() and ":" not in host
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM,
                    socket.IPPROTO_TCP,
                    "",
                    (address, port),
                )
                for address in (left.pop(0) if named else [host])
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return install


@dataclass(frozen=True)
class Sent:
    """A call for the internet: where it was to go, and what it said of itself."""

    url: URL
    headers: Mapping[str, str]
    server_hostname: str | None


class Rerouted(HttpCaller):
    """Carries calls for the internet to a stand-in on loopback."""

    def __init__(self, base_url: str) -> None:
        super().__init__(connect_seconds=5)
        self.requests: list[Sent] = []
        self._base_url = URL(base_url)

    def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """Note where it was to go, and go to the stand-in."""
        self.requests.append(Sent(url, headers or {}, server_hostname))
        there = URL(f"{self._base_url.origin()}{url.raw_path_qs}", encoded=True)
        return super().open(method, there, headers=headers, body=body)


@pytest.fixture
async def internet(twin: KieTwin) -> AsyncGenerator[Rerouted]:
    caller = Rerouted(twin.base_url)
    yield caller
    await caller.close()


@pytest.fixture
def strict(internet: Rerouted) -> Downloader:
    """As in production, with the wire rerouted."""
    return Downloader(allow_private=False, hosts_allowed=None, timeout_seconds=5, caller=internet)


@pytest.fixture
def log_lines() -> Generator[list[MutableMapping[str, Any]]]:
    """What is logged from information upwards, whatever the run's own level."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


class Answering(Protocol):
    """Starts a kie.ai that always says the same, and gives its address."""

    async def __call__(
        self, body: object, *, status: int = ..., headers: dict[str, str] | None = ...
    ) -> str:
        """Serve it until the test ends."""
        ...


@pytest.fixture
async def answering() -> AsyncGenerator[Answering]:
    """For answers that the twin is too polite to give."""
    async with AsyncExitStack() as stack:

        async def serve(
            body: object, *, status: int = 200, headers: dict[str, str] | None = None
        ) -> str:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()

            async def answer(_request: Request) -> Response:
                return Response(content, status, headers)

            route = Route("/{path:path}", answer, methods=["GET", "POST"])
            return await stack.enter_async_context(loopback(Starlette(routes=[route])))

        yield serve


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was synced, in order."""
    names: list[str] = []
    really = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


@pytest.fixture
def bucket(s3_place: S3Place) -> Storage:
    return open_s3(s3_place)


@pytest.fixture
async def proxy(s3_place: S3Place) -> AsyncGenerator[StoreProxy]:
    assert s3_place.endpoint is not None
    async with store_proxy(s3_place.endpoint) as running:
        yield running


@pytest.fixture
def behind(s3_place: S3Place, proxy: StoreProxy) -> Storage:
    """The same bucket, over a network that fails on order."""
    return open_s3(replace(s3_place, endpoint=proxy.endpoint))
