"""Choosing a style and a size, agreeing, and going to pay."""

import hashlib
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Form, Response
from pydantic import BaseModel, Field

from darkroom.core.avatars import AvatarView
from darkroom.core.catalog import Tier
from darkroom.edges.fields import Id, Name, OptionalId, OptionalName
from darkroom.edges.site.frame import PageKey, Site, Visit
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.order_photos import Consent, OrderRequest, order_photos
from darkroom.flow.read_avatars import read_avatars
from darkroom.flow.read_policy import read_promised
from darkroom.flow.read_sets import read_catalog, read_payments
from darkroom.flow.ways_to_pay import WayToPay, ways_to_pay

router = APIRouter(include_in_schema=False, route_class=PageRoute)

RECENT_PAYMENTS = 3
"""Whoever comes back from the bank without paying finds the order here; older ones are among the sets."""
EMAIL_MAX = 254


@router.get("/order")
async def page(
    visit: Seen,
    site: Framed,
    avatar: OptionalId = None,
    style: OptionalName = None,
    tier: OptionalName = None,
) -> Response:
    """Styles as pictures, sizes with prices, what is promised, and one button."""
    chosen = await _avatar(site, visit, avatar)
    if chosen is None or chosen.selfies == 0:
        return site.go(visit, "/avatars" if chosen is None else f"/avatars/{chosen.id}")
    catalog = await read_catalog(site.darkroom)
    recent = await read_payments(
        site.darkroom, user_id=visit.user_id, before_id=None, limit=RECENT_PAYMENTS
    )
    ways = ways_to_pay(site.darkroom, inside_telegram=visit.inside_telegram)
    tiers = _payable(list(catalog.tiers), ways)
    styles = [one.id for one in catalog.styles]
    return site.render(
        visit,
        "order.html",
        avatar=chosen,
        catalog=catalog,
        tiers=tiers,
        ways=ways,
        currency=ways[0].currency if ways else "RUB",
        currencies={way.currency for way in ways},
        style_id=style if style in styles else next(iter(styles), None),
        tier_id=_preferred(tiers, tier),
        promised=await read_promised(site.darkroom),
        waiting=[payment for payment in recent if payment.status == "pending"],
        known_email=visit.session.email if visit.session is not None else None,
        key=uuid4().hex,
    )


class OrderForm(BaseModel):
    """What the page sends. `key` is the form's own: pressed twice, it is one order."""

    avatar: Id
    style: Name
    tier: Name
    key: PageKey
    way: OptionalName = None
    email: str = Field("", max_length=EMAIL_MAX)
    consent: str = Field("", max_length=8)

    @property
    def request_key(self) -> str:
        """The same press twice is one order; another choice on the same page is another one."""
        wish = "/".join((str(self.avatar), self.style, self.tier, self.way or "", self.email))
        return f"page-{self.key}-{hashlib.sha256(wish.encode()).hexdigest()[:16]}"


@router.post("/order")
async def order(visit: Seen, site: Framed, form: Annotated[OrderForm, Form()]) -> Response:
    """Place the order, and go to its payment. What was agreed to is kept with it."""
    user_id = visit.user_id
    if form.consent != "yes":
        raise RequestRefusedError(400, "CONSENT_NEEDED", "The terms were not accepted")
    payment = await order_photos(
        site.darkroom,
        OrderRequest(
            user_id=user_id,
            tier_id=form.tier,
            provider=form.way,
            avatar_id=form.avatar,
            style_id=form.style,
            idempotency_key=form.request_key,
            request_id=uuid4(),
            receipt_email=form.email.strip() or None,
            consent=Consent(site.brand.terms_sha256(visit.locale), visit.locale),
            inside_telegram=visit.inside_telegram,
        ),
    )
    return site.go(visit, f"/payments/{payment.id}?go=1")


async def _avatar(site: Site, visit: Visit, avatar_id: int | None) -> AvatarView | None:
    avatars = await read_avatars(site.darkroom, user_id=visit.user_id)
    if avatar_id is None:
        with_selfies = [avatar for avatar in avatars if avatar.selfies]
        return (with_selfies or avatars or [None])[-1]
    found = next((avatar for avatar in avatars if avatar.id == avatar_id), None)
    if found is None:
        raise not_found("avatar")
    return found


def _payable(tiers: list[Tier], ways: tuple[WayToPay, ...]) -> list[Tier]:
    """The sizes that have a price in the currency of each way: another way must not take one away."""
    currencies = {way.currency for way in ways}
    return [tier for tier in tiers if currencies <= tier.prices.keys()] if ways else []


def _preferred(tiers: list[Tier], wanted: str | None) -> str | None:
    by_id = {tier.id: tier for tier in tiers}
    if wanted in by_id:
        return wanted
    popular = next((tier.id for tier in tiers if tier.is_popular), None)
    return popular or next(iter(by_id), None)
