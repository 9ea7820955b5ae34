"""Rounds for hosting that has a clock but no workers. Missed, doubled or overlapping: no matter."""

import hmac
import time
from collections import Counter
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.edges.api import Joined
from darkroom.edges.envelope import success
from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.flow.check_bucket import check_bucket
from darkroom.flow.delete_selfies import delete_selfies
from darkroom.flow.erase_pictures import erase_pictures
from darkroom.flow.errors import unauthorized
from darkroom.flow.forget_me import forget_leavers
from darkroom.flow.reconcile import reconcile_today
from darkroom.flow.return_unused import return_unused_money
from darkroom.flow.steps import WORK_STEPS
from darkroom.flow.sweep import sweep
from darkroom.flow.sweep_bucket import sweep_bucket
from darkroom.kit.log import get_logger

log = get_logger("edges")

ROUND_SECONDS: Final = 25
"""When no new round is begun. A serverless call lives 60 s, and a round in flight may take the 30 s of its
slowest call: it is let finish, because a creation that is cut off may have to be paid twice."""


def require_cron_secret(request: Request) -> None:
    """Only whoever knows CRON_SECRET. Closed when it is unset. Raises RequestRefusedError 401."""
    secret: str | None = request.app.state.cron_secret
    given = request.headers.get("authorization", "")
    if not secret or not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
        raise unauthorized()


router = APIRouter(prefix="/api/cron", tags=["cron"], dependencies=[Depends(require_cron_secret)])


@router.get("/poll-kie-tasks")
async def poll_kie_tasks(darkroom: Joined) -> JSONResponse:
    """Rounds of every working step until nothing is due or the time is up. Nothing in flight is cut off."""
    done: Counter[str] = Counter()
    ends = time.monotonic() + ROUND_SECONDS
    moving = True
    while moving and time.monotonic() < ends:
        moving = False
        for step in WORK_STEPS:
            if time.monotonic() >= ends:
                break
            try:
                found = await step.run(darkroom)
            except (DatabaseUnavailableError, RowBusyError, DatabaseRefusedError):
                # The next step may still move others; what failed is due again.
                log.exception("round failed", step=step.name)
                found = 0
            done[step.name] += found
            moving = moving or found > 0
    return success(dict(done))


@router.get("/sweep")
async def sweep_round(darkroom: Joined) -> JSONResponse:
    """One bounded round of asking, forgetting and erasing."""
    return success(
        {
            "asked": await ask_silent_payments(darkroom),
            "unused": await return_unused_money(darkroom),
            "swept": await sweep(darkroom),
            "reconciled": await reconcile_today(darkroom),
            "selfies": await delete_selfies(darkroom),
            "forgotten": await forget_leavers(darkroom),
            "erased": await erase_pictures(darkroom),
            "checked": await check_bucket(darkroom),
            "unneeded": await sweep_bucket(darkroom),
        }
    )
