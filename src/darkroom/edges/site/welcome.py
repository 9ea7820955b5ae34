"""What anybody sees: the welcome, the terms, the language, and the files that pages are made of."""

from dataclasses import dataclass

from fastapi import APIRouter, Response
from markupsafe import Markup
from starlette.responses import RedirectResponse

from darkroom.brand import Brand, Locale, PageName
from darkroom.brand_rules import fill_placeholders
from darkroom.core.catalog import Tier
from darkroom.edges.sessions import set_session
from darkroom.edges.site.frame import Site, Visit, local_path
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.selfies import first_person
from darkroom.flow.errors import not_found
from darkroom.flow.read_policy import read_promised
from darkroom.flow.read_sets import read_catalog, read_sets
from darkroom.flow.sign_in import open_demo_session, set_locale
from darkroom.flow.ways_to_pay import ways_to_pay

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
async def welcome(visit: Seen, site: Framed) -> Response:
    """What is sold, shown rather than told."""
    catalog = await read_catalog(site.darkroom)
    has_sets = visit.session is not None and bool(
        await read_sets(site.darkroom, user_id=visit.user_id, before_id=None, limit=1)
    )
    currency = _currency(site, visit)
    return site.render(
        visit,
        "welcome.html",
        catalog=catalog,
        has_sets=has_sets,
        currency=currency,
        pairs=_pairs(site.brand),
        cheapest=_cheapest(list(catalog.tiers), currency),
        promised=await read_promised(site.darkroom),
    )


def _currency(site: Site, visit: Visit) -> str:
    """What prices are shown in: that of the first way to pay from here."""
    ways = ways_to_pay(site.darkroom, inside_telegram=visit.inside_telegram)
    return ways[0].currency if ways else "RUB"


@dataclass(frozen=True, slots=True)
class Pair:
    """A selfie and what came of it."""

    before: str | None
    photos: tuple[str, ...]


PAIRS_MAX = 2
PHOTOS_OF_PAIR = 2


def _pairs(brand: Brand) -> list[Pair]:
    """The first selfies of the brand, each with photos of different styles."""
    by_selfie: dict[str | None, dict[str, str]] = {}
    for example in brand.examples:
        by_selfie.setdefault(example.before, {}).setdefault(example.style, example.file)
    return [
        Pair(before, tuple(by_style.values())[:PHOTOS_OF_PAIR])
        for before, by_style in list(by_selfie.items())[:PAIRS_MAX]
    ]


def _cheapest(tiers: list[Tier], currency: str) -> int | None:
    prices = [tier.prices[currency] for tier in tiers if currency in tier.prices]
    return min(prices, default=None)


@router.post("/start")
async def start(visit: Seen, site: Framed) -> Response:
    """Begin, or go on. In demo mode whoever has not signed in becomes a new customer."""
    if visit.session is not None:
        return site.go(visit, f"/avatars/{await first_person(site, visit, visit.user_id)}")
    if not site.demo:
        return site.go(visit, "/sign-in?next=/avatars")
    opened = await open_demo_session(site.darkroom, None)
    await set_locale(site.darkroom, user_id=opened.user_id, locale=visit.locale)
    answer = site.go(visit, f"/avatars/{await first_person(site, visit, opened.user_id)}")
    set_session(answer, opened, framed=False, secure=site.is_secure)
    return answer


@router.get("/language/{locale}")
async def choose_language(
    locale: str,
    visit: Seen,
    site: Framed,
    next: str | None = None,  # noqa: A002 - the address's own word
) -> Response:
    """Another language from here on, in this browser and for what the account is told."""
    if locale not in ("ru", "en"):
        raise not_found("language")
    chosen: Locale = "en" if locale == "en" else "ru"
    if visit.session is not None:
        await set_locale(site.darkroom, user_id=visit.user_id, locale=chosen)
    answer = RedirectResponse(local_path(next), 303, {"Cache-Control": "no-store"})
    site.keep_language(answer, chosen)
    return answer


@router.get("/terms")
async def terms(visit: Seen, site: Framed) -> Response:
    """What a buyer agrees to."""
    return await _legal(visit, site, "terms")


@router.get("/privacy")
async def privacy(visit: Seen, site: Framed) -> Response:
    """What becomes of personal data."""
    return await _legal(visit, site, "privacy")


async def _legal(visit: Visit, site: Site, name: PageName) -> Response:
    promised = await read_promised(site.darkroom)
    policy = promised.text.ru if visit.locale == "ru" else promised.text.en
    html = fill_placeholders(site.brand.page(name, visit.locale), {"policy": policy})
    return site.render(visit, "legal.html", name=name, html=Markup(html))  # noqa: S704 - rendered from the seller's Markdown, with HTML off
