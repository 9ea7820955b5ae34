"""core/lifecycle.py is the page; the database, the flow and docs/flow.md say the same."""

import importlib
import itertools
from pathlib import Path

import pytest
from scripts.print_flow import print_flow

from darkroom.core.lifecycle import MOVES, NEW, STATUSES, TABLES, Kind
from darkroom.db.database import DatabaseRefusedError
from tests.shop import Shop

KINDS: tuple[Kind, ...] = ("payment", "job", "task", "refund", "delivery")


def _statuses(kind: Kind) -> list[str]:
    return [status.name for status in STATUSES if status.kind == kind]


async def test_the_page_and_the_database_list_the_same_moves(shop: Shop) -> None:
    rows = await shop.rows("SELECT kind, from_status, to_status FROM legal_move")
    stored = {(row["kind"], row["from_status"], row["to_status"]) for row in rows}
    assert stored == {(move.kind, move.source, move.target) for move in MOVES}
    assert len(stored) == len(MOVES), "a move is listed twice"


@pytest.mark.parametrize("kind", KINDS)
async def test_of_all_ordered_pairs_exactly_the_listed_ones_pass(shop: Shop, kind: Kind) -> None:
    """Negative space: even typed into psql, an unlisted move fails."""
    table = TABLES[kind]
    async with shop.database.connection() as tx:
        await tx.execute(f"CREATE TABLE sample (id BIGINT, status TEXT)".encode())  # noqa: F541
        await tx.execute(
            f"CREATE TRIGGER t AFTER INSERT OR UPDATE OF status ON sample "
            f"FOR EACH ROW EXECUTE FUNCTION log_move('{kind}')".encode()
        )
        trigger = await (
            await tx.execute(
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = %s",
                [f"{table}_log_move"],
            )
        ).fetchone()
    assert trigger is not None, f"{table} has no such trigger"
    assert f"log_move('{kind}')" in trigger[0]
    passed: set[tuple[str, str]] = set()
    names = _statuses(kind)
    for source, target in itertools.product([NEW, *names], names):
        if source == target:
            continue
        try:
            async with shop.database.transaction() as tx:
                if source == NEW:
                    await tx.execute("INSERT INTO sample VALUES (1, %s)", [target])
                else:
                    await tx.execute("ALTER TABLE sample DISABLE TRIGGER t")
                    await tx.execute("INSERT INTO sample VALUES (1, %s)", [source])
                    await tx.execute("ALTER TABLE sample ENABLE TRIGGER t")
                    await tx.execute("UPDATE sample SET status = %s", [target])
                await tx.execute("DELETE FROM sample")
            passed.add((source, target))
        except DatabaseRefusedError:
            continue
    assert passed == {(move.source, move.target) for move in MOVES if move.kind == kind}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_table_takes_exactly_the_statuses_of_the_page(shop: Shop, kind: Kind) -> None:
    """bugbook E20: a status was any text, and whoever filtered by it knew some of them."""
    definition = await shop.value(
        "SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid "
        "WHERE t.relname = %s AND c.contype = 'c' AND c.conname = t.relname || '_status_check'",
        TABLES[kind],
    )
    assert {part for part in definition.split("'")[1::2]} == set(_statuses(kind))  # noqa: C416


def test_every_status_can_be_entered_and_every_passing_one_left() -> None:
    entered = {(move.kind, move.target) for move in MOVES}
    left = {(move.kind, move.source) for move in MOVES}
    for status in STATUSES:
        assert (status.kind, status.name) in entered
        if status.longest_stay_seconds is not None:
            assert (status.kind, status.name) in left, f"{status.name} is a dead end"


def test_each_flow_file_names_the_moves_the_page_gives_it() -> None:
    given: dict[str, set[str]] = {}
    for move in MOVES:
        for name in move.by.split():
            given.setdefault(name, set()).add(f"{move.kind}: {move.source} -> {move.target}")
    for name, moves in given.items():
        module = importlib.import_module(f"darkroom.flow.{name}")
        assert set(module.MOVES_MADE) == moves, name
    for path in Path("src/darkroom/flow").glob("*.py"):
        if "MOVES_MADE" in path.read_text():
            assert path.stem in given, f"{path.stem} names moves that the page does not give it"


def test_the_printed_page_has_not_drifted() -> None:
    assert Path("docs/flow.md").read_text() == print_flow(), "run make flow"
