"""What a customer does with a photo: likes it best, or has it made again."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from darkroom.edges.api import Joined, Key, UserId, request_id_of
from darkroom.edges.envelope import success
from darkroom.edges.fields import Id
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.views import Viewer
from darkroom.flow.favorites import mark_favorite
from darkroom.flow.redo_photo import redo_photo

router = APIRouter(prefix="/api/photos", route_class=SignedInRoute, tags=["photos"])


@router.put("/{photo_id}/favorite")
async def mark(photo_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Mark a photo as one of the best. Harmless twice."""
    photo = await mark_favorite(darkroom, user_id=user_id, photo_id=photo_id, favorite=True)
    return success(Viewer(user_id, darkroom.links).photo(photo))


@router.delete("/{photo_id}/favorite")
async def unmark(photo_id: Id, user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Take the mark away. Harmless twice."""
    photo = await mark_favorite(darkroom, user_id=user_id, photo_id=photo_id, favorite=False)
    return success(Viewer(user_id, darkroom.links).photo(photo))


@router.post("/{photo_id}/redo", status_code=201)
async def redo(photo_id: Id, user_id: UserId, darkroom: Joined, key: Key = None) -> JSONResponse:
    """Have a photo made again for free, as the policy allows. The same Idempotency-Key gives the same job."""
    started = await redo_photo(
        darkroom,
        user_id=user_id,
        photo_id=photo_id,
        request_id=request_id_of("redo", user_id, key),
    )
    return success({"jobId": started.job_id, "paymentId": started.payment_id}, 201)
