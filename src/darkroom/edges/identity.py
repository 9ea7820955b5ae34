"""Who asks: signed init data, or a session made from it. Never an id in a body, except in demo mode."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute

from darkroom.core.sessions import SessionView
from darkroom.edges.fields import parse_id
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, unauthorized
from darkroom.flow.read_back import know_user
from darkroom.flow.sign_in import know_person, read_session, whose_session
from darkroom.kit.log import get_logger
from darkroom.ports.identity import IdentityCheck, NotSignedError, Person

log = get_logger("edges")

DEMO_FIELD: Final = "telegramUserId"
COOKIE: Final = "darkroom_session"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN_MAX: Final = 200


class Identity:
    """Finds the user of a request.

    `Authorization: tma <init data>`, `Authorization: Bearer <session>`, or the session's cookie. In demo
    mode a bare `telegramUserId` (query, or a JSON body) is enough; the gate has made sure that the request
    comes from this machine. Nothing else lets it in.
    """

    def __init__(self, darkroom: Darkroom, *, check: IdentityCheck | None, demo: bool) -> None:
        self._darkroom = darkroom
        self._check = check
        self._demo = demo

    async def user_of(self, request: Request) -> int:
        """Our user id. Raises RequestRefusedError 401."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "tma":
            return await know_person(self._darkroom, self.person_of(request))
        if scheme.lower() == "bearer":
            return await self._from_session(value.strip())
        if scheme:
            raise unauthorized()
        cookie = request.cookies.get(COOKIE)
        if cookie is not None:
            refuse_foreign_page(request)
            return await self._from_session(cookie)
        if self._demo:
            return await self._from_bare_id(request)
        raise unauthorized()

    def person_of(self, request: Request) -> Person:
        """Who signed the init data of this request. Raises RequestRefusedError 401."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "tma" or self._check is None:
            raise unauthorized()
        try:
            return self._check.check(value.strip())
        except NotSignedError as error:
            log.warning("init data refused", reason=str(error))
            raise unauthorized() from error

    async def session_of(self, token: str) -> SessionView | None:
        """A live session, by the token that a browser holds."""
        if not 0 < len(token) <= TOKEN_MAX or not token.isascii():
            return None
        return await read_session(self._darkroom, token)

    async def _from_session(self, token: str) -> int:
        if not 0 < len(token) <= TOKEN_MAX or not token.isascii():
            raise unauthorized()
        user_id = await whose_session(self._darkroom, token)
        if user_id is None:
            raise unauthorized()
        return user_id

    async def _from_bare_id(self, request: Request) -> int:
        given = request.query_params.get(DEMO_FIELD)
        named = given if given is not None else await _id_in_body(request)
        try:
            telegram_user_id = parse_id(named)
        except ValueError as error:
            raise unauthorized() from error
        return await know_user(self._darkroom, telegram_user_id)


async def _id_in_body(request: Request) -> object:
    if "json" not in request.headers.get("content-type", ""):
        # An upload may have 30 MB; nobody reads it only to look for a name.
        return None
    try:
        body: Any = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    return cast("dict[str, object]", body).get(DEMO_FIELD)


def refuse_foreign_page(request: Request) -> None:
    """A cookie comes along with whatever page asks: only our own pages may change things with it.

    Raises:
        RequestRefusedError: 401 FOREIGN_PAGE. Every browser of today names the page that sends a form (Origin).
    """
    if request.method in SAFE_METHODS:
        return
    darkroom: Darkroom = request.app.state.darkroom
    ours = {request.headers.get("host"), urlsplit(darkroom.base_url).netloc}
    try:
        origin = urlsplit(request.headers.get("origin", "")).netloc
    except ValueError:
        origin = ""
    if not origin or origin not in ours:
        raise RequestRefusedError(401, "FOREIGN_PAGE", "Please open the page again")


class SignedInRoute(APIRoute):
    """A route that asks who it is before it looks at the body: 401 comes before 400."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride] - Coroutine and Awaitable
        """Put the identity first."""
        handle = super().get_route_handler()

        async def signed_in(request: Request) -> Response:
            identity: Identity = request.app.state.identity
            request.state.user_id = await identity.user_of(request)
            return await handle(request)

        return signed_in


async def user_id_of(request: Request) -> int:
    """The user that SignedInRoute found.

    A coroutine, as every dependency here: FastAPI has others called in a thread, which cost each request 4 %.
    """
    user_id: int | None = getattr(request.state, "user_id", None)
    if user_id is None:
        raise RequestRefusedError(401, "UNAUTHORIZED", "Sign in to continue")
    return user_id
