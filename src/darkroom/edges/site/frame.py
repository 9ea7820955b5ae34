"""What every page stands in: who looks, in which language, the frame around the page and its safety headers."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Annotated, Final, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import Request
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from pydantic import BeforeValidator
from starlette.responses import RedirectResponse, Response

from darkroom.brand import LOCALES, Brand, Locale
from darkroom.core.sessions import SessionView
from darkroom.edges.cookies import KeptCookie, cookie_text
from darkroom.edges.fields import parse_name
from darkroom.edges.site.assets import Assets, takes_gzip
from darkroom.edges.site.texts import Texts
from darkroom.flow.customer_texts import amount_text
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import unauthorized
from darkroom.kit.clock import system_clock
from darkroom.ports.money import Money

LANGUAGE_COOKIE: Final = "darkroom_language"
SQUEEZE_FROM_BYTES: Final = 1024
"""Below one packet nothing is won."""
TELEGRAM_SCRIPT: Final = "https://telegram.org"
FRAMED_BY: Final = "https://web.telegram.org https://*.telegram.org"
"""Telegram Web shows Mini Apps in a frame (bugbook F10: DENY kept it out); nobody else may."""
_MONTHS: Final[dict[Locale, str]] = {
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "en": "January February March April May June July August September October November December",
}


def _page_key(value: object) -> str:
    key = parse_name(value)
    if len(key) < PAGE_KEY_MIN:
        raise ValueError("a page's key is longer")
    return key


PAGE_KEY_MIN: Final = 8
PageKey = Annotated[str, BeforeValidator(_page_key)]
"""What a form carries so that two presses are one wish."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody looks at a page.

    Attributes:
        session: None: nobody has signed in.
        by_script: asked by the page's own script, which takes a part of a page or an order to go elsewhere.
    """

    request: Request
    session: SessionView | None
    locale: Locale

    @property
    def user_id(self) -> int:
        """Who it is. Raises RequestRefusedError 401."""
        if self.session is None:
            raise unauthorized()
        return self.session.user_id

    @property
    def inside_telegram(self) -> bool:
        """Whether the session was made from Telegram's init data."""
        return self.session is not None and self.session.origin == "telegram"

    @property
    def by_script(self) -> bool:
        """Whether htmx asks."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def path(self) -> str:
        """Where they are, with its query; of a form's answer, a page that can be asked for."""
        if self.request.method not in ("GET", "HEAD"):
            return "/sets"
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def form_page(self) -> str | None:
        """The page of ours that a form was sent from; None: no form, or the browser does not say."""
        if self.request.method in ("GET", "HEAD"):
            return None
        try:
            came_from = urlsplit(self.request.headers.get("referer", ""))
        except ValueError:
            return None
        path = f"{came_from.path}?{came_from.query}" if came_from.query else came_from.path
        return local_path(path, "") or None


