"""The outside queue gave up on a message: its job is made due by ourselves, and a person is told."""

from typing import Final

from prometheus_client import Counter

from darkroom.core.inbox import InboxMessage, close_message, hold_message
from darkroom.core.jobs import find_job_status, ring_job
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

_OPEN: Final = frozenset({"pending", "processing"})

QUEUE_FAILURES = Counter(
    "darkroom_queue_failures_total",
    "Messages that the outside queue gave up on: rung, job_ended, no_job.",
    ["outcome"],
)


async def take_queue_failure(darkroom: Darkroom, message: InboxMessage) -> None:
    """Make the job due whose message was given up, once. Of a job that ended it is only noted.

    The alarm is logged before the commit: a crash there logs it twice and never not at all. Money and photos
    do not depend on it: the job's own rows are due by themselves, and settle at their deadline.
    """
    given_up = message.payload
    async with darkroom.database.transaction() as tx:
        if not await hold_message(tx, message):
            return
        outcome = await _ring(tx, given_up["job_id"])
        tell = log.info if outcome == "job_ended" else log.error
        tell(
            "queue gave up on a delivery",
            outcome=outcome,
            job_id=given_up["job_id"],
            status=given_up["status"],
            retried=given_up["retried"],
            queue_message_id=given_up["message_id"],
            dlq_id=given_up["dlq_id"],
        )
        await close_message(tx, message, outcome=outcome)
        await checkpoint("notice.queue_failure_before_commit")
    QUEUE_FAILURES.labels(outcome).inc()
    await darkroom.doorbell.wake()


async def _ring(tx: Connection, job_id: int | None) -> str:
    status = None if job_id is None else await find_job_status(tx, job_id)
    if job_id is None or status is None:
        return "no_job"
    if status not in _OPEN:
        return "job_ended"
    await ring_job(tx, job_id)
    return "rung"
