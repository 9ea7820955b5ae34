"""A day, and a night's backlog, at a shop with a long past: no statement reads, sorts or passes over that past.

Every statement that the story and the steps send is planned blind to its parameters, run, and counted
(`tests/plans`):
the claims, the renewals, the gallery, progress, payments, budgets, sweeping, evidence, and whatever comes next.
"""

import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.core.budget import set_window
from darkroom.flow.check_bucket import audit_bucket
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS
from tests.crash import story
from tests.crash.vanishing import Crash, World
from tests.past import fill_past, open_backlog
from tests.plans import PlanBook, WatchedDatabase
from tests.shop import Shop, open_shop

LARGER: Final = {
    "bucket.summarise_checks": (10**9, "a person's command counts all photos there are"),
    "spend.read_spend": (10**9, "reads the days that a person asks for, 400 in the story"),
    "bucket.list_findings": (
        1000,
        "shows what is wrong: here every photo of the past, whose bytes never were",
    ),
    "ledger.open_span": (10_000, "the span of a daily look, two weeks of payments"),
    "ledger._note_missing": (10_000, "as above"),
    "attempts.close_abandoned": (6000, "calls under way, as many as the provider takes at once"),
    "refunds.refund_providers_waited_for": (4000, "refunds that are open, once a minute"),
    "tasks.count_dying_links": (4000, "counts what it tells"),
    "budget.view_budgets": (4000, "counts what waits for each provider, once in half a minute"),
    "tasks.alarm_dying_links": (2000, "a batch of a thousand, found and marked"),
    "erasing.list_erasable": (1000, "chooses among a thousand"),
    "erasing.list_owners_of_buried_selfies": (
        2000,
        "as above, and looks for each whether it is used",
    ),
    "credits.store_reading": (6000, "calls under way, as above"),
    "history.forget_old_history": (2000, "a sweep's batch, found and deleted"),
    "credits.forget_readings": (1000, "a sweep's batch"),
    "settle_jobs.settle_whole_jobs": (200, "the photos of a batch of sets"),
    "payments.list_idle_orders": (
        1000,
        "paid orders that wait for a selfie, which is looked for order by order",
    ),
    "unused.list_forgotten": (
        2000,
        "money that nobody uses, of two weeks at most: then it goes back",
    ),
    "unused.list_unreminded": (2000, "as above"),
}
"""What may touch more rows of one table than a batch, how many, and why."""
NEEDED: Final = {
    "idx_kie_tasks_turn": "submit",
    "idx_kie_tasks_due": "poll",
    "idx_generation_jobs_due": "finish",
    "idx_inbox_due": "notice",
    "idx_refunds_status_due": "refund",
    "idx_mail_outbox_due": "mail",
    "idx_payments_due": "ask",
    "idx_payments_idle": "sweep",
    "idx_idempotency_keys_created": "sweep",
    "idx_credit_readings_time": "balances",
}
"""Indexes, and the step that reads too much without."""
STEPS: Final = {step.name: step for step in (*WORK_STEPS, *HOUSE_STEPS)}


def _clone(server: str, template: str, name: str) -> str:
    name = f"darkroom_{name}_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template))
        )
    return name


def _drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture(scope="module")
def past(server: str, template: str) -> Generator[str]:
    """A database with a past, to be cloned."""
    name = _clone(server, template, "past")
    fill_past(make_conninfo(server, dbname=name))
    yield name
    _drop(server, name)


@pytest.fixture
def old_dsn(server: str, past: str) -> Generator[str]:
    """A clone of it for one test."""
    name = _clone(server, past, "old")
    yield make_conninfo(server, dbname=name)
    _drop(server, name)


class _WatchedWorld(World):
    """A world whose processes send every statement through one book."""

    def __init__(self, dsn: str, server: str, folder: Path, book: PlanBook) -> None:
        self.book = book
        super().__init__(dsn, server, folder, Crash())

    @asynccontextmanager
    async def open_shop(self) -> AsyncGenerator[Shop]:
        """As the world's, watched."""
        database = WatchedDatabase(self.dsn, self.book, pool_size=8)
        await database.open()
        try:
            async with open_shop(
                database, self.folder, provider=self.provider, bank=self.bank
            ) as shop:
                # The past stays: the story's rounds go on until none finds anything.
                shop.darkroom = replace(shop.darkroom, history_days=story.LONG_DAYS)
                yield shop
        finally:
            await database.close()


async def _audit_some(darkroom: Darkroom, *, limit: int | None) -> object:
    """The past's photos were never stored: they are looked at, and their absence says nothing here."""
    await audit_bucket(darkroom, limit=limit or 20)
    return SimpleNamespace(clean=True, rows=[])


@asynccontextmanager
async def _watched_shop(dsn: str, folder: Path) -> AsyncGenerator[tuple[Shop, PlanBook]]:
    book = PlanBook()
    database = WatchedDatabase(dsn, book, pool_size=8)
    await database.open()
    async with open_shop(database, folder) as shop:
        yield shop, book
    await database.close()


def test_a_day_reads_nothing_of_a_long_past(
    old_dsn: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bugbook H19: lists without a limit, and foreign keys without an index."""
    monkeypatch.setattr(story, "audit_bucket", _audit_some)
    book = PlanBook()
    told = _WatchedWorld(old_dsn, server, tmp_path, book)
    try:
        story.tell(told, Crash())
    finally:
        told.close()
    assert book.unread == []
    assert len({look.text for look in book.looks}) > 250, "the story sends more than that"
    assert not (found := book.beyond(LARGER)), "\n".join(found)


async def test_twin_without_an_index_a_days_reading_of_the_past_is_seen(
    old_dsn: str, tmp_path: Path
) -> None:
    with psycopg.connect(old_dsn, autocommit=True) as one:
        one.execute("DROP INDEX idx_reference_photos_avatar")
    async with _watched_shop(old_dsn, tmp_path) as (shop, book):
        await shop.customer()
    assert any("selfies.find_generation" in found for found in book.beyond(LARGER))


@pytest.mark.parametrize("window_requests", [None, 1000])
async def test_a_backlog_is_taken_in_batches_and_never_sorted(
    old_dsn: str, tmp_path: Path, window_requests: int | None
) -> None:
    """A night without a worker: thousands of rows are due, and each round touches its batch.

    At a provider of whose creations nothing is counted, and at one with a window.
    """
    open_backlog(old_dsn)
    async with _watched_shop(old_dsn, tmp_path) as (shop, book):
        shop.provider.window_requests = window_requests
        async with shop.database.transaction() as tx:
            await set_window(tx, shop.provider.account, requests=window_requests, seconds=10)
        for step in STEPS.values():
            count = await step.run(shop.darkroom)
            if step in WORK_STEPS:
                assert count >= shop.darkroom.limits.batch, f"{step.name} found no backlog"
        assert book.unread == []
        assert not (found := book.beyond(LARGER)), "\n".join(found)


async def test_twin_without_its_index_each_step_reads_its_whole_table(
    old_dsn: str, tmp_path: Path
) -> None:
    """The guards removed, one after the other."""
    open_backlog(old_dsn)
    with psycopg.connect(old_dsn, autocommit=True) as one:
        for index, step in NEEDED.items():
            row = one.execute("SELECT pg_get_indexdef(%s::REGCLASS)", [index]).fetchone()
            assert row is not None
            one.execute(SQL("DROP INDEX {}").format(Identifier(index)))
            async with _watched_shop(old_dsn, tmp_path) as (shop, book):
                await STEPS[step].run(shop.darkroom)
            assert book.beyond(LARGER), f"{step} does not need {index}"
            one.execute(row[0].encode())
