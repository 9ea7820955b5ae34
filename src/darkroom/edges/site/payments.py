"""Money: waiting for it, what became of it, and the receipt."""

from typing import Annotated
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Form, Response

from darkroom.core.payments import PaymentView
from darkroom.edges.fields import Id, Name, OptionalId, OptionalName
from darkroom.edges.site.frame import Site, Visit, money, split_page
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.sure import YES, Sure, ask_first
from darkroom.edges.site.truth import (
    RefundLine,
    is_moving,
    is_returning,
    mark,
    payment_line,
    refund_lines,
)
from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import open_checkout
from darkroom.flow.read_avatars import read_avatars
from darkroom.flow.read_back import read_payment
from darkroom.flow.read_policy import read_promised
from darkroom.flow.read_sets import read_catalog, read_payments, read_refunds_of
from darkroom.flow.start_generation import GenerateRequest, start_generation

router = APIRouter(include_in_schema=False, route_class=PageRoute, prefix="/payments")

PAGE = 20
"""Payments of one page: a year of one set a fortnight."""
_START_KEY = UUID("6b1f4d0e-3c0a-4f43-9d5b-8f6d1c6a2f11")


@router.get("")
async def history(visit: Seen, site: Framed, before: OptionalId = None) -> Response:
    """All payments, newest first."""
    rows = await read_payments(
        site.darkroom, user_id=visit.user_id, before_id=before, limit=PAGE + 1
    )
    payments, older = split_page(rows, PAGE)
    return site.render(
        visit,
        "payments.html",
        payments=[(payment, payment_line(payment)) for payment in payments],
        before=older,
    )


@router.get("/{payment_id}")
async def page(payment_id: Id, visit: Seen, site: Framed, go: str | None = None) -> Response:
    """Where the bank sends its customer back to, and where a payment's truth stands. It needs no return."""
    return await _page(site, visit, payment_id, go_on=go == "1")


@router.get("/{payment_id}/now")
async def part(
    payment_id: Id,
    visit: Seen,
    site: Framed,
    have: OptionalName = None,
    stay: OptionalName = None,
) -> Response:
    """The truth again, for the page's script; a set that has begun is gone to, unless they `stay`.

    Nothing, where the page has it already (`have`): what is replaced while somebody presses loses the press.
    """
    payment = await read_payment(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
    if payment.job_id is not None and stay is None:
        return site.go(visit, f"/sets/{payment.job_id}")
    return await _page(site, visit, payment_id, template="_payment.html", have=have)


@router.post("/{payment_id}/open")
async def open_again(payment_id: Id, visit: Seen, site: Framed) -> Response:
    """Ask the payment service for its page once more, where it gave none. The same key: it is one payment."""
    await open_checkout(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
    return site.go(visit, f"/payments/{payment_id}?go=1")


@router.post("/{payment_id}/ask-back")
async def return_money(payment_id: Id, visit: Seen, site: Framed, sure: Sure = "") -> Response:
    """Ask an unused payment back, once they said that they are sure. Twice is once."""
    if sure != YES:
        payment = await read_payment(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
        amount = money(visit.locale, payment.amount_minor, payment.currency)
        question = site.say(visit, "payment.ask_back_sure", amount=amount)
        return ask_first(site, visit, question=question, back=f"/payments/{payment_id}")
    await ask_back(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
    return site.go(visit, f"/payments/{payment_id}")


@router.post("/{payment_id}/start")
async def start(
    payment_id: Id,
    visit: Seen,
    site: Framed,
    avatar: Annotated[Id, Form()],
    style: Annotated[Name, Form()],
) -> Response:
    """Start the set of a payment that was made without an order. Twice is once."""
    try:
        job = await start_generation(
            site.darkroom,
            GenerateRequest(
                user_id=visit.user_id,
                avatar_id=avatar,
                style_id=style,
                payment_id=payment_id,
                idempotency_key=str(uuid5(_START_KEY, f"{payment_id}/{avatar}/{style}")),
                request_id=uuid4(),
            ),
        )
    except RequestRefusedError as error:
        if error.code == "PAYMENT_CONSUMED" and error.details.get("jobId"):
            return site.go(visit, f"/sets/{error.details['jobId']}")
        raise
    return site.go(visit, f"/sets/{job.id}")


@router.get("/{payment_id}/receipt")
async def receipt(payment_id: Id, visit: Seen, site: Framed) -> Response:
    """What was bought, what it cost, and what came back of it, to keep or to print."""
    payment, refunds = await _money(site, visit, payment_id)
    if payment.succeeded_at is None:
        return site.go(visit, f"/payments/{payment_id}")
    catalog = await read_catalog(site.darkroom)
    return site.render(
        visit,
        "receipt.html",
        payment=payment,
        line=payment_line(payment),
        refunds=refunds,
        titles={tier.id: tier for tier in catalog.tiers},
    )


async def _money(site: Site, visit: Visit, payment_id: int) -> tuple[PaymentView, list[RefundLine]]:
    payment = await read_payment(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
    refunds = await read_refunds_of(site.darkroom, user_id=visit.user_id, payment_id=payment_id)
    return payment, refund_lines(refunds)


async def _page(
    site: Site,
    visit: Visit,
    payment_id: int,
    *,
    template: str = "payment.html",
    go_on: bool = False,
    have: str | None = None,
) -> Response:
    payment, refunds = await _money(site, visit, payment_id)
    line = payment_line(payment)
    now = mark(line, payment.checkout_url, refunds)
    if have == now:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    moving = is_moving(payment)
    is_unused = payment.status == "succeeded" and not payment.generation_consumed and not moving
    avatars = await read_avatars(site.darkroom, user_id=visit.user_id) if is_unused else []
    bound = payment.order_avatar_id
    promised = await read_promised(site.darkroom)
    return site.render(
        visit,
        template,
        payment=payment,
        line=line,
        now=now,
        moving=moving,
        returning=is_returning(refunds),
        refunds=refunds,
        go_on=go_on and payment.status == "pending",
        may_ask_back=is_unused and payment.amount_minor > 0,
        may_start=is_unused,
        people=[one for one in avatars if one.selfies and bound in (None, one.id)],
        catalog=await read_catalog(site.darkroom),
        refund_days=promised.policy.unused_refund_days,
    )
