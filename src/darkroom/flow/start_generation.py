"""A customer asks for a set: one payment becomes one job. Made here: job new -> pending, task new -> queued.

Two doors lead to the same claim: `POST /api/generate`, and an order whose payment succeeded.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from darkroom.core.catalog import Eligibility, check_eligibility
from darkroom.core.jobs import (
    StartedJob,
    StartRequest,
    find_job_by_request,
    find_started_job,
    start_job,
)
from darkroom.core.requests import find_request, lock_user, remember_request
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import (
    RequestRefusedError,
    key_reused,
    not_found,
    payment_consumed,
    payment_required,
    refuse_without_selfies,
)
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

READ_BACK_LOCK_MS: Final = 10_000
"""How long our own commit may still take after its connection was lost."""
MOVES_MADE: Final = ("job: new -> pending", "task: new -> queued")


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What was asked for. The photo count is not here: it is the payment's."""

    user_id: int
    avatar_id: int
    style_id: str
    payment_id: int | None
    idempotency_key: str | None
    request_id: UUID

    def sha256(self) -> str:
        """The same question, whoever carries it: what an idempotency key is bound to."""
        body = json.dumps([self.avatar_id, self.style_id, self.payment_id])
        return hashlib.sha256(body.encode()).hexdigest()


async def start_generation(darkroom: Darkroom, request: GenerateRequest) -> StartedJob:
    """Start one set on one payment.

    N requests on one payment: one wins, the rest are told PAYMENT_CONSUMED with the job that has the
    money. Whatever is wrong is said before anything is consumed or created. A crash at any point leaves
    either nothing or the whole job; a connection lost at COMMIT is settled by reading back.

    Raises:
        RequestRefusedError: 400, 402, 404 or 409 with its code.
        RowBusyError: another request of this user holds the lock; ask again.
        DatabaseUnavailableError: the database is down.
    """
    async with darkroom.database.connection() as tx:
        eligibility = await check_eligibility(
            tx,
            user_id=request.user_id,
            avatar_id=request.avatar_id,
            style_id=request.style_id,
            payment_id=request.payment_id,
        )
        # After it: the first try of this key may commit between the two looks, and must not refuse the second.
        known = await _known_job(tx, request)
        if known is not None:
            return known
    _refuse_ineligible(darkroom, eligibility, request)
    _refuse_too_many(darkroom, eligibility)
    log.info("Payment validated (available for generation)", user_id=request.user_id)
    await checkpoint("start.before_claim")

    async def claim(tx: Connection) -> StartedJob | None:
        return await _claim(darkroom, tx, request)

    async def read_back(tx: Connection) -> StartedJob | None:
        # Behind the lock: a commit whose acknowledgement was lost may still be under way.
        await lock_user(tx, request.user_id, lock_timeout_ms=READ_BACK_LOCK_MS)
        return await find_job_by_request(tx, request.request_id)

    job = await darkroom.database.settle(claim, read_back=read_back)
    await checkpoint("start.after_commit")
    if job is None:
        raise await _explain(darkroom, request)
    await darkroom.doorbell.ring(job.id, step="submit")
    return job


async def _known_job(tx: Connection, request: GenerateRequest) -> StartedJob | None:
    if request.idempotency_key is None:
        return None
    known = await find_request(
        tx, user_id=request.user_id, scope="generate", key=request.idempotency_key
    )
    if known is None:
        return None
    if known.request_sha256 != request.sha256():
        raise key_reused()
    return await find_started_job(tx, known.row_id)


async def _claim(darkroom: Darkroom, tx: Connection, request: GenerateRequest) -> StartedJob | None:
    limits = darkroom.limits
    if request.idempotency_key is not None:
        await lock_user(tx, request.user_id, lock_timeout_ms=limits.lock_timeout_ms)
        known = await _known_job(tx, request)
        if known is not None:
            return known
    job = await start_job(
        tx,
        StartRequest(
            user_id=request.user_id,
            avatar_id=request.avatar_id,
            style_id=request.style_id,
            payment_id=request.payment_id,
            request_id=request.request_id,
            provider=darkroom.new_tasks_go_to,
            open_jobs_max=limits.open_jobs_max,
        ),
        lock_timeout_ms=limits.lock_timeout_ms,
    )
    if job is not None and request.idempotency_key is not None:
        await remember_request(
            tx,
            user_id=request.user_id,
            scope="generate",
            key=request.idempotency_key,
            request_sha256=request.sha256(),
            row_id=job.id,
        )
    await checkpoint("start.before_commit")
    return job


def _refuse_ineligible(
    darkroom: Darkroom, eligibility: Eligibility, request: GenerateRequest
) -> None:
    if not eligibility.avatar_is_theirs:
        raise not_found("avatar")
    if not eligibility.style_is_active:
        raise not_found("style")
    refuse_without_selfies(
        eligibility.selfies, eligibility.good_selfies, needs_good=darkroom.needs_good_selfie
    )
    if eligibility.payment_is_ready:
        return
    if eligibility.has_paid_before:
        log.info("User has consumed all payments", user_id=request.user_id)
        raise payment_consumed(eligibility.consumed_by_job_id)
    log.info("User has no successful payment", user_id=request.user_id)
    raise payment_required()


def _refuse_too_many(darkroom: Darkroom, eligibility: Eligibility) -> None:
    """A courtesy look; the claim's own statement holds the limit under parallel requests."""
    if eligibility.open_jobs >= darkroom.limits.open_jobs_max:
        raise RequestRefusedError(
            429, "TOO_MANY_OPEN_JOBS", "Please wait until one of your sets is ready"
        )


async def _explain(darkroom: Darkroom, request: GenerateRequest) -> RequestRefusedError:
    """The claim found nothing: what changed since we looked?"""
    async with darkroom.database.connection() as tx:
        now = await check_eligibility(
            tx,
            user_id=request.user_id,
            avatar_id=request.avatar_id,
            style_id=request.style_id,
            payment_id=request.payment_id,
        )
    if now.has_paid_before and not now.payment_is_ready:
        log.info(
            "Payment already consumed (race condition prevented)",
            user_id=request.user_id,
            job_id=now.consumed_by_job_id,
        )
    try:
        _refuse_ineligible(darkroom, now, request)
        _refuse_too_many(darkroom, now)
    except RequestRefusedError as refusal:
        return refusal
    # It became possible in between: the customer's next try will pass.
    return RequestRefusedError(503, "BUSY", "Please try again in a moment")
