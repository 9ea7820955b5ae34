"""Real HTTP on loopback for stand-ins, with connections that can be cut on purpose."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

TURNS: Final = 6
"""asyncio takes three from accepting a socket to its protocol, and one to close it; twice that, nearly."""
LEAVE_SECONDS: Final = 2
"""Answers still under way when a stand-in leaves get so long."""

Links = dict[tuple[str, int], asyncio.Transport]
"""Open connections by the peer's address."""


class Cut(Response):
    """Closes the connection: with no answer, or in the middle of `whole`."""

    def __init__(self, links: Links, whole: bytes = b"", media_type: str | None = None) -> None:
        super().__init__(whole, media_type=media_type)
        self._links = links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half, if there is anything, and hang up."""
        if self.body:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            half = bytes(self.body[: len(self.body) // 2])
            await send({"type": "http.response.body", "body": half, "more_body": True})
        self._links[cast("tuple[str, int]", tuple(scope["client"]))].close()
        while (await receive())["type"] != "http.disconnect":
            pass


class _Server(uvicorn.Server):
    """Uvicorn as a guest in somebody's loop: it leaves signals alone, and leaves at once."""

    def __init__(self, config: uvicorn.Config, links: Links) -> None:
        super().__init__(config)
        self.leaving = asyncio.Event()
        self._links = links

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals belong to the host program."""
        yield

    async def main_loop(self) -> None:
        """Wait without uvicorn's ticking."""
        await self.leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hang up on everybody: a stand-in that leaves owes no answers."""
        del sockets
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        # Nobody new from here on. Whoever is being let in right now becomes a connection some turns of the loop
        # later; were the server closed by then, asyncio would drop it half made and never close it.
        for _ in range(TURNS):
            for link in list(self._links.values()):
                link.abort()
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=LEAVE_SECONDS)


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Let something run beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def listen() -> socket.socket:
    """A listening socket that names its protocol.

    asyncio turns Nagle off only for those. With it on, each answer
    on a kept connection waits some 40 ms for the peer's delayed acknowledgement.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@asynccontextmanager
async def loopback(app: ASGIApp, links: Links | None = None) -> AsyncGenerator[str]:
    """Serve an application on a free port of 127.0.0.1 and yield its address."""
    kept: Links = {} if links is None else links

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            kept[transport.get_extra_info("peername")] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            kept.pop(self.transport.get_extra_info("peername"), None)
            super().connection_lost(exc)

    listener = listen()
    config = uvicorn.Config(
        app,
        http=cast("Any", Protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = _Server(config, kept)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.leaving.set()
        await serving
        listener.close()
