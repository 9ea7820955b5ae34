"""Signing in and out."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from darkroom.edges.api import Joined
from darkroom.edges.cookies import KeptCookie, cookie_text
from darkroom.edges.envelope import success
from darkroom.edges.identity import COOKIE, Identity
from darkroom.flow.sign_in import OpenedSession, sign_in, sign_out

router = APIRouter(prefix="/api", tags=["customer"])


@router.post("/session", status_code=201)
async def open_session(request: Request, darkroom: Joined) -> JSONResponse:
    """Exchange `Authorization: tma <init data>` for a session: a bearer token, and a cookie."""
    identity: Identity = request.app.state.identity
    opened = await sign_in(darkroom, identity.person_of(request))
    answer = success({"token": opened.token, "expiresInDays": opened.days}, 201)
    # Telegram Web shows the Mini App in a frame of another site.
    set_session(answer, opened, framed=True, secure=True)
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
    clear_session(answer)
    return answer


def set_session(answer: Response, opened: OpenedSession, *, framed: bool, secure: bool) -> None:
    """Let this browser hold the session; no script reads it."""
    cookie = KeptCookie(COOKIE, opened.token, opened.days, framed=framed)
    answer.headers.append("set-cookie", cookie_text(cookie, secure=secure))


def clear_session(answer: Response) -> None:
    """Take the session's cookie away, whichever of the two kinds it was."""
    # Whoever has the device next finds nothing of theirs in its cache.
    answer.headers["Clear-Site-Data"] = '"cache"'
    for framed in (False, True):
        cookie = KeptCookie(COOKIE, "", 0, framed=framed)
        answer.headers.append("set-cookie", cookie_text(cookie, secure=False))
