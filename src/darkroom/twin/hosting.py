"""A host that keeps no process alive: instances start on demand, are frozen between calls, and are killed.

What it promises and does are those of external-apis.md, section 7: one instance serves concurrent calls, bodies
stop at 4.5 MB, a call that lasts too long is killed together with its instance and answered 504, nothing runs
between calls, and its clock (cron) may miss, double and overlap its ticks.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.twin.loopback import loopback

BODY_BYTES_MAX: Final = 4_500_000
START_SECONDS: Final = 30
"""A cold start takes one or two; a machine that is busy with other tests, ten times as long."""
TICK_SECONDS: Final = 0.02
_DROPPED: Final = frozenset({"host", "connection", "content-length", "transfer-encoding"})


@dataclass(slots=True)
class HostHabits:
    """How the host behaves. May be changed while it runs.

    Attributes:
        call_seconds: the longest a call may last.
        killed_share: the share of calls in whose middle the instance dies.
        killed_within_seconds: such a death comes somewhere in this time.
        freezes: instances stand still while they have no call.
        doomed: the next call of a path dies after so many seconds, whatever is drawn.
        seed: what the deaths are drawn from.
    """

    call_seconds: float = 60
    killed_share: float = 0
    killed_within_seconds: float = 2
    freezes: bool = True
    doomed: dict[str, float] = field(default_factory=dict[str, float])
    seed: int = 0


@dataclass(slots=True, eq=False)
class _Instance:
    process: asyncio.subprocess.Process
    base_url: str
    calls: int = 0
    is_frozen: bool = False


@dataclass
class Hosting:
    """The host and what it counted.

    Attributes:
        base_url: how the outside reaches the application.
        counted: calls, cold starts, deaths, answers 504 and 413.
    """

    environment: Mapping[str, str]
    habits: HostHabits
    log_file: Path
    application: str = "darkroom.app:app"
    base_url: str = ""
    counted: Counter[str] = field(default_factory=Counter[str])
    _instance: _Instance | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(
            timeout=None,  # noqa: S113 - the call's own limit is kept around it
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
    )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Hosting"]:
        """Take calls on loopback while the block runs; end the instance after it."""
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._take, methods=methods)])
        try:
            async with loopback(app) as self.base_url:
                yield self
        finally:
            await self.kill()
            await self._client.aclose()

    async def kill(self) -> bool:
        """The instance dies where it stands. False: there is none."""
        instance, self._instance = self._instance, None
        if instance is None or instance.process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            instance.process.send_signal(signal.SIGKILL)
        await instance.process.wait()
        return True

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > BODY_BYTES_MAX:
            self.counted["answered 413"] += 1
            return JSONResponse({"error": {"code": "FUNCTION_PAYLOAD_TOO_LARGE"}}, 413)
        self.counted["calls"] += 1
        lot = random.Random(f"{self.habits.seed}/{self.counted['calls']}")  # noqa: S311 - to be repeated
        dies_after = self.habits.call_seconds
        doom = self.habits.doomed.pop(request.url.path, None)
        is_struck = doom is not None or lot.random() < self.habits.killed_share
        if is_struck:
            dies_after = doom or lot.uniform(0, self.habits.killed_within_seconds)
        instance = await self._wake()
        try:
            async with asyncio.timeout(dies_after):
                return await self._pass_on(instance, request, body)
        except TimeoutError:
            self.counted["killed in the middle" if is_struck else "killed at the limit"] += 1
            if self._instance is instance:
                await self.kill()
        except httpx.HTTPError:
            # Somebody else's call took the instance with it.
            self.counted["died with another call"] += 1
        finally:
            self._leave(instance)
        return JSONResponse({"error": {"code": "FUNCTION_INVOCATION_TIMEOUT"}}, 504)

    async def _pass_on(self, instance: _Instance, request: Request, body: bytes) -> Response:
        url = httpx.URL(instance.base_url).copy_with(raw_path=_raw_path(request))
        headers = [(name, value) for name, value in request.headers.items() if name not in _DROPPED]
        answer = await self._client.request(request.method, url, headers=headers, content=body)
        kept = {name: value for name, value in answer.headers.items() if name not in _DROPPED}
        return Response(answer.content, answer.status_code, kept)

    async def _wake(self) -> _Instance:
        """The running instance, thawed, or a new one. Its call is counted before anybody may freeze it."""
        async with self._starting:
            instance = self._instance
            if instance is None or instance.process.returncode is not None:
                instance = self._instance = await self._start()
            instance.calls += 1
            if instance.is_frozen:
                instance.is_frozen = False
                instance.process.send_signal(signal.SIGCONT)
            return instance

    def _leave(self, instance: _Instance) -> None:
        instance.calls -= 1
        stands = self.habits.freezes and instance.calls == 0 and not instance.is_frozen
        if stands and instance.process.returncode is None:
            instance.is_frozen = True
            instance.process.send_signal(signal.SIGSTOP)

    async def _start(self) -> _Instance:
        port = _free_port()
        self.counted["cold starts"] += 1
        with self.log_file.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "uvicorn", self.application, "--host", "127.0.0.1", "--port", str(port)),
                *("--log-level", "warning", "--no-access-log"),
                env={**os.environ, **self.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                await _until_it_listens(process, port)
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        return _Instance(process, f"http://127.0.0.1:{port}")


def _raw_path(request: Request) -> bytes:
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return raw + (b"?" + query if query else b"")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _until_it_listens(process: asyncio.subprocess.Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(TICK_SECONDS)
        else:
            writer.close()
            return
    raise RuntimeError(f"the instance ended with {process.returncode} before it listened")


@asynccontextmanager
async def hosting_cron(
    hosting: Hosting, paths: Mapping[str, float], *, secret: str, seed: int = 0
) -> AsyncGenerator[None]:
    """The host's clock: GETs each path so many seconds apart, and misses, doubles and overlaps ticks.

    Args:
        hosting: whose application is called.
        paths: the seconds between two ticks of each path.
        secret: what it shows as a bearer.
        seed: what the misses (one in five) and doubles (one in five) are drawn from.
    """
    lot = random.Random(f"cron/{seed}")  # noqa: S311 - to be repeated
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        httpx.AsyncClient(timeout=120, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):

        async def call(path: str) -> None:
            # A tick that fails is not repeated.
            with contextlib.suppress(httpx.HTTPError):
                await client.get(hosting.base_url + path, headers=headers)

        async def tick(path: str, seconds: float) -> None:
            while True:
                await asyncio.sleep(seconds)
                times = lot.choices((0, 1, 2), weights=(1, 3, 1))[0]
                hosting.counted[("ticks missed", "ticks", "ticks doubled")[times]] += 1
                for _ in range(times):
                    group.create_task(call(path))

        ticking = [group.create_task(tick(path, seconds)) for path, seconds in paths.items()]
        try:
            yield
        finally:
            for task in ticking:
                task.cancel()
            for task in list(group._tasks):  # noqa: SLF001 - what hangs in a call ends with the clock
                task.cancel()
