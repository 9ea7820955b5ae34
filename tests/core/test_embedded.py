"""The embedded server: killed at once it comes back whole, and two first starts on one machine both succeed."""

import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from darkroom.db import embedded
from darkroom.db.embedded import EmbeddedPostgres


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


def test_a_crash_of_what_does_not_run_is_nothing(folder: Path) -> None:
    EmbeddedPostgres(folder / "postgres").crash()
    assert not (folder / "postgres").exists()
