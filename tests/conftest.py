"""Real PostgreSQL for every test: one server a run, one migrated template, one clone a test."""

import asyncio
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.adapters.intake import ProcessIntake
from darkroom.adapters.storage_s3 import S3Place
from darkroom.core.audit import run_audit
from darkroom.db.database import Database
from darkroom.db.embedded import EmbeddedPostgres
from darkroom.db.migrate import migrate
from darkroom.flow.stock_catalog import stock_catalog
from darkroom.kit.log import configure_logging
from darkroom.twin.seaweed import SeaweedServer, seaweed
from darkroom.wiring import bundled_catalog
from tests.shop import Shop, open_shop
from tests.whose import strangers_pictures

configure_logging("json", level=logging.CRITICAL)

PROVEN: Final = {
    "tests/crash/test_every_checkpoint.py::test_after_a_crash": "crashes, one at each place of the code",
    "tests/crash/test_every_outside_call.py::test_after_a_crash": (
        "crashes around every call that the real adapters make"
    ),
    (
        "tests/promises/test_the_matrix.py::test_every_message_at",
        "tests/promises/test_the_matrix.py::test_every_tick_at",
    ): "cells of message x status x how often and when",
}
"""What the end of a run tells, so that the size of the proof stands in CI's output: cases by test."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The enumerations' sizes, how many were violated, and what torture said."""
    told: list[str] = []
    for prefix, what in PROVEN.items():
        sizes = {
            outcome: sum(
                int(dict(report.user_properties).get("cases", 1))
                for report in terminalreporter.getreports(outcome)
                if report.nodeid.startswith(prefix) and report.when == "call"
            )
            for outcome in ("passed", "failed")
        }
        if any(sizes.values()):
            told.append(f"{sum(sizes.values())} {what}: {sizes['failed']} violations")
    for report in terminalreporter.getreports("passed"):
        told += [str(value) for name, value in report.user_properties if name == "told"]
    if told:
        terminalreporter.write_sep("=", "proof")
        for line in told:
            terminalreporter.write_line(line)


NOTHING_LASTS: Final = (
    b"fsync = off",
    b"full_page_writes = off",
    b"wal_compression = off",
    b"max_wal_size = '256MB'",
)
"""A test kills processes, never the machine: nothing here has to survive a power cut. Tests of what a commit is
worth have a server of their own. What is written to the log for a clone is not worth being compressed."""
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own in it, as in any other
MEMORY_BYTES: Final = 4 * 1024**3
"""Free there, or the disk it is. A server keeps 0.3 GB of log, and 10 MB for each database of a test."""


def _memory() -> Path | None:
    """Where a clone, which is 1500 small files, takes a fifth of the time; None if there is no such place."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES
    return MEMORY if roomy and os.access(MEMORY, os.W_OK) else None


@pytest.fixture(scope="session")
def server() -> Generator[str]:
    """The address of a PostgreSQL that tests may make databases on."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if given:
        yield given
        return
    # Not in pytest's folder: another run of pytest closes that one to the server's own user.
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-", dir=_memory()))
    embedded = EmbeddedPostgres(folder / "postgres")
    dsn = embedded.start()
    with psycopg.connect(dsn, autocommit=True) as admin:
        for setting in NOTHING_LASTS:
            admin.execute(b"ALTER SYSTEM SET " + setting)
        admin.execute("SELECT pg_reload_conf()")
    try:
        yield dsn
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _execute(server: str, statement: LiteralString, **names: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            SQL(statement).format(**{key: Identifier(value) for key, value in names.items()})
        )


@pytest.fixture(scope="session")
def template(server: str) -> Generator[str]:
    """A migrated, stocked database to be cloned."""
    name = f"darkroom_template_{uuid.uuid4().hex[:12]}"
    _execute(server, "CREATE DATABASE {name}", name=name)

    async def fill() -> None:
        database = Database(make_conninfo(server, dbname=name))
        await database.open()
        await migrate(database)
        await stock_catalog(database, bundled_catalog(), only_if_empty=True)
        await database.close()

    asyncio.run(fill())
    yield name
    _execute(server, "DROP DATABASE {name} WITH (FORCE)", name=name)


Clone = Callable[[], AbstractContextManager[str]]
"""Makes one more fresh database; it is gone with the block."""


@pytest.fixture
def clone(server: str, template: str) -> Clone:
    """For a test that needs more databases than one."""

    @contextmanager
    def cloned() -> Generator[str]:
        name = f"darkroom_test_{uuid.uuid4().hex[:12]}"
        _execute(server, "CREATE DATABASE {name} TEMPLATE {template}", name=name, template=template)
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            _execute(server, "DROP DATABASE {name} WITH (FORCE)", name=name)

    return cloned


@pytest.fixture
def dsn(clone: Clone) -> Generator[str]:
    """A fresh database of this test."""
    with clone() as made:
        yield made


@pytest.fixture
async def database(dsn: str) -> AsyncGenerator[Database]:
    """A pool on this test's database, large enough for 200 rivals to queue at."""
    database = Database(dsn, pool_size=20)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def shop(database: Database, tmp_path: Path) -> AsyncGenerator[Shop]:
    """The program on this test's database with scripted outsides. The audit runs at the end."""
    async with open_shop(database, tmp_path) as shop:
        yield shop
        if shop.audit_at_end:
            report = await run_audit(database)
            assert report.clean, report.findings
            assert await strangers_pictures(shop) == []


@pytest.fixture(scope="session")
def warm_processes() -> Generator[list[ProcessPoolExecutor]]:
    """Processes that open files, started once a run and handed from test to test."""
    idle: list[ProcessPoolExecutor] = []
    yield idle
    for executor in idle:
        executor.shutdown()


@pytest.fixture
def intake(warm_processes: list[ProcessPoolExecutor]) -> ProcessIntake:
    """The real intake."""
    return ProcessIntake(processes=1, idle=warm_processes)


@pytest.fixture
async def empty_database(server: str) -> AsyncGenerator[Database]:
    """A database without a schema."""
    name = f"darkroom_empty_{uuid.uuid4().hex[:12]}"
    _execute(server, "CREATE DATABASE {name}", name=name)
    database = Database(make_conninfo(server, dbname=name))
    await database.open()
    yield database
    await database.close()
    _execute(server, "DROP DATABASE {name} WITH (FORCE)", name=name)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the product runs on (kit/process.py)."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def s3_server() -> Generator[SeaweedServer]:
    """A real S3 server, one a process, started by the first test that asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-s3-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            server = seaweed(folder)
            yield runner.run(server.__aenter__())
            runner.run(server.__aexit__(None, None, None))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3_place(s3_server: SeaweedServer) -> S3Place:
    """A place on it that is this test's own."""
    return S3Place(
        bucket=s3_server.bucket,
        prefix=f"tests/{uuid.uuid4().hex}",
        endpoint=s3_server.endpoint,
        region="auto",
        access_key_id=s3_server.access_key_id,
        secret_access_key=s3_server.secret_access_key,
    )
