"""Which connection is used next."""

from contextlib import AsyncExitStack
from itertools import permutations

from darkroom.db.database import Database


async def _pid(database: Database, stack: AsyncExitStack) -> int:
    connection = await stack.enter_async_context(database.connection())
    return connection.info.backend_pid


async def test_the_connection_that_was_opened_first_is_used_next(dsn: str) -> None:
    """In turn, each would learn every statement; the last one back is any of them after a busy moment."""
    database = Database(dsn, pool_size=3)
    await database.open()
    pids: list[int] = []
    async with AsyncExitStack() as stack:
        first = await _pid(database, stack)
    # Three at once, and given back in every order; at first so that the one opened last waits first.
    for order in reversed(list(permutations(range(3)))):
        stacks = [AsyncExitStack() for _ in range(3)]
        pids = [await _pid(database, stack) for stack in stacks]
        assert pids[0] == first
        assert len(set(pids)) == 3
        for place in order:
            await stacks[place].aclose()
        for _ in range(3):
            async with AsyncExitStack() as alone:
                assert await _pid(database, alone) == first
    async with AsyncExitStack() as both:
        assert [await _pid(database, both), await _pid(database, both)] == pids[:2]
    await database.close()
