"""A network that fails on purpose: a TCP proxy on loopback, in front of PostgreSQL or of an HTTP service.

What goes wrong is decided at moments (`wires.Moment`) by `faults`: a test's plan, or a seed. What really
struck is counted.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from darkroom.twin.network_faults import (
    COMMIT_KINDS,
    Fault,
    Faults,
    Kind,
    Passing,
    no_faults,
)
from darkroom.twin.wires import HttpWire, Moment, Piece, PostgresWire, Verdict, Wire

CHUNK_BYTES: Final = 65_536
"""Read at once. asyncio stops reading a socket at twice this and `drain` waits at as much unsent, so that one
connection holds at most 4 chunks each way, whatever is sent through it."""
HELD_BYTES_MAX: Final = 1_048_576
"""Of an answer to a commit, kept until it is known whether it is to be lost."""


class FaultyNetwork:
    """The proxy. An asynchronous context manager: it listens inside, and ends what it opened after.

    Attributes:
        faults: decides at every moment; may be changed at any time.
        struck: how often each kind really struck, by its value.
        seen: how many moments of each kind there were.
        port: where it listens on 127.0.0.1.
        still: whether nothing passes at all (`stall_all`).
    """

    def __init__(
        self,
        upstream: tuple[str, int] | str,
        *,
        wire: Callable[[], Wire],
        faults: Faults = no_faults,
    ) -> None:
        self.faults = faults
        self.struck: Counter[str] = Counter()
        self.seen: Counter[Moment] = Counter()
        self.port = 0
        self._upstream = upstream
        self._wire = wire
        self.still = False
        self._server: asyncio.Server | None = None
        self._links: dict[_Link, asyncio.Task[object] | None] = {}
        self._connections = 0
        self._conninfo: dict[str, str | int | None] = {}
        self._path = ""

    @classmethod
    def to_postgres(cls, dsn: str, *, faults: Faults = no_faults) -> Self:
        """In front of the server that a DSN names: on TCP, or on a Unix socket in the folder `host`."""
        known = conninfo_to_dict(dsn)
        host, port = str(known.get("host") or "127.0.0.1"), int(known.get("port") or 5432)
        upstream = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        network = cls(upstream, wire=PostgresWire, faults=faults)
        network._conninfo = known
        return network

    @classmethod
    def to_http(cls, url: str, *, faults: Faults = no_faults) -> Self:
        """In front of an HTTP service."""
        parts = urlsplit(url)
        network = cls((parts.hostname or "", parts.port or 80), wire=HttpWire, faults=faults)
        network._path = parts.path.rstrip("/")
        return network

    @property
    def dsn(self) -> str:
        """The database's DSN through this network. Unencrypted: nobody could read along."""
        through = {"host": "127.0.0.1", "port": self.port, "sslmode": "disable"}
        kept = {key: value for key, value in self._conninfo.items() if key != "hostaddr"}
        return make_conninfo("", **kept | through)

    @property
    def url(self) -> str:
        """The service's address through this network."""
        return f"http://127.0.0.1:{self.port}{self._path}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_all()
        serving = [task for task in self._links.values() if task is not None]
        await asyncio.gather(*serving, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def calm(self) -> None:
        """No more faults. What stands still goes on; of what is half closed the other half learns it."""
        self.faults = no_faults
        self.still = False
        for link in list(self._links):
            link.calm()

    def stall_all(self) -> None:
        """Nothing passes on any connection, old or new, until `calm`. All of them stay open."""
        self.still = True
        for link in list(self._links):
            link.stall()

    def cut_all(self) -> None:
        """Cut every open connection, now."""
        for link in list(self._links):
            link.cut()

    def fault_at(self, piece: Piece, connection: int) -> Fault | None:
        """What happens to this piece. Counts its moment. What is for commits spares everything else."""
        if piece.moment is None:
            return None
        self.seen[piece.moment] += 1
        number = self.seen[piece.moment]
        fault = self.faults(Passing(piece.moment, number, connection, piece.text))
        if fault is None or (fault.kind in COMMIT_KINDS and piece.moment is not Moment.COMMIT):
            return None
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        link = _Link(self, self._wire(), _Side(reader, writer), self._connections)
        self._links[link] = asyncio.current_task()
        try:
            # A server that is not there: the client is cut, and finds out so.
            with contextlib.suppress(OSError):
                await link.run(self._upstream)
        finally:
            del self._links[link]


@dataclass(frozen=True, slots=True)
class _Side:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def next_bytes(self) -> bytes:
        """The next bytes; none at the end, however it came."""
        try:
            return await self.reader.read(CHUNK_BYTES)
        except OSError:
            return b""

    async def pass_on(self, data: bytes | bytearray) -> None:
        """Send, and wait until there is room for more. To nobody is fine."""
        if data and not self.writer.is_closing():
            self.writer.write(data)
            with contextlib.suppress(OSError):
                await self.writer.drain()

    def end(self) -> None:
        """Say that no more comes."""
        if not self.writer.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    async def lose(self) -> None:
        """Let go of the socket."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def _connected(upstream: tuple[str, int] | str) -> AsyncGenerator[_Side]:
    if isinstance(upstream, str):
        pair = await asyncio.open_unix_connection(upstream, limit=CHUNK_BYTES)
    else:
        pair = await asyncio.open_connection(*upstream, limit=CHUNK_BYTES)
    side = _Side(*pair)
    try:
        yield side
    finally:
        await side.lose()


class _Link:
    """One client's connection and its server's."""

    def __init__(self, network: FaultyNetwork, wire: Wire, client: _Side, number: int) -> None:
        self._network = network
        self._wire = wire
        self._client = client
        self._number = number
        self._server: _Side | None = None
        self._gone = asyncio.Event()
        self._calmed = asyncio.Event()
        self._moving = asyncio.Event()
        if not network.still:
            self._moving.set()
        self._half: Kind | None = None
        self._armed: Kind | None = None
        self._held = bytearray()

    async def run(self, upstream: tuple[str, int] | str) -> None:
        """Carry bytes until both sides are gone."""
        try:
            async with _connected(upstream) as server:
                self._server = server
                if self._gone.is_set():
                    return
                async with asyncio.TaskGroup() as carriers:
                    carriers.create_task(self._carry_requests(server))
                    carriers.create_task(self._carry_answers(server))
        finally:
            await self._client.lose()

    def cut(self) -> None:
        """Both sides lose the connection, with whatever was under way."""
        self._gone.set()
        self._calmed.set()
        self._moving.set()
        self._client.writer.transport.abort()
        if self._server is not None:
            self._server.writer.transport.abort()

    def stall(self) -> None:
        """Nothing passes, until `calm`."""
        self._moving.clear()

    def calm(self) -> None:
        """What stands still goes on, what is half closed is cut, what was to be lost is not."""
        self._calmed.set()
        self._moving.set()
        if self._half is not None:
            self.cut()
        elif self._armed is not Kind.CUT_AFTER_COMMIT or not self._held:
            self._armed = None

    async def _carry_requests(self, server: _Side) -> None:
        while data := await self._client.next_bytes():
            plain = bytearray()
            for piece in self._wire.sent(data):
                await self._client.pass_on(piece.reply)
                fault = self._network.fault_at(piece, self._number)
                if fault is None:
                    plain += piece.data
                    continue
                await self._send(server, plain)
                plain.clear()
                await self._strike(server, fault, piece)
                if self._gone.is_set():
                    return
            await self._send(server, plain)
        if self._half is Kind.HALF_CLOSE_CLIENT:
            # The client has left and the server does not know: it keeps its session and its locks.
            return
        if self._half is Kind.HALF_CLOSE_SERVER:
            self.cut()
            return
        await self._moving.wait()
        server.end()

    async def _send(self, server: _Side, data: bytes | bytearray) -> None:
        """On to the server, unless nobody is to hear of it."""
        await self._moving.wait()
        if not self._gone.is_set() and self._half is not Kind.HALF_CLOSE_SERVER:
            await server.pass_on(data)

    async def _strike(self, server: _Side, fault: Fault, piece: Piece) -> None:
        match fault.kind:
            case Kind.CUT_BEFORE_COMMIT:
                self._count(fault.kind)
                self.cut()
            case Kind.CUT_REQUEST:
                self._count(fault.kind)
                await self._send(server, piece.data[: len(piece.data) // 2])
                self.cut()
            case Kind.CUT_AFTER_COMMIT | Kind.CUT_RESPONSE | Kind.TRUNCATE:
                # Counted when the answer comes.
                self._armed = fault.kind
                self._wire.watch_commit()
                await self._send(server, piece.data)
            case Kind.HALF_CLOSE_CLIENT | Kind.HALF_CLOSE_SERVER:
                self._count(fault.kind)
                await self._send(server, piece.data)
                self._half = fault.kind
                (self._client if fault.kind is Kind.HALF_CLOSE_CLIENT else server).end()
                if fault.seconds is not None:
                    asyncio.get_running_loop().call_later(fault.seconds, self.cut)
            case Kind.DELAY | Kind.STALL:
                self._count(fault.kind)
                await self._pause(fault)
                await self._send(server, piece.data)

    async def _pause(self, fault: Fault) -> None:
        """Sit out a delay or a stall. During a stall answers stand still, too."""
        if fault.kind is Kind.STALL:
            self._moving.clear()
        self._calmed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fault.seconds):
                await self._calmed.wait()
        if not self._network.still:
            self._moving.set()

    async def _carry_answers(self, server: _Side) -> None:
        while data := await server.next_bytes():
            verdict = self._wire.answered(data)
            await self._moving.wait()
            match self._armed:
                case Kind.CUT_RESPONSE:
                    self._lose_answer(self._armed)
                case Kind.TRUNCATE:
                    await self._client.pass_on(data[: len(data) // 2])
                    self._lose_answer(self._armed)
                case Kind.CUT_AFTER_COMMIT:
                    await self._hold_answer(data, verdict)
                case _ if self._half is not Kind.HALF_CLOSE_CLIENT:
                    await self._client.pass_on(data)
                case _:
                    pass
        if self._half is Kind.HALF_CLOSE_SERVER:
            # The server has left and the client does not know: it waits as long as it likes.
            return
        await self._moving.wait()
        self._client.writer.close()

    async def _hold_answer(self, data: bytes, verdict: Verdict | None) -> None:
        """Keep what the server says until its word on the commit is there."""
        self._held += data[: HELD_BYTES_MAX - len(self._held)]
        if verdict is Verdict.REFUSED:
            # Nothing was committed: there is no answer to lose.
            self._armed = None
            await self._client.pass_on(self._held)
            self._held.clear()
        elif verdict is Verdict.DONE:
            self._lose_answer(Kind.CUT_AFTER_COMMIT)

    def _lose_answer(self, kind: Kind) -> None:
        self._count(kind)
        self.cut()

    def _count(self, kind: Kind) -> None:
        self._network.struck[kind.value] += 1
