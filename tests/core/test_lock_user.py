"""The lock that serializes what one customer does: how long it waits, and what it sees after it has waited."""

import asyncio

import pytest

from darkroom.core.requests import UserLeftError, lock_anybody, lock_user
from darkroom.db.database import RowBusyError
from tests.shop import Shop


async def test_it_waits_as_long_as_it_was_told_and_no_longer(shop: Shop) -> None:
    """The limit is set by the same statement that waits: the session's own would be 5 s."""
    customer = await shop.customer()
    database = shop.darkroom.database
    async with database.transaction() as first:
        await lock_user(first, customer.user_id, lock_timeout_ms=1000)
        async with asyncio.timeout(4):
            with pytest.raises(RowBusyError):
                async with database.transaction() as second:
                    await lock_user(second, customer.user_id, lock_timeout_ms=50)


async def test_the_limit_is_gone_with_its_transaction(shop: Shop) -> None:
    customer = await shop.customer()
    async with shop.darkroom.database.connection() as one:
        before = await (await one.execute("SHOW lock_timeout")).fetchone()
        async with one.transaction():
            await lock_user(one, customer.user_id, lock_timeout_ms=123)
            inside = await (await one.execute("SHOW lock_timeout")).fetchone()
        after = await (await one.execute("SHOW lock_timeout")).fetchone()
    assert inside == ("123ms",)
    assert after == before == ("5s",)


async def test_who_left_while_it_waited_has_left(shop: Shop) -> None:
    """What it returns is read again when the lock is given, not from the snapshot before the wait."""
    customer = await shop.customer()
    database = shop.darkroom.database

    async def wait() -> bool:
        async with database.transaction() as second:
            return await lock_anybody(second, customer.user_id, lock_timeout_ms=4000)

    async with database.transaction() as first:
        await lock_user(first, customer.user_id, lock_timeout_ms=1000)
        waiting = asyncio.create_task(wait())
        async with asyncio.timeout(3):
            while not await shop.value(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ):
                await asyncio.sleep(0)
        await first.execute(
            "UPDATE users SET forget_at = darkroom_now(), telegram_user_id = NULL, email = NULL WHERE id = %s",
            [customer.user_id],
        )
    assert await waiting


async def test_nobody_begins_anything_for_who_left(shop: Shop) -> None:
    customer = await shop.customer()
    async with shop.darkroom.database.transaction() as tx:
        await tx.execute(
            "UPDATE users SET forget_at = darkroom_now(), telegram_user_id = NULL, email = NULL WHERE id = %s",
            [customer.user_id],
        )
    with pytest.raises(UserLeftError):
        async with shop.darkroom.database.transaction() as tx:
            await lock_user(tx, customer.user_id, lock_timeout_ms=1000)
