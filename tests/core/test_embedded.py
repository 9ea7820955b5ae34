"""The embedded server: killed at once it comes back whole, and two first starts on one machine both succeed."""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from darkroom.config import IsolatedSettings
from darkroom.db import embedded
from darkroom.db.database import DatabaseUnavailableError
from darkroom.db.embedded import EmbeddedPostgres, EmbeddedServerError
from darkroom.wiring import open_database

LOCK_LINES = ["0", "", "1700000000", "5432", "/nowhere", "", "  1234567         0", "ready"]


@pytest.fixture
def folder() -> Generator[Path]:
    """Not pytest's own: that one is closed to the server's user."""
    with tempfile.TemporaryDirectory(prefix="darkroom-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_what_was_committed_is_there_after_a_crash(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres")
    dsn = server.start()
    try:
        with psycopg.connect(dsn, autocommit=True) as open_connection:
            open_connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
            server.crash()
            with pytest.raises(psycopg.OperationalError):
                open_connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
        assert server.start() == dsn
        with psycopg.connect(dsn) as again:
            assert again.execute("SELECT one FROM kept").fetchone() == (1,)
    finally:
        server.stop()


def test_a_server_user_that_another_process_is_making_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two test processes on a fresh machine both ran `useradd`; one of them failed, and its tests with it."""
    real = embedded.get_server
    failures = iter([True, True])

    def race(*args: object, **kwargs: object) -> object:
        if next(failures, False):
            raise subprocess.CalledProcessError(9, ["useradd"])
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(embedded, "get_server", race)
    monkeypatch.setattr(embedded, "OWNER_PAUSE_SECONDS", 0)
    server = EmbeddedPostgres(folder / "postgres")
    try:
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


async def _answers(dsn: str) -> int:
    """What the server says, once it does."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(dsn) as connection:
                    row = await (await connection.execute("SELECT one FROM kept")).fetchone()
            except psycopg.OperationalError:
                await asyncio.sleep(0.05)
            else:
                assert row is not None
                return int(row[0])


def _kill(folder: Path) -> None:
    os.kill(int((folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)


async def test_a_server_that_dies_is_there_again_without_a_person(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the database: every door said 503, and every lane looked again, until somebody started us anew."""
    monkeypatch.setattr(embedded, "WATCH_SECONDS", 0.05)
    settings = IsolatedSettings.model_validate(
        {"DARKROOM_MODE": "demo", "DARKROOM_DATA_DIR": folder}
    )
    async with open_database(settings) as database:
        async with database.connection() as tx:
            await tx.execute("CREATE TABLE kept AS SELECT 1 AS one")
        for _ in range(2):
            _kill(folder / "postgres")
            assert await _answers(database.dsn) == 1
        async with asyncio.timeout(30):
            while True:
                try:
                    async with database.connection() as tx:
                        assert await (await tx.execute("SELECT one FROM kept")).fetchone() == (1,)
                except DatabaseUnavailableError:
                    continue
                break


def test_a_dead_servers_number_that_is_somebody_elses_is_not_believed(folder: Path) -> None:
    """After a power cut small numbers come again: nobody answered, and the other process was killed."""
    first = EmbeddedPostgres(folder / "postgres")
    with psycopg.connect(first.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    first.crash()
    lock = folder / "postgres" / "postmaster.pid"
    with subprocess.Popen(["/bin/sleep", "600"]) as other:
        lines = lock.read_text().splitlines() if lock.exists() else LOCK_LINES
        lines = [str(other.pid), str(folder / "postgres"), *lines[2:7], "ready"]
        lock.write_text("\n".join(lines) + "\n")
        again = EmbeddedPostgres(folder / "postgres")
        try:
            with psycopg.connect(again.start()) as connection:
                assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        finally:
            again.stop()
            alive = other.poll() is None
            other.kill()
    assert alive


def test_the_lock_of_a_server_that_cannot_be_seen_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others' processes are hidden nobody knows whose number it is: a live server must keep its lock."""
    server = EmbeddedPostgres(folder / "postgres")
    dsn = server.start()
    lock = folder / "postgres" / "postmaster.pid"
    before = lock.read_text()

    def unseen(_pid: int) -> None:
        return None

    try:
        monkeypatch.setattr(embedded, "_command_of", unseen)
        assert server.is_running
        assert server.start() == dsn
        assert lock.read_text() == before
    finally:
        server.stop()


def test_a_crash_of_what_does_not_run_is_nothing(folder: Path) -> None:
    EmbeddedPostgres(folder / "postgres").crash()
    assert not (folder / "postgres").exists()


def test_a_folder_that_holds_no_database_is_said_in_one_line(folder: Path) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("18")
    server = EmbeddedPostgres(folder / "postgres")
    with pytest.raises(EmbeddedServerError, match=r"^the embedded database in .* does not start"):
        server.start()
    server.stop()
