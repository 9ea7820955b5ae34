"""A customer has a photo of a paid set made again, for free: a grant of one photo that starts at once."""

from typing import Final
from uuid import UUID

from darkroom.core.redoes import (
    RedoLook,
    RedoRequest,
    StartedRedo,
    count_redos_left,
    find_redo_by_request,
    look_at_redo,
    start_redo,
)
from darkroom.core.requests import lock_anybody, lock_user
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, key_reused, not_found
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

READ_BACK_LOCK_MS: Final = 10_000
"""How long our own commit may still take after its connection was lost."""
MOVES_MADE: Final = ("payment: new -> succeeded", "job: new -> pending", "task: new -> queued")


async def redo_photo(
    darkroom: Darkroom, *, user_id: int, photo_id: int, request_id: UUID
) -> StartedRedo:
    """Make a photo again with the same prompt and another seed, as the policy it was sold under allows.

    One transaction behind the user's lock writes the payment (provider `grant`, amount 0), its job and its
    task; a unique index says again that a photo is made again once. The first photo stays what it is. A redo
    that fails ends like any free set: no money, and it counts; an operator can replay it. A crash leaves
    nothing or all of it. Harmless twice with the same `request_id`.

    Raises:
        RequestRefusedError: 404; 409 ALREADY_REDONE (`jobId`), SET_NOT_READY or REDO_USED_UP (`left`); 400
            NO_REFERENCE_IMAGES; 429 TOO_MANY_OPEN_JOBS; 409 IDEMPOTENCY_KEY_REUSED.
        UserLeftError: they asked to be forgotten.
        RowBusyError, DatabaseUnavailableError: ask again.
    """

    async def start(tx: Connection) -> StartedRedo:
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        known = await _find_known(tx, user_id=user_id, photo_id=photo_id, request_id=request_id)
        if known is not None:
            return known
        request = RedoRequest(
            user_id=user_id,
            photo_id=photo_id,
            request_id=request_id,
            provider=darkroom.new_tasks_go_to,
            open_jobs_max=darkroom.limits.open_jobs_max,
        )
        started = await start_redo(tx, request)
        if started is None:
            look = await look_at_redo(tx, user_id=user_id, photo_id=photo_id)
            if look is None:
                raise not_found("photo")
            raise _explain(look, open_jobs_max=darkroom.limits.open_jobs_max)
        await checkpoint("redo.before_commit")
        return started

    async def read_back(tx: Connection) -> StartedRedo | None:
        # Behind the lock: a commit whose acknowledgement was lost may still be under way.
        await lock_anybody(tx, user_id, lock_timeout_ms=READ_BACK_LOCK_MS)
        return await _find_known(tx, user_id=user_id, photo_id=photo_id, request_id=request_id)

    redo = await darkroom.database.settle(start, read_back=read_back)
    await checkpoint("redo.after_commit")
    log.info("photo is made again", photo_id=photo_id, job_id=redo.job_id)
    await darkroom.doorbell.ring(redo.job_id)
    return redo


async def _find_known(
    tx: Connection, *, user_id: int, photo_id: int, request_id: UUID
) -> StartedRedo | None:
    known = await find_redo_by_request(tx, request_id)
    if known is None:
        return None
    if (known.user_id, known.redoes_photo_id) != (user_id, photo_id) or known.job_id is None:
        raise key_reused()
    return StartedRedo(known.job_id, known.payment_id)


def _explain(look: RedoLook, *, open_jobs_max: int) -> RequestRefusedError:
    if look.redo_job_id is not None:
        return RequestRefusedError(
            409, "ALREADY_REDONE", "This photo was made again already", jobId=look.redo_job_id
        )
    if look.set_is_open:
        return RequestRefusedError(
            409, "SET_NOT_READY", "Please wait until the photo's own set is ready"
        )
    if look.left == 0:
        return RequestRefusedError(
            409, "REDO_USED_UP", "No photo of this set can be made again for free", left=0
        )
    if look.selfies == 0:
        return RequestRefusedError(400, "NO_REFERENCE_IMAGES", "Add at least one photo of yourself")
    if look.open_jobs >= open_jobs_max:
        return RequestRefusedError(
            429, "TOO_MANY_OPEN_JOBS", "Please wait until one of your sets is ready"
        )
    # It became possible in between: the customer's next try will pass.
    return RequestRefusedError(503, "BUSY", "Please try again in a moment")


async def redos_left(darkroom: Darkroom, *, user_id: int, job_id: int) -> int:
    """How many photos of a set its customer may still have made again for free. A look, not a promise.

    0 for a free set, and for one whose price went back whole. Raises RequestRefusedError 404.
    """
    async with darkroom.database.connection() as tx:
        left = await count_redos_left(tx, user_id=user_id, job_id=job_id)
    if left is None:
        raise not_found("job")
    return left
