"""A customer has their data deleted."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from darkroom.edges.api import Joined, UserId
from darkroom.edges.envelope import success
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.sessions import clear_session
from darkroom.flow.forget_me import forget_me

router = APIRouter(prefix="/api", route_class=SignedInRoute, tags=["customer"])


@router.delete("/me", status_code=202)
async def forget(user_id: UserId, darkroom: Joined) -> JSONResponse:
    """Delete the caller's pictures and personal data, now or when nothing paid for is open; sign them out."""
    await forget_me(darkroom, user_id=user_id)
    answer = success({"forgetting": True}, 202)
    clear_session(answer)
    return answer
