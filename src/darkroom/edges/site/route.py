"""A page's route: who looks is found first, and whatever is refused is said to a person, on a page."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from darkroom.core.requests import UserLeftError
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.edges.identity import COOKIE, SAFE_METHODS, Identity, refuse_foreign_page
from darkroom.edges.site.frame import Site, Visit, locale_of
from darkroom.flow.errors import RequestRefusedError, unauthorized
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError

log = get_logger("edges")

_BUSY: Final = (
    DatabaseUnavailableError,
    DatabaseRefusedError,
    RowBusyError,
    StorageUnavailableError,
    TimeoutError,
)
_UNAUTHORIZED, _NOT_FOUND, _NOT_ALLOWED, _UNAVAILABLE = 401, 404, 405, 503


class PageRoute(APIRoute):
    """A route whose answers are pages, the refusals too. What can be got can be asked for its head alone."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(path, endpoint, **given)
        if self.methods is not None and "GET" in self.methods:
            self.methods.add("HEAD")

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride] - Coroutine and Awaitable
        """Put the visit first and the refusals last."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            site: Site = request.app.state.site
            visit = Visit(request, None, locale_of(request, None))
            try:
                # Also of pages that need nobody: a foreign page must not sign anybody in.
                if request.method not in SAFE_METHODS:
                    refuse_foreign_page(request)
                visit = request.state.visit = await _look(request)
                return await handle(request)
            except Exception as error:  # noqa: BLE001 - _refuse raises again what is no refusal
                return _refuse(site, visit, error)

        return page


def _refuse(site: Site, visit: Visit, error: Exception) -> Response:
    match error:
        case RequestRefusedError():
            return refused(site, visit, error)
        case UserLeftError():
            return refused(site, visit, unauthorized())
        case RequestValidationError():
            # An address with a number that is none leads nowhere; a form with one is a form gone wrong.
            status, code = (
                (_NOT_FOUND, "NOT_FOUND")
                if visit.request.method in SAFE_METHODS
                else (400, "INVALID_REQUEST")
            )
            return refused(site, visit, RequestRefusedError(status, code, code))
        case HTTPException():
            code = {413: "TOO_LARGE", 404: "NOT_FOUND"}.get(error.status_code, "ANY")
            return refused(site, visit, RequestRefusedError(error.status_code, code, code))
        case _ if isinstance(error, _BUSY):
            log.warning("answered 503", error=type(error).__name__)
            return refused(site, visit, RequestRefusedError(_UNAVAILABLE, "BUSY", "busy"))
        case _:
            raise error


def refused(site: Site, visit: Visit, error: RequestRefusedError) -> Response:
    """Say no to a person: sign in first, nothing here, one moment, or a sentence about what is wrong."""
    if error.status == _UNAUTHORIZED and error.code == "UNAUTHORIZED":
        back = (
            visit.path if visit.request.method in SAFE_METHODS and not visit.by_script else "/sets"
        )
        return site.go(visit, f"/sign-in?next={quote(back)}")
    key = f"error.{error.code}"
    if key not in site.texts.keys:
        key = "error.not_found_text" if error.status == _NOT_FOUND else "error.ANY"
    if visit.by_script:
        return site.toast(visit, key, error.status)
    comes_again = error.status == _UNAVAILABLE and visit.request.method in SAFE_METHODS
    answer = site.render(
        visit,
        "refused.html",
        status=error.status,
        title=_title(error),
        key="error.busy_text" if comes_again else key,
        back=None if error.status == _NOT_FOUND else visit.form_page,
    )
    if error.status == _UNAVAILABLE:
        answer.headers["Retry-After"] = "2"
    if comes_again:
        answer.headers["Refresh"] = "3"
    return answer


def _title(error: RequestRefusedError) -> str:
    if error.status == _NOT_FOUND:
        return "error.not_found"
    return "error.busy" if error.code in ("BUSY", "UNAVAILABLE") else "error.title"


async def lost(request: Request, status: int) -> Response | None:
    """A page for a person who looks for one that is not there; None: a program asks, or it is another error."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if status not in (_NOT_FOUND, _NOT_ALLOWED) or not wants_page:
        return None
    if request.url.path.startswith("/api/"):
        return None
    site: Site = request.app.state.site
    visit = Visit(request, None, locale_of(request, None))
    with suppress(*_BUSY):
        visit = await _look(request)
    return refused(site, visit, RequestRefusedError(_NOT_FOUND, "NOT_FOUND", "No such page"))


async def _look(request: Request) -> Visit:
    identity: Identity = request.app.state.identity
    token = request.cookies.get(COOKIE)
    session = None if token is None else await identity.session_of(token)
    return Visit(request, session, locale_of(request, session))


async def _visit(request: Request) -> Visit:
    visit: Visit = request.state.visit
    return visit


async def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


Seen = Annotated[Visit, Depends(_visit)]
Framed = Annotated[Site, Depends(_site)]
