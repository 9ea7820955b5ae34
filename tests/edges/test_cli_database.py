"""A terminal before a database that is not what the program expects: one line, and no stack."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import pytest
from typer.testing import CliRunner

from darkroom.config import Settings
from darkroom.db.database import Database, RowBusyError
from darkroom.db.embedded import EmbeddedServerError
from darkroom.db.migrate import MigrationChangedError
from darkroom.edges.cli import build_cli
from tests.wires import wires_of


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("ALTER TABLE generation_jobs RENAME TO elsewhere", "run `darkroom migrate`"),
        ("ALTER TABLE generation_jobs RENAME COLUMN status TO state", "run `darkroom migrate`"),
    ],
)
def test_tables_of_another_version_are_said_in_one_line(dsn: str, broken: str, said: str) -> None:
    """`darkroom audit` before the first `migrate` showed fifty lines of Python."""
    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute(broken.encode())

    @asynccontextmanager
    async def open_database(_settings: Settings) -> AsyncGenerator[Database]:
        database = Database(dsn)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    answer = CliRunner().invoke(build_cli(wires_of(open_database=open_database)), ["audit"])
    assert answer.exit_code == 1
    assert said in " ".join(answer.output.split())
    assert "Traceback" not in answer.output
    assert answer.exception is None or isinstance(answer.exception, SystemExit)


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (EmbeddedServerError("the embedded database in x does not start"), "does not start"),
        (MigrationChangedError("migration 001_people was edited"), "001_people was edited"),
        (RowBusyError(), "somebody else holds this row"),
    ],
)
def test_what_an_operator_can_mend_is_one_line(breaks: Exception, said: str) -> None:
    """Each was eighty lines of Python: an upgrade beside a long audit, an edited file, a full disk."""

    @asynccontextmanager
    async def open_database(_settings: Settings) -> AsyncGenerator[Database]:
        raise breaks
        yield

    answer = CliRunner().invoke(build_cli(wires_of(open_database=open_database)), ["audit"])
    assert answer.exit_code == 1
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
