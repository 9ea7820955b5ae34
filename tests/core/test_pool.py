"""Which connection is used next."""

from contextlib import AsyncExitStack

from darkroom.db.database import Database


async def _pid(database: Database, stack: AsyncExitStack) -> int:
    connection = await stack.enter_async_context(database.connection())
    return connection.info.backend_pid


async def test_the_connection_given_back_last_is_used_next(dsn: str) -> None:
    """In turn, each would have to learn every statement, and unlearn none of them."""
    database = Database(dsn, pool_size=3)
    await database.open()
    stacks = [AsyncExitStack() for _ in range(3)]
    first, second, third = [await _pid(database, stack) for stack in stacks]
    assert len({first, second, third}) == 3
    for stack in (stacks[0], stacks[1], stacks[2]):
        await stack.aclose()
    for _ in range(3):
        async with AsyncExitStack() as alone:
            assert await _pid(database, alone) == third
    async with AsyncExitStack() as both:
        assert [await _pid(database, both), await _pid(database, both)] == [third, second]
    await database.close()
