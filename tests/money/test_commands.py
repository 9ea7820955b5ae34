"""The commands about money, as a person at a terminal meets them: exit codes, tables, one clear line."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from darkroom.config import Settings
from darkroom.core.audit import Finding, Report
from darkroom.db.database import Database
from darkroom.edges import books, cli_refunds, terminal
from darkroom.edges.cli import build_cli
from darkroom.edges.terminal import show_report
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.reconcile import GRACE_SECONDS
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.scripted import ScriptedBank
from tests.shop import Shop, open_shop
from tests.wires import wires_of


@dataclass
class Terminal:
    """A shop, and a person who types commands at it."""

    dsn: str
    folder: Path
    bank: ScriptedBank
    payments: bool = True

    def open_shop(self) -> AbstractAsyncContextManager[Shop]:
        """The shop of this test, on a loop that ends with the block."""

        @asynccontextmanager
        async def opened() -> AsyncGenerator[Shop]:
            database = Database(self.dsn)
            await database.open()
            try:
                async with open_shop(database, self.folder, bank=self.bank) as shop:
                    yield shop
            finally:
                await database.close()

        return opened()

    def sell(self) -> int:
        """A payment that we have and the bank has not, old enough to be judged."""

        async def go() -> int:
            async with self.open_shop() as shop:
                payment_id = await shop.paid(await shop.customer())
                await shop.advance(GRACE_SECONDS + 1)
                return payment_id

        return asyncio.run(go())

    def type(self, *words: str) -> Result:
        """A command's output and exit code."""

        @asynccontextmanager
        async def open_darkroom(_settings: Settings) -> AsyncGenerator[Darkroom]:
            async with self.open_shop() as shop:
                yield shop.darkroom if self.payments else replace(shop.darkroom, payments={})

        wires = wires_of(open_darkroom=open_darkroom)
        return CliRunner().invoke(build_cli(wires), list(words))


@pytest.fixture
def at(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    # A console finds its stream when it writes; 80 columns, as the narrowest terminal has.
    monkeypatch.setattr(books, "console", Console(highlight=False, width=80))
    monkeypatch.setattr(terminal, "errors", Console(highlight=False, width=200, stderr=True))
    return Terminal(dsn, tmp_path, ScriptedBank())


def test_differences_are_shown_and_end_with_1_until_they_are_gone(at: Terminal) -> None:
    payment_id = at.sell()
    said = at.type("reconcile")
    assert said.exit_code == 1
    assert "payment missing" in said.stdout
    assert f"pay-{payment_id}" in said.stdout
    assert "499.00 RUB" in said.stdout
    assert max(len(line) for line in said.stdout.splitlines()) <= 80
    assert f"pay-{payment_id}" in at.type("differences", "list").stdout
    at.bank.pays(payment_id)
    said = at.type("reconcile", "--provider", "bank", "--days", "2")
    assert (said.exit_code, "nothing differs" in said.stdout) == (0, True)
    assert "no differences" in at.type("differences", "list").stdout


def test_for_machines(at: Terminal) -> None:
    payment_id = at.sell()
    said = at.type("reconcile", "--json")
    assert said.exit_code == 1
    answer = json.loads(said.stdout)
    assert answer["clean"] is False
    (one,) = answer["providers"]
    assert (one["provider"], one["open"], one["failure"]) == ("bank", 1, None)
    assert one["differences"][0]["payment_id"] == payment_id


def test_younger_moves_wait_as_long_as_one_says(at: Terminal) -> None:
    at.sell()
    assert at.type("reconcile", "--grace-minutes", "60").exit_code == 0


def test_a_bank_that_is_silent_is_said_to_be(at: Terminal) -> None:
    at.bank.silent = True
    said = at.type("reconcile")
    assert said.exit_code == 1
    assert "no answer from bank" in said.stdout
    assert "nothing was closed" in said.stdout


def test_nobody_to_ask_is_one_line_and_2(at: Terminal) -> None:
    said = at.type("reconcile", "--provider", "stars")
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr == "darkroom: no payment provider stars is configured, only bank\n"
    at.payments = False
    said = at.type("reconcile")
    assert said.exit_code == 2
    assert said.stderr == "darkroom: no payment provider is configured: there is no list to read\n"


def test_a_difference_is_closed_with_a_note_and_not_without(at: Terminal) -> None:
    at.sell()
    at.type("reconcile")
    assert at.type("differences", "close", "1").exit_code == 2
    assert at.type("differences", "close", "1", "--note", " ").exit_code == 2
    assert at.type("differences", "close", "1", "--note", "cash").exit_code == 0
    said = at.type("differences", "close", "1", "--note", "cash")
    assert (said.exit_code, said.stderr) == (1, "darkroom: no open difference 1\n")


def test_evidence_is_two_files_and_one_sentence(at: Terminal) -> None:
    payment_id = at.sell()
    folder = at.folder / "dispute"
    said = at.type("evidence", str(payment_id), "--folder", str(folder))
    assert said.exit_code == 0
    assert "Of 499.00 RUB paid: 499.00 RUB still owed." in said.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        f"evidence-{payment_id}.html",
        f"evidence-{payment_id}.json",
    ]
    for unknown in ("77", str(2**63)):
        said = at.type("evidence", unknown, "--folder", str(folder))
        assert said.exit_code == 1
        assert said.stderr == f"darkroom: No such payment: {unknown} (PAYMENT_NOT_FOUND)\n"


