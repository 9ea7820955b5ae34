"""Forgetting what nobody needs any more, in bounded rounds."""

from darkroom.db.database import Connection


async def forget_idempotency_keys(tx: Connection, *, older_than_days: int, limit: int) -> int:
    """Drop old request keys, at most `limit` a round. What they made stays."""
    swept = await tx.execute(
        "DELETE FROM idempotency_keys WHERE (user_id, scope, key) IN ("
        "SELECT user_id, scope, key FROM idempotency_keys "
        "WHERE created_at < (SELECT darkroom_now()) - make_interval(days => %s) LIMIT %s)",
        [older_than_days, limit],
    )
    return swept.rowcount
