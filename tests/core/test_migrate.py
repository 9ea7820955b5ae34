"""Migrations: forward only, safe twice and by two processes at once, by their exact names."""

import asyncio

import psycopg
import pytest

from darkroom.db import migrate as migrate_module
from darkroom.db.database import Database
from darkroom.db.migrate import (
    Migration,
    MigrationChangedError,
    TableBusyError,
    list_migrations,
    migrate,
)
from tests.shop import Shop

TABLES = (
    "users",
    "avatars",
    "reference_photos",
    "payments",
    "generation_jobs",
    "kie_tasks",
    "generated_photos",
    "qstash_processed_messages",
    "telegram_message_queue",
    "generation_dead_letter_queue",
)


async def test_twice_and_at_once_applies_each_file_once(empty_database: Database) -> None:
    said: list[str] = []
    counts = await asyncio.gather(*(migrate(empty_database, said.append) for _ in range(4)))
    assert sum(counts) == len(list_migrations())
    assert await migrate(empty_database) == 0
    assert "✓ Migration 030 complete" in said
    assert len(said) == len(set(said))


async def test_an_edited_file_stops_the_next_run(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bugbook B3: the schema drifted and idempotency was silently off for 17 days."""
    await migrate(empty_database)
    edited = [Migration(m.version, m.name, m.sql + "\n-- edited") for m in list_migrations()]
    monkeypatch.setattr(migrate_module, "list_migrations", lambda: edited)
    with pytest.raises(MigrationChangedError, match="001_people"):
        await migrate(empty_database)


async def test_a_table_that_somebody_reads_is_asked_for_again(
    shop: Shop, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit or a dump beside an upgrade: it ended, with a stack."""
    new = Migration(999, "odd", "SET LOCAL lock_timeout = '50ms'; ALTER TABLE users ADD odd INT;")
    monkeypatch.setattr(migrate_module, "list_migrations", lambda: [new])
    said: list[str] = []
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM users")

        def report(line: str) -> None:
            said.append(line)
            if len(said) == 2:
                reader.rollback()

        assert await migrate(shop.database, report) == 1
    waits = "… Migration 999 waits: somebody reads its table"
    assert said == [waits, waits, "✓ Migration 999 complete"]


async def test_a_table_that_somebody_reads_for_ever_ends_it(
    shop: Shop, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Migration(999, "odd", "SET LOCAL lock_timeout = '5ms'; ALTER TABLE users ADD odd INT;")
    monkeypatch.setattr(migrate_module, "list_migrations", lambda: [new])
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM users")
        with pytest.raises(TableBusyError):
            await migrate(shop.database)


async def test_the_names_operators_know_exist_exactly(shop: Shop) -> None:
    tables = {
        row["relname"]
        for row in await shop.rows("SELECT relname FROM pg_class WHERE relkind = 'r'")
    }
    assert set(TABLES) <= tables
    constraint = await shop.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'fk_payment_unique'"
    )
    assert constraint == "UNIQUE (payment_id)"
    indexes = {
        row["indexname"]: row["indexdef"]
        for row in await shop.rows("SELECT indexname, indexdef FROM pg_indexes")
    }
    assert indexes["idx_payments_consumed"].endswith(
        "(user_id, generation_consumed, created_at DESC) WHERE (generation_consumed = false)"
    )
    assert indexes["idx_qstash_cleanup"].endswith("(created_at)")
    columns = await shop.rows(
        "SELECT column_name, data_type, character_maximum_length AS length, is_nullable "
        "FROM information_schema.columns WHERE table_name = 'qstash_processed_messages' "
        "ORDER BY ordinal_position"
    )
    assert [column["column_name"] for column in columns] == [
        "id",
        "message_id",
        "processed_at",
        "created_at",
    ]
    assert (columns[1]["data_type"], columns[1]["length"], columns[1]["is_nullable"]) == (
        "character varying",
        255,
        "NO",
    )


def test_numbers_are_in_order_and_the_operators_two_are_kept() -> None:
    names = {migration.version: migration.name for migration in list_migrations()}
    assert names[30] == "one_payment_one_generation"
    assert names[31] == "queue_messages_once"
    for migration in list_migrations():
        first = next(
            line for line in migration.sql.splitlines() if line and not line.startswith("--")
        )
        assert first == "SET LOCAL lock_timeout = '5s';", migration.name