ODD = "card [4276/xx] closed, see [/docs] [error]"


def _sql(at: Terminal, statement: LiteralString, *values: object) -> None:
    with psycopg.connect(at.dsn, autocommit=True) as one:
        one.execute(statement, values)


def test_what_others_wrote_is_shown_as_they_wrote_it(at: Terminal) -> None:
    """A bracket in a refusal took the only list of money that waits for a person down, with a stack."""
    payment_id = at.sell()
    assert at.type("refunds", "pay", str(payment_id), "--note", "kind").exit_code == 0
    _sql(at, "UPDATE refunds SET last_error = %s", ODD)
    said = at.type("refunds", "list")
    assert (said.exit_code, said.exception) == (0, None)
    assert " ".join(said.stdout.split()).count("[") == ODD.count("[")
    said = at.type("reconcile", "--provider", "[/red]")
    assert said.exit_code == 2
    assert "[/red]" in said.stderr


def test_a_finding_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The audit ended in a stack where it should have alarmed."""
    finding = Finding("message_stuck", "Never [/b] stuck.", 1, [{"last_error": ODD}])
    show_report(Report((finding,), questions=1, payments=0, completed_tasks=0, photos=0))
    assert ODD in capsys.readouterr().out


def test_a_dead_letter_is_shown_as_its_provider_wrote_it(at: Terminal) -> None:
    async def fail() -> None:
        async with at.open_shop() as shop:
            shop.provider.on_ask = _refuse
            await shop.sold()
            await shop.drain()

    async def _refuse(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "[/INST] no", Again.NEVER)

    asyncio.run(fail())
    said = at.type("dead-letters", "list")
    assert (said.exit_code, said.exception) == (0, None)
    assert "[/INST] no" in said.stdout


def test_a_row_that_somebody_holds_is_one_line(at: Terminal) -> None:
    payment_id = at.sell()
    with psycopg.connect(at.dsn) as other:
        other.execute("SELECT FROM payments FOR UPDATE")
        said = at.type("refunds", "pay", str(payment_id), "--note", "kind")
    assert said.exit_code == 1
    assert said.stderr == "darkroom: somebody else holds this row: nothing was changed, try again\n"


@pytest.mark.parametrize("command", ["pay", "by-hand"])
def test_money_moves_with_a_reason_or_not_at_all(at: Terminal, command: str) -> None:
    """An empty one was taken, and the evidence left the payment out."""
    payment_id = at.sell()
    said = at.type("refunds", command, str(payment_id), "--note", "  ")
    assert said.exit_code == 1
    assert said.stderr == "darkroom: Say why: it stands in the books (NOTE_NEEDED)\n"
    assert "nothing is owed back" in at.type("refunds", "list").stdout


def test_a_list_that_is_cut_says_so(at: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its help promises every one."""
    for _ in range(2):
        at.type("refunds", "pay", str(at.sell()), "--note", "kind")
    _sql(
        at,
        "INSERT INTO differences (provider, kind, subject) "
        "SELECT 'bank', 'unknown_payment', n::TEXT FROM generate_series(1, 2) n",
    )
    for module, words in ((cli_refunds, ["refunds", "list"]), (books, ["differences", "list"])):
        assert "more" not in at.type(*words).stdout
        monkeypatch.setattr(module, "LIST_MAX", 1)
        assert "and more: those above first" in at.type(*words).stdout
