"""What was logged of orders that nobody can dispute any more is forgotten, in bounded rounds."""

from darkroom.core.history import forget_old_history
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint


async def forget_history(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many rows went. Safe at any time, any number of times, by anyone.

    A crash before the commit leaves them all and the mark where it was; the next round has them first.
    """
    async with darkroom.database.transaction() as tx:
        gone = await forget_old_history(
            tx, older_than_days=darkroom.history_days, limit=darkroom.limits.sweep_batch
        )
        await checkpoint("history.before_commit")
    return gone.rows
