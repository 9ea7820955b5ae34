"""Without sessions of our own, what needs one snapshot still gets one."""

from darkroom.core.audit import run_audit
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
