"""A terminal before a database that is not what the program expects: one line, and no stack."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from darkroom.config import IsolatedSettings, Settings
from darkroom.db.database import Database, RowBusyError
from darkroom.db.embedded import EmbeddedServerError
from darkroom.db.migrate import MigrationChangedError, TableBusyError
from darkroom.edges.cli import build_cli
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.recognize_store import look_at_store
from darkroom.flow.store_watch import StoreIs
from tests.shop import open_shop
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
        (TableBusyError(), "somebody reads a table that changes"),
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


def test_a_store_is_adopted_by_a_command(dsn: str, tmp_path: Path) -> None:
    @asynccontextmanager
    async def open_darkroom(_settings: Settings) -> AsyncGenerator[Darkroom]:
        database = Database(dsn)
        await database.open()
        try:
            async with open_shop(database, tmp_path) as shop:
                yield shop.darkroom
        finally:
            await database.close()

    async def whose() -> StoreIs:
        async with open_darkroom(IsolatedSettings.model_validate({})) as darkroom:
            return (await look_at_store(darkroom.database, darkroom.store)).found

    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute("UPDATE store_mark SET store_id = gen_random_uuid()")
    assert asyncio.run(whose()) is StoreIs.UNMARKED
    answer = CliRunner().invoke(build_cli(wires_of(open_darkroom=open_darkroom)), ["adopt-store"])
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert asyncio.run(whose()) is StoreIs.OURS
    # Another database's only by its name, which the refusal says.
    with psycopg.connect(dsn, autocommit=True) as one:
        (other,) = one.execute("SELECT database_id FROM store_mark").fetchone() or ("",)
        one.execute("UPDATE store_mark SET database_id = gen_random_uuid()")
    answer = CliRunner().invoke(build_cli(wires_of(open_darkroom=open_darkroom)), ["adopt-store"])
    assert answer.exit_code == 1
    named = ["adopt-store", "--from-database", str(other)]
    assert f"`darkroom {' '.join(named)}`" in " ".join(answer.stderr.split())
    answer = CliRunner().invoke(build_cli(wires_of(open_darkroom=open_darkroom)), named)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert asyncio.run(whose()) is StoreIs.OURS
