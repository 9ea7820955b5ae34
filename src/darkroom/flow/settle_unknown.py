"""Tasks whose provider may or may not have them.

First the facts: an answer that another worker wrote, a callback that was adopted. Then, when the grace
is over, one more attempt, up to the limit. No call to the outside is made here.
"""

from typing import Final

from darkroom.core.attempts import hold_attempt, record_lost
from darkroom.core.lapsed import (
    LapsedTask,
    list_due_unknown,
    move_unknown,
    settle_lapsed_submitting,
)
from darkroom.core.tasks import fail_task
from darkroom.db.database import DatabaseRefusedError, RowBusyError
from darkroom.flow.darkroom import Darkroom, attempts_allowed, fallback_of
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

MOVES_MADE: Final = (
    "task: submitting -> unknown",
    "task: submitting -> pending",
    "task: submitting -> queued",
    "task: unknown -> pending",
    "task: unknown -> queued",
    "task: unknown -> failed",
)


async def settle_unknown_tasks(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many tasks were looked at. Every move is one statement.

    A crash leaves each task where it was or where it goes.
    """
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        lapsed = await settle_lapsed_submitting(
            tx,
            limit=limits.batch,
            grace_seconds=limits.unknown_grace_seconds,
            idempotent_providers=[
                name for name, one in darkroom.generation.items() if one.create_is_idempotent
            ],
        )
    await checkpoint("settle.lapsed")
    async with darkroom.database.connection() as tx:
        due = await list_due_unknown(tx, limit=limits.batch)
    for task in due:
        try:
            await _settle(darkroom, task)
        except (DatabaseRefusedError, RowBusyError):
            # One task that cannot be settled now must not stop those behind it.
            log.exception("unknown task not settled", task_id=task.id)
    return lapsed + len(due)


async def _settle(darkroom: Darkroom, task: LapsedTask) -> None:
    provider = darkroom.generation.get(task.provider)
    # Where creating twice costs nothing, an unanswered attempt cost nothing either.
    costs = provider is None or not provider.create_is_idempotent
    used_up = costs and task.paid_attempts >= attempts_allowed(darkroom, task.attempts_forgiven)
    fallback = fallback_of(darkroom, task.provider) if used_up else None
    async with darkroom.database.transaction() as tx:
        # Locked: an adoption either came before this, and is seen, or comes after, and finds a failed task.
        known = await hold_attempt(tx, task.attempt_id)
        if known is None:
            await record_lost(tx, task.attempt_id, "no answer, and no callback within the grace")
        if known is None and used_up and fallback is None:
            await fail_task(
                tx,
                task_id=task.id,
                job_id=task.job_id,
                claim=task.claim,
                source="unknown",
                code="NO_ANSWER",
                text="the provider never answered, and every attempt is used",
            )
        else:
            await move_unknown(tx, task, provider=fallback)
    await checkpoint("settle.after_commit")