class Site:
    """The pages' frame, built once.

    Args:
        upload_origin: where browsers put selfies directly; None: they send them here.
    """

    def __init__(
        self, darkroom: Darkroom, *, brand: Brand, demo: bool, upload_origin: str | None
    ) -> None:
        self.darkroom = darkroom
        self.brand = brand
        self.demo = demo
        self.sends_directly = upload_origin is not None
        self.is_secure = darkroom.base_url.startswith("https://")
        self.texts = Texts(brand.texts)
        self.assets = Assets(
            {name: file.data for name, file in brand.files.items()}
            | {"brand.css": _colours(brand).encode()}
        )
        self._jinja = Environment(
            loader=DictLoader(_templates()),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._policy = _content_security_policy(upload_origin)

    def render(
        self, visit: Visit, template: str, *, status: int = 200, **values: object
    ) -> Response:
        """A page, or a part of one."""
        html = self._jinja.get_template(template).render(
            **values,
            visit=visit,
            site=self,
            brand=self.brand,
            locale=visit.locale,
            t=partial(self.texts.say, visit.locale),
            money=partial(money, visit.locale),
            money_each=partial(money_each, visit.locale),
            when=partial(when, visit.locale),
            here=visit.path,
            support=partial(support_link, self.brand.support_url),
        )
        return self.html(visit, html, status)

    def html(self, visit: Visit, html: str, status: int = 200) -> Response:
        """Text as a page. Never kept: what was true a minute ago is not the truth."""
        data = html.encode()
        headers = {
            "Content-Security-Policy": self._policy,
            "Cache-Control": "private, no-store",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept-Encoding, HX-Request",
        }
        if len(data) >= SQUEEZE_FROM_BYTES and takes_gzip(visit.request.headers):
            data = gzip.compress(data, 5, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(data, status, headers, "text/html; charset=utf-8")

    def go(self, visit: Visit, path: str) -> Response:
        """Send them to another page of ours, whether a form or the page's script asked."""
        headers = {"Cache-Control": "no-store"}
        if visit.by_script:
            return Response(None, 204, {**headers, "HX-Redirect": path})
        return RedirectResponse(path, 303, headers)

    def toast(self, visit: Visit, key: str, status: int) -> Response:
        """A sentence over the page, which stays as it is."""
        event = json.dumps({"toast": self.texts.say(visit.locale, key)})
        return Response(None, status, {"HX-Trigger": event, "HX-Reswap": "none"})

    def say(self, visit: Visit, key: str, **values: object) -> str:
        """One sentence in the visitor's language."""
        return self.texts.say(visit.locale, key, **values)

    def keep_language(self, answer: Response, locale: Locale) -> None:
        """Remember a language in this browser."""
        answer.headers.append(
            "set-cookie",
            cookie_text(KeptCookie(LANGUAGE_COOKIE, locale, 365), secure=self.is_secure),
        )


def locale_of(request: Request, session: SessionView | None) -> Locale:
    """The language of a visit: chosen here, the account's, the browser's, else Russian."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    for locale in LOCALES:
        if chosen == locale:
            return locale
    if session is not None:
        return "en" if session.locale == "en" else "ru"
    wanted = request.headers.get("accept-language", "")
    ranked = [part.split(";")[0].strip().lower()[:2] for part in wanted.split(",")]
    for language in ranked:
        if language in LOCALES:
            return "en" if language == "en" else "ru"
    return "en" if ranked != [""] else "ru"


def local_path(given: str | None, otherwise: str = "/") -> str:
    """A path of ours to go on to; anything that could lead elsewhere is not followed."""
    if given is None or not given.startswith("/") or given.startswith(("//", "/\\")):
        return otherwise
    parts = urlsplit(given)
    safe = not parts.scheme and not parts.netloc and given.isprintable() and "\\" not in given
    return quote(given, safe="/?&=%-._~:,+") if safe else otherwise


class Numbered(Protocol):
    """A row of a list."""

    @property
    def id(self) -> int:
        """Newer rows have greater numbers."""
        ...


Row = TypeVar("Row", bound=Numbered)


def split_page(rows: Sequence[Row], page: int) -> tuple[list[Row], int | None]:
    """What is shown of `page + 1` rows, newest first, and below which number there is more; None: nowhere."""
    shown = list(rows[:page])
    return shown, shown[-1].id if len(rows) > page else None


def support_link(url: str, subject: str | None) -> str:
    """The seller's support address, with what it is about where the address can carry it."""
    if subject is None:
        return url
    name = {"mailto": "subject", "https": "order"}.get(urlsplit(url).scheme, "order")
    if url.startswith("https://t.me/"):
        name = "text"
    return f"{url}{'&' if '?' in url else '?'}{name}={quote(subject)}"


def money(locale: Locale, minor: int, currency: str) -> str:
    """An amount as people write it."""
    text = amount_text(Money(minor, currency))
    return text.ru if locale == "ru" else text.en


def money_each(locale: Locale, minor: int, count: int, currency: str) -> str:
    """What one of `count` costs, as people compare: whole units, or smaller ones where those say nothing."""
    each = minor / count
    coarse = 1 if currency == "XTR" or each < SMALL_MINOR else 100
    return money(locale, max(round(each / coarse) * coarse, 1), currency)


SMALL_MINOR: Final = 1000
"""Below ten units of money the hundredths count."""


def when(
    locale: Locale, moment: datetime, *, always_year: bool = False, now: datetime | None = None
) -> Markup:
    """A moment, with its year where that is another one; the page's script shows it in the reader's zone."""
    utc = moment.astimezone(UTC)
    month = _MONTHS[locale].split()[utc.month - 1]
    is_over = utc.year != (now or system_clock()).year
    year = f" {utc.year}" if always_year or is_over else ""
    text = f"{utc.day} {month}{year}, {utc:%H:%M} UTC"
    mark = Markup(" data-year") if always_year else ""
    return Markup('<time datetime="{}"{}>{}</time>').format(
        utc.isoformat(timespec="seconds"), mark, text
    )


def _templates() -> dict[str, str]:
    folder = files("darkroom").joinpath("web/templates/site")
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".html")
    }


def _content_security_policy(upload_origin: str | None) -> str:
    rules: dict[str, str] = {
        "default-src": "'none'",
        "script-src": f"'self' {TELEGRAM_SCRIPT}",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": " ".join(filter(None, ("'self'", upload_origin))),
        "form-action": "'self'",
        "frame-ancestors": f"'self' {FRAMED_BY}",
        "base-uri": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _colours(brand: Brand) -> str:
    """The brand's colours as custom properties. Every value was checked to be #rrggbb when it was read."""
    light = f"--brand-accent:{brand.accent};--brand-on-accent:{brand.on_accent}"
    dark = f"--brand-accent:{brand.accent_dark};--brand-on-accent:{brand.on_accent_dark}"
    if brand.background is not None:
        light += f";--brand-background:{brand.background}"
    if brand.background_dark is not None:
        dark += f";--brand-background:{brand.background_dark}"
    return (
        f":root{{{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-scheme=light]){{{dark}}}}}"
        f":root[data-scheme=dark]{{{dark}}}"
    )
