"""Deliveries of the outside queue: each message has its effect once."""

import hashlib
from typing import Final

from darkroom.db.database import Connection

MESSAGE_ID_MAX: Final = 255
"""The column's width, which operators' scripts know."""


async def accept_message(tx: Connection, message_id: str) -> bool:
    """Record the message in the transaction of its effect. False: it had its effect before.

    A concurrent delivery of the same message waits here until the first one commits or rolls back.
    An id longer than the column is known by its hash.
    """
    if len(message_id) > MESSAGE_ID_MAX:
        message_id = "sha256:" + hashlib.sha256(message_id.encode()).hexdigest()
    recorded = await tx.execute(
        "INSERT INTO qstash_processed_messages (message_id) VALUES (%s) ON CONFLICT DO NOTHING",
        [message_id],
    )
    return recorded.rowcount == 1


async def sweep_messages(tx: Connection, *, older_than_days: int, limit: int) -> int:
    """Forget old message ids, at most `limit` a round."""
    swept = await tx.execute(
        "DELETE FROM qstash_processed_messages WHERE id IN ("
        "SELECT id FROM qstash_processed_messages "
        "WHERE created_at < (SELECT darkroom_now()) - make_interval(days => %s) "
        "ORDER BY created_at LIMIT %s)",
        [older_than_days, limit],
    )
    return swept.rowcount
