"""What there is: the catalog for everybody, and a customer's own sets and payments, page by page."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from darkroom.core.sets import SetView
from darkroom.edges.api import Joined, UserId
from darkroom.edges.envelope import success
from darkroom.edges.fields import OptionalId
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.views import payment_json, time_text
from darkroom.flow.read_sets import read_catalog, read_payments, read_sets

router = APIRouter(prefix="/api", tags=["customer"])
own = APIRouter(route_class=SignedInRoute)

Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/catalog")
async def show_catalog(darkroom: Joined) -> JSONResponse:
    """What is sold: sizes with prices in minor units, and styles. No sign-in is needed."""
    catalog = await read_catalog(darkroom)
    return success(
        {
            "tiers": [
                {
                    "tierId": tier.id,
                    "titleRu": tier.title_ru,
                    "titleEn": tier.title_en,
                    "photoCount": tier.photo_count,
                    "isPopular": tier.is_popular,
                    "pricesMinor": tier.prices,
                }
                for tier in catalog.tiers
            ],
            "styles": [
                {
                    "styleId": style.id,
                    "titleRu": style.title_ru,
                    "titleEn": style.title_en,
                    "descriptionRu": style.description_ru,
                    "descriptionEn": style.description_en,
                    "promptCount": style.prompt_count,
                }
                for style in catalog.styles
            ],
        }
    )


@own.get("/jobs")
async def show_jobs(
    user_id: UserId, darkroom: Joined, before: OptionalId = None, limit: Limit = 50
) -> JSONResponse:
    """A page of the caller's sets, newest first; `nextBefore` asks for the next one."""
    sets = await read_sets(darkroom, user_id=user_id, before_id=before, limit=limit)
    following = sets[-1].id if len(sets) == limit else None
    return success({"jobs": [_set(one) for one in sets], "nextBefore": following})


@own.get("/payments")
async def show_payments(
    user_id: UserId, darkroom: Joined, before: OptionalId = None, limit: Limit = 50
) -> JSONResponse:
    """A page of the caller's payments, newest first, with free sets; `nextBefore` asks for the next one."""
    payments = await read_payments(darkroom, user_id=user_id, before_id=before, limit=limit)
    following = payments[-1].id if len(payments) == limit else None
    return success({"payments": [payment_json(one) for one in payments], "nextBefore": following})


def _set(one: SetView) -> dict[str, Any]:
    return {
        "jobId": one.id,
        "avatarId": one.avatar_id,
        "avatarName": one.avatar_name,
        "styleId": one.style_id,
        "styleTitleRu": one.style_title_ru,
        "styleTitleEn": one.style_title_en,
        "status": one.status,
        "totalPhotos": one.total_photos,
        "completedPhotos": one.completed_photos,
        "paymentId": one.payment_id,
        "coverPhotoId": one.cover_photo_id,
        "redoesPhotoId": one.redoes_photo_id,
        "createdAt": time_text(one.created_at),
        "finishedAt": time_text(one.finished_at),
    }


router.include_router(own)
