"""Signing in and out."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from darkroom.edges.api import Joined
from darkroom.edges.envelope import success
from darkroom.edges.identity import COOKIE, Identity
from darkroom.flow.sign_in import sign_in, sign_out

router = APIRouter(prefix="/api", tags=["customer"])


@router.post("/session", status_code=201)
async def open_session(request: Request, darkroom: Joined) -> JSONResponse:
    """Exchange `Authorization: tma <init data>` for a session: a bearer token, and a cookie."""
    identity: Identity = request.app.state.identity
    opened = await sign_in(darkroom, identity.person_of(request))
    answer = success({"token": opened.token, "expiresInDays": opened.days}, 201)
    answer.set_cookie(
        COOKIE,
        opened.token,
        max_age=opened.days * 86_400,
        httponly=True,
        # Telegram Web shows the Mini App in a frame of another site, which needs both of these.
        secure=True,
        samesite="none",
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.delete("/session", status_code=204)
async def close_session(request: Request, darkroom: Joined) -> Response:
    """End the session that asks. Harmless twice."""
    _, _, bearer = request.headers.get("authorization", "").partition(" ")
    token = bearer.strip() or request.cookies.get(COOKIE, "")
    if token:
        await sign_out(darkroom, token)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, secure=True, samesite="none")
    return answer
