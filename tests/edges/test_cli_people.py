"""`darkroom sign-in`: a link for one customer, on a line of its own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from darkroom.config import Settings
from darkroom.db.database import Database
from darkroom.edges.cli import build_cli
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.forget_me import forget_me
from darkroom.flow.sign_in import OpenedSession
from darkroom.flow.sign_in_by_link import sign_in_by_link
from darkroom.kit.log import get_logger
from tests.shop import Customer, open_shop
from tests.wires import wires_of


class Desk:
    """An operator's terminal. Each command is a process of its own, so to say."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._dsn = dsn
        self._folder = folder

    @asynccontextmanager
    async def open(self, _settings: Settings | None = None) -> AsyncGenerator[Darkroom]:
        database = Database(self._dsn)
        await database.open()
        try:
            async with open_shop(database, self._folder) as shop:
                yield shop.darkroom
        finally:
            await database.close()

    def customer(self) -> Customer:
        async def go() -> Customer:
            database = Database(self._dsn)
            await database.open()
            try:
                async with open_shop(database, self._folder) as shop:
                    return await shop.customer()
            finally:
                await database.close()

        return asyncio.run(go())

    def types(self, *words: str) -> Result:
        return CliRunner().invoke(build_cli(wires_of(open_darkroom=self.open)), ["sign-in", *words])

    def opens(self, address: str) -> OpenedSession:
        async def go() -> OpenedSession:
            async with self.open() as darkroom:
                return await sign_in_by_link(darkroom, address.strip().rpartition("/")[2])

        return asyncio.run(go())

    def forgets(self, user_id: int) -> None:
        async def go() -> None:
            async with self.open() as darkroom:
                await forget_me(darkroom, user_id=user_id)

        asyncio.run(go())


@pytest.fixture
def desk(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("DARKROOM_MODE", "demo")
    return Desk(dsn, tmp_path)


def test_a_link_for_each_way_to_name_a_customer(desk: Desk) -> None:
    known = desk.customer()
    for words in (
        ("--telegram-user", str(known.telegram_user_id)),
        ("--user", str(known.user_id)),
    ):
        said = desk.types(*words)
        assert said.exit_code == 0, said.output
        (line,) = said.stdout.splitlines()
        assert desk.opens(line).user_id == known.user_id
    invited = [desk.opens(desk.types("--email", "Ann@example.com").stdout) for _ in range(2)]
    assert invited[0].user_id == invited[1].user_id != known.user_id


def test_who_is_not_named_or_not_there_gets_no_link(desk: Desk) -> None:
    known = desk.customer()
    desk.forgets(known.user_id)
    for words, code in (
        ((), 2),
        (("--email", "a@example.com", "--user", "1"), 2),
        (("--email", "nobody"), 1),
        (("--telegram-user", "1"), 1),
        (("--user", "999"), 1),
        (("--user", str(known.user_id)), 1),
    ):
        said = desk.types(*words)
        assert (said.exit_code, said.stdout) == (code, ""), said.output


def test_what_a_command_logs_is_not_its_output(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line of `darkroom sign-in` in a pipe was a log line."""
    known = desk.customer()
    before = structlog.get_config()
    try:
        # As in a process that has only begun: what logs before anybody said where to.
        structlog.reset_defaults()
        said = desk.types("--user", str(known.user_id))
        get_logger("flow").error("odd")
    finally:
        structlog.configure(**before)
    assert said.stdout.count("\n") == 1
    assert "odd" not in capsys.readouterr().out
