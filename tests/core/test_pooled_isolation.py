"""Without sessions of our own, what needs one snapshot or one transaction still gets it."""

import pytest

from darkroom.core.audit import run_audit
from darkroom.core.people import create_avatar, ensure_user
from darkroom.core.progress import read_progress
from darkroom.db.database import Database


async def test_a_snapshot_can_be_asked_for_behind_a_pooler(dsn: str) -> None:
    database = Database(dsn, prepare_statements=False)
    await database.open()
    assert (await run_audit(database)).clean
    async with database.transaction() as tx:
        assert await read_progress(tx, [1]) == {}
        level = await (await tx.execute("SHOW transaction_isolation")).fetchone()
        limit = await (await tx.execute("SHOW lock_timeout")).fetchone()
    assert (level, limit) == (("repeatable read",), ("5s",))
    await database.close()


@pytest.mark.parametrize("prepare", [True, False], ids=["sessions", "pooler"])
async def test_what_breaks_in_the_middle_leaves_nothing(
    dsn: str,
    prepare: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """bugbook G22: BEGIN and COMMIT went to different sessions, and nothing between them was one step."""

    class BreaksError(Exception):
        pass

    database = Database(dsn, prepare_statements=prepare)
    await database.open()

    async def break_in_the_middle() -> None:
        async with database.transaction() as tx:
            user_id = await ensure_user(tx, 1)
            await create_avatar(tx, user_id=user_id, name="Me")
            # Another use of the pool, while ours is in the middle, sees nothing of it and ends nothing.
            assert await database.fetch_value("SELECT count(*) FROM users") == 0
            raise BreaksError

    with pytest.raises(BreaksError):
        await break_in_the_middle()
    assert await database.fetch_value("SELECT count(*) FROM users") == 0
    assert await database.fetch_value("SELECT count(*) FROM avatars") == 0
    await database.close()


async def test_a_frozen_host_tells_each_transaction_its_limits(dsn: str) -> None:
    """A pooler that knows prepared statements: what the session was told went to one of its connections."""
    database = Database(dsn, check_before_use=True, pool_size=2)
    await database.open()
    async with database.connection() as other:
        await other.execute("SET lock_timeout = 0")
        await other.execute("SET idle_in_transaction_session_timeout = 0")
    for way in (database.transaction, database.statement):
        async with way() as tx:
            shown = await (await tx.execute("SHOW lock_timeout")).fetchone()
            idle = await (await tx.execute("SHOW idle_in_transaction_session_timeout")).fetchone()
        assert (shown, idle) == (("5s",), ("10s",))
    await database.close()
