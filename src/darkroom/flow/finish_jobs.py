"""A set whose photos are all decided is settled: its end, and what goes back, in one transaction.

Most sets have all their photos. Of those nothing goes back, and all that are due end by one statement; the
others take one transaction each.

Where a provider cannot pay back a part, the policy decides: the whole price, or the missing photos again.
"""

from collections.abc import Sequence
from typing import Final

from darkroom.core.jobs import JobClaim, claim_due_jobs
from darkroom.core.settle_jobs import Settlement, settle_job, settle_whole_jobs
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.rounds import work_on_each
from darkroom.flow.tell_customer import tell_it_is_made_again
from darkroom.flow.tell_watchers import tell_watchers
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.payments import RefundForms

log = get_logger("flow")

MOVES_MADE: Final = (
    "job: processing -> completed",
    "job: processing -> partial",
    "job: processing -> failed",
    "job: pending -> failed",
    "job: pending -> processing",
    "task: queued -> failed",
    "task: submitting -> failed",
    "task: unknown -> failed",
    "task: pending -> failed",
    "task: storing -> failed",
    "refund: new -> requested",
    "payment: new -> succeeded",
)


async def finish_due_jobs(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many jobs were claimed.

    A job is due when its last task ended, and at its deadline in any case: with every doorbell off it
    still ends. A crash leaves it due.
    """
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        jobs = await claim_due_jobs(tx, limit=limits.batch, lease_seconds=limits.lease_seconds)
    if not jobs:
        return 0
    await checkpoint("finish.claimed")

    settled = await _settle_whole(darkroom, jobs)
    whole_only = [
        name for name, one in darkroom.payments.items() if one.refund_forms is RefundForms.WHOLE
    ]

    async def finish(job: JobClaim) -> None:
        async with darkroom.database.transaction() as tx:
            settlement = await settle_job(tx, job, whole_only=whole_only)
            if settlement is not None and settlement.again_payment_id is not None:
                await tell_it_is_made_again(
                    darkroom,
                    tx,
                    user_id=job.user_id,
                    payment_id=settlement.payment_id,
                    photo_count=settlement.total - settlement.delivered,
                )
            await checkpoint("finish.before_commit")
        await checkpoint("finish.after_commit")
        if settlement is not None:
            await tell_watchers(darkroom, [job.id])
            _log_settled(settlement)

    rest = [job for job in jobs if job.id not in settled]
    await work_on_each("finish", darkroom.leases, "job", rest, finish)
    return len(jobs)


async def _settle_whole(darkroom: Darkroom, jobs: Sequence[JobClaim]) -> set[int]:
    """The jobs that this ended. Raises nothing of the database: who is left over is asked about one by one."""
    try:
        async with darkroom.database.statement() as tx:
            settlements = await settle_whole_jobs(tx, jobs)
    except (DatabaseRefusedError, DatabaseUnavailableError, RowBusyError) as error:
        # Perhaps because of one of them: the others must not pay for it. What was committed and not heard of is
        # found ended.
        log.warning("whole jobs not settled together", error=type(error).__name__)
        return set()
    await checkpoint("finish.whole_after_commit")
    if not settlements:
        return set()
    settled = {settlement.job_id for settlement in settlements}
    await tell_watchers(darkroom, settled)
    for settlement in settlements:
        _log_settled(settlement)
    return settled


def _log_settled(settlement: Settlement) -> None:
    log.info(
        "job settled",
        job_id=settlement.job_id,
        status=settlement.status,
        delivered=settlement.delivered,
        total=settlement.total,
        refund_minor=settlement.refund_minor,
    )
