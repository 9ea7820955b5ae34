"""A customer's links for others: make one, see them, end one."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from darkroom.edges.api import Joined, Key, UserId, request_id_of
from darkroom.edges.envelope import success
from darkroom.edges.fields import Id, OptionalId
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.views import time_text
from darkroom.flow.share_photos import (
    LIVE_SHARES_MAX,
    SHARE_DAYS_MAX,
    ShareView,
    end_share,
    read_shares,
    share,
)

router = APIRouter(prefix="/api", route_class=SignedInRoute, tags=["photos"])


class ShareBody(BaseModel):
    """`POST /api/jobs/{id}/shares`. Without a photo the whole set is shown."""

    model_config = ConfigDict(extra="ignore")

    telegram_user_id: Any = Field(
        None, alias="telegramUserId", description="identity in demo mode only"
    )
    photo_id: OptionalId = Field(None, alias="photoId")
    days: Annotated[int, Field(strict=True, ge=1, le=SHARE_DAYS_MAX)] = 7


@router.post("/jobs/{job_id}/shares", status_code=201)
async def make(
    job_id: Id, body: ShareBody, user_id: UserId, darkroom: Joined, key: Key = None
) -> JSONResponse:
    """Make a link that shows a set, or one photo of it, to whoever holds it. At most 50 live ones."""
    made = await share(
        darkroom,
        user_id=user_id,
        job_id=job_id,
        photo_id=body.photo_id,
        days=body.days,
        request_id=request_id_of("share", user_id, key),
    )
    return success(_share(made), 201)


@router.get("/shares")
async def show(user_id: UserId, darkroom: Joined) -> JSONResponse:
    """The caller's links that still open something, newest first."""
    shares = await read_shares(darkroom, user_id=user_id)
    return success({"shares": [_share(one) for one in shares], "sharesMax": LIVE_SHARES_MAX})


@router.delete("/shares/{share_id}")
async def end(share_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """End a link: from now on it opens nothing. Harmless twice."""
    await end_share(darkroom, user_id=user_id, share_id=share_id)
    return success({"shareId": share_id, "ended": True})


def _share(one: ShareView) -> dict[str, Any]:
    return {
        "shareId": one.id,
        "jobId": one.job_id,
        "photoId": one.photo_id,
        "url": one.url,
        "createdAt": time_text(one.created_at),
        "expiresAt": time_text(one.expires_at),
    }
