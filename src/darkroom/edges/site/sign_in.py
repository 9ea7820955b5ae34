"""Signing in on the web: by a one-time link; in demo mode by a press of a button."""

from typing import Annotated

from fastapi import APIRouter, Form, Response

from darkroom.edges.fields import parse_id
from darkroom.edges.identity import COOKIE
from darkroom.edges.sessions import clear_session, set_session
from darkroom.edges.site.frame import Site, Visit, local_path
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.sign_in import open_demo_session, set_locale, sign_out
from darkroom.flow.sign_in_by_link import ask_sign_in_link, peek_sign_in_link, sign_in_by_link

router = APIRouter(include_in_schema=False, route_class=PageRoute)

FIELD_MAX = 300
"""An address has 254 characters at most; what is longer is refused as a form gone wrong."""
Field = Annotated[str, Form(max_length=FIELD_MAX)]
PATH_MAX = 500
"""Our longest address has half of that."""
GONE = 410


@router.get("/sign-in")
async def form(visit: Seen, site: Framed, next: str | None = None) -> Response:  # noqa: A002 - the address's own word
    """Where to send the link. Whoever is signed in goes on."""
    if visit.session is not None:
        return site.go(visit, local_path(next, "/sets"))
    return _form(site, visit, next_path=_next_of(next))


def _form(
    site: Site,
    visit: Visit,
    *,
    next_path: str,
    email: str = "",
    wrong: RequestRefusedError | None = None,
) -> Response:
    return site.render(
        visit,
        "sign_in.html",
        status=200 if wrong is None else wrong.status,
        next=next_path,
        by_mail=site.darkroom.mailer is not None,
        email=email,
        wrong=None if wrong is None else f"error.{wrong.code}",
    )


def _next_of(given: str | None) -> str:
    """Where they were going; what is too long to be an address of ours is not kept."""
    path = local_path(given, "/sets")
    return path if len(path) <= PATH_MAX else "/sets"


@router.post("/sign-in")
async def ask(
    visit: Seen,
    site: Framed,
    email: Field,
    next: Annotated[str, Form()] = "/sets",  # noqa: A002 - the form's own word
) -> Response:
    """Send a link. The answer is the same whether the address is known or not."""
    going = _next_of(next)
    try:
        await ask_sign_in_link(site.darkroom, email=email, locale=visit.locale, next_path=going)
    except RequestRefusedError as error:
        if error.code not in ("INVALID_EMAIL", "TOO_MANY_LINKS"):
            raise
        return _form(site, visit, next_path=going, email=email, wrong=error)
    minutes = round(site.darkroom.limits.sign_in_link_seconds / 60)
    return site.render(visit, "sign_in_sent.html", email=email.strip(), minutes=minutes)


@router.post("/sign-in/demo")
async def enter_demo(
    visit: Seen,
    site: Framed,
    telegram_id: Field = "",
    next: Field = "/sets",  # noqa: A002 - the form's own word
) -> Response:
    """Demo mode only: come in as a new customer, or as the one with this Telegram number."""
    if not site.demo:
        raise RequestRefusedError(404, "NOT_FOUND", "No such page")
    try:
        number = parse_id(telegram_id.strip()) if telegram_id.strip() else None
    except ValueError as error:
        raise RequestRefusedError(400, "INVALID_REQUEST", "No such number") from error
    answer = site.go(visit, local_path(next, "/sets"))
    opened = await open_demo_session(site.darkroom, number)
    await set_locale(site.darkroom, user_id=opened.user_id, locale=visit.locale)
    set_session(answer, opened, framed=False, secure=site.is_secure)
    return answer


@router.get("/sign-in/{token}")
async def confirm(token: str, visit: Seen, site: Framed) -> Response:
    """A button, not a sign-in: programs that look into mail open every link in it."""
    link = await peek_sign_in_link(site.darkroom, token)
    if link is None:
        return site.render(visit, "link_over.html", status=GONE)
    # Whose it is stands there: a link may have been sent by somebody who wants selfies in an account of theirs.
    return site.render(
        visit,
        "sign_in_confirm.html",
        token=token,
        whose=link.whose,
        next=local_path(link.next_path, "/sets"),
    )


@router.post("/sign-in/{token}")
async def enter(
    token: str,
    visit: Seen,
    site: Framed,
    next: Annotated[str, Form()] = "/sets",  # noqa: A002 - the form's own word
) -> Response:
    """Use the link. It works once."""
    try:
        opened = await sign_in_by_link(site.darkroom, token)
    except RequestRefusedError as error:
        if error.status != GONE:
            raise
        return site.render(visit, "link_over.html", status=GONE)
    before = visit.request.cookies.get(COOKIE)
    if before:
        await sign_out(site.darkroom, before)
    answer = site.go(visit, _next_of(next))
    set_session(answer, opened, framed=False, secure=site.is_secure)
    return answer


@router.post("/sign-out")
async def leave(visit: Seen, site: Framed) -> Response:
    """End this session. Harmless twice."""
    token = visit.request.cookies.get(COOKIE)
    if token:
        await sign_out(site.darkroom, token)
    answer = site.go(visit, "/")
    clear_session(answer)
    return answer
