"""Rounds for hosting that has a clock but no workers. Missed, doubled or overlapping: no matter."""

import hmac

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from darkroom.edges.api import Joined
from darkroom.edges.envelope import success
from darkroom.edges.queue_door import Queue
from darkroom.flow.errors import unauthorized
from darkroom.flow.work_in_calls import house_rounds, work_in_call, work_rounds


async def require_cron_secret(request: Request, darkroom: Joined, queue: Queue) -> None:
    """Only whoever knows CRON_SECRET, and the queue's own schedules, signed for exactly this address.

    Closed when neither is configured. A signed call may be repeated for five minutes: one more round.

    Raises:
        RequestRefusedError: 401.
    """
    secret: str | None = request.app.state.cron_secret
    given = request.headers.get("authorization", "")
    if secret and hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
        return
    if not await queue.lets_in(request, f"{darkroom.base_url}{request.url.path}"):
        raise unauthorized()


router = APIRouter(prefix="/api/cron", tags=["cron"], dependencies=[Depends(require_cron_secret)])


@router.post("/poll-kie-tasks")
@router.get("/poll-kie-tasks")
async def poll_kie_tasks(request: Request, darkroom: Joined) -> JSONResponse:
    """Rounds of every working step until nothing is due or the time is up. No call that costs is cut off."""
    work = work_in_call if request.app.state.serverless else work_rounds
    return success(dict(await work(darkroom)))


@router.post("/sweep")
@router.get("/sweep")
async def sweep_round(darkroom: Joined) -> JSONResponse:
    """One bounded round of asking, forgetting and erasing: how much each step found."""
    return success(dict(await house_rounds(darkroom)))
