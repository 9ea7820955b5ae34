"""Claims: `POST /api/generate` through real HTTP, beside pgbench running the very same statements.

Both start each of N paid sets once, from 32 clients, on the same server, one after the other in one run.
Ours is one server process with its HTTP, JSON, checks and pool; pgbench is C that sends the statements.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import uvloop
from psycopg.conninfo import conninfo_to_dict

from bench.places import Door, open_database, straight
from darkroom.core.catalog import ELIGIBILITY
from darkroom.core.jobs import CLAIM_PAYMENT, REFERENCES_MAX
from darkroom.core.requests import LOCK_USER
from darkroom.core.sessions import WHOSE_SESSION
from darkroom.limits import Limits

CLIENTS: Final = 32
STYLE: Final = "signature"
WARM_UP: Final = 200
"""Claims before the clock runs: plans, caches and connections are those of a server that has been up."""
READY_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Claims:
    """What one repetition measured: claims per second, and how long the slowest hundredth waited."""

    per_second: float
    p50_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * share), 1) - 1]


def measure_ours(server: str, claims: int, *, servers: int = 1, door: Door = straight) -> Claims:
    """`claims` sets started over HTTP, at `servers` processes of ours."""
    with open_database(server, customers=claims + WARM_UP) as dsn:
        return uvloop.run(drive(dsn, claims, servers=servers, door=door))


WAITING: Final = (
    "SELECT p.user_id, a.id FROM payments p JOIN avatars a ON a.user_id = p.user_id "
    "WHERE NOT p.generation_consumed ORDER BY a.id"
)


async def drive(dsn: str, claims: int, *, servers: int = 1, door: Door = straight) -> Claims:
    """Start every paid set that waits, `claims` of them and WARM_UP before those, through servers of ours."""
    with psycopg.connect(dsn) as one:
        rows = one.execute(WAITING).fetchall()
    if len(rows) != claims + WARM_UP:
        raise AssertionError(f"{len(rows)} sets wait")
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(door(dsn))
        ports = [await stack.enter_async_context(serving(address)) for _ in range(servers)]
        waiting = [(int(user), int(avatar)) for user, avatar in rows]
        await _send_all(ports, waiting[:WARM_UP])
        began = time.perf_counter()
        took = await _send_all(ports, waiting[WARM_UP:])
        seconds = time.perf_counter() - began
    with psycopg.connect(dsn) as one:
        left = one.execute(WAITING).fetchall()
    if left:
        raise AssertionError(f"not every set was started: {left[:3]}")
    return Claims(claims / seconds, percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000)


async def _send_all(ports: Sequence[int], waiting: list[tuple[int, int]]) -> list[float]:
    """Every claim once, from CLIENTS connections that are kept; the seconds each took."""
    took: list[float] = []
    queue = list(reversed(waiting))

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            user_id, avatar_id = queue.pop()
            body = json.dumps(
                {"avatarId": avatar_id, "styleId": STYLE, "useStoredReferences": True}
            )
            began = time.perf_counter()
            writer.write(
                f"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer token-{user_id}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            answer = await reader.readexactly(0 if length is None else int(length[1]))
            took.append(time.perf_counter() - began)
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise AssertionError(f"{head!r} {answer!r}")
        writer.close()

    await asyncio.gather(*(client(ports[number % len(ports)]) for number in range(CLIENTS)))
    return took


@asynccontextmanager
async def serving(dsn: str) -> AsyncGenerator[int]:
    """The product's server, one process, without a worker."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.server", dsn, folder, stdout=asyncio.subprocess.PIPE
        )
        if process.stdout is None:
            raise AssertionError("no output to read the port from")
        try:
            async with asyncio.timeout(READY_SECONDS):
                port = int(await process.stdout.readline())
            yield port
        finally:
            process.terminate()
            await process.wait()


def pgbench_script() -> str:
    """The statements of one claim, as pgbench takes them: the same text, its own parameters."""
    limits = Limits()
    mine = {
        "lock_timeout": f"'{limits.lock_timeout_ms}ms'",
        "user_id": ":user_id",
        "avatar_id": ":avatar_id",
        "style_id": f"'{STYLE}'",
        "payment_id": "NULL",
        "request_id": "gen_random_uuid()",
        "provider": "'studio'",
        "open_jobs_max": str(limits.open_jobs_max),
        "references_max": str(REFERENCES_MAX),
        "token_sha256": "encode(sha256(('token-' || :user_id)::BYTEA), 'hex')",
    }

    def filled(query: str) -> str:
        text = re.sub(r"--[^\n]*", "", query)
        text = re.sub(r"%\((\w+)\)s", lambda found: mine[found[1]], text).replace("%%", "%")
        return " ".join(text.split()) + ";"

    return "\n".join(
        [
            "SELECT user_id, avatar_id FROM bench_queue WHERE id = (SELECT nextval('bench_turn')) \\gset",
            filled(WHOSE_SESSION),
            filled(ELIGIBILITY),
            "BEGIN;",
            filled(LOCK_USER),
            filled(CLAIM_PAYMENT),
            "END;",
            "",
        ]
    )


def measure_pgbench(server: str, claims: int, pgbench: Path) -> Claims:
    """`claims` sets started by pgbench, with the same number of connections and prepared statements."""
    each = claims // CLIENTS
    with open_database(server, customers=claims + WARM_UP + 2 * CLIENTS) as dsn:
        with psycopg.connect(dsn, autocommit=True) as one:
            one.execute("CREATE SEQUENCE bench_turn")
            one.execute(
                "CREATE TABLE bench_queue AS SELECT row_number() OVER (ORDER BY id) AS id, user_id, "
                "id AS avatar_id FROM avatars"
            )
            one.execute("CREATE UNIQUE INDEX ON bench_queue (id)")
            one.execute("VACUUM ANALYZE bench_queue")
        with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
            script = Path(folder) / "claim.sql"
            script.write_text(pgbench_script())
            _run_pgbench(pgbench, dsn, script, max(WARM_UP // CLIENTS, 1), Path(folder) / "warm")
            began = time.perf_counter()
            log = Path(folder) / "log"
            _run_pgbench(pgbench, dsn, script, each, log)
            seconds = time.perf_counter() - began
            took = [
                int(line.split()[2]) / 1_000_000
                for file in Path(folder).glob("log.*")
                for line in file.read_text().splitlines()
            ]
        with psycopg.connect(dsn) as one:
            found = one.execute("SELECT count(*) FROM generation_jobs").fetchone()
    if found is None or found[0] < each * CLIENTS:
        raise AssertionError(f"pgbench did not start every set: {found}")
    return Claims(len(took) / seconds, percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000)


def as_we_plan() -> dict[str, str]:
    """The environment of a pgbench whose plans are made as ours are: once a connection, of all parameters."""
    return {**os.environ, "PGOPTIONS": "-c plan_cache_mode=force_generic_plan"}


def _run_pgbench(pgbench: Path, dsn: str, script: Path, each: int, log: Path) -> None:
    known = conninfo_to_dict(dsn)
    command = [
        str(pgbench), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-t", str(each),
        "-f", str(script), "-l", f"--log-prefix={log}",
        "-h", str(known["host"]), "-U", str(known.get("user", "postgres")), str(known["dbname"]),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own pgbench, our own script
        command, capture_output=True, text=True, timeout=300, check=False, env=as_we_plan()
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr[-2000:])
