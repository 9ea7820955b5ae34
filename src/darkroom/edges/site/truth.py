"""How an order stands, in the words of `web/texts.toml`: one place, so that every screen says the same."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from darkroom.core.jobs import JobView
from darkroom.core.payments import PaymentView
from darkroom.core.sets import RefundView

OPEN_JOB: Final = frozenset({"pending", "processing"})
MINUTE_SECONDS: Final = 60
STARTING_SECONDS: Final = 20
"""A set begins in the transaction of its money; where a lock was held, within two leases."""


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence's key and its values, and whether it is good news.

    Attributes:
        tone: `wait`, `good`, `money` or `bad`: what colour it is said in.
    """

    key: str
    values: dict[str, object]
    tone: str


_PAYMENT_LINES: Final = {
    "pending": Line("payment.pending", {}, "wait"),
    "canceled": Line("payment.canceled", {}, "bad"),
    "expired": Line("payment.expired", {}, "bad"),
    "refunding": Line("payment.returning", {}, "money"),
    "refunded": Line("payment.returned", {}, "money"),
}


def payment_line(payment: PaymentView) -> Line:
    """How a payment stands."""
    known = _PAYMENT_LINES.get(payment.status)
    if known is not None:
        return known
    if payment.status == "succeeded" and payment.job_id is None:
        return Line("payment.starting" if _is_starting(payment) else "payment.unused", {}, "wait")
    return Line("payment.paid", {}, "good")


def _is_starting(payment: PaymentView) -> bool:
    """An order whose money came just now. What has not begun by then cannot: its selfies are gone, perhaps."""
    bound = payment.order_avatar_id is not None
    return bound and payment.paid_seconds is not None and payment.paid_seconds < STARTING_SECONDS


def is_moving(payment: PaymentView) -> bool:
    """Whether the page about this payment should look again by itself."""
    return payment.status == "pending" or (
        payment.status == "succeeded" and payment.job_id is None and _is_starting(payment)
    )


def job_line(job: JobView) -> Line:
    """How a set stands."""
    tone = {"completed": "good", "partial": "money", "failed": "bad", "cancelled": "bad"}
    return Line(f"set.{job.status}", {}, tone.get(job.status, "wait"))


def missing_line(job: JobView) -> Line | None:
    """What an ended set lacks; None: nothing, or it has not ended.

    Not a word of money: what goes back or is made again is told by its own rows, as far as it has come.
    """
    missing = job.total_photos - job.completed_photos
    if job.status in OPEN_JOB or missing == 0:
        return None
    if job.completed_photos == 0:
        return Line("set.none_made", {}, "bad")
    return Line("set.missing", {"count": missing}, "money")


def left_line(seconds: int | None) -> Line:
    """The time left, as measured."""
    if seconds is None:
        return Line("set.left_unknown", {}, "wait")
    if seconds < MINUTE_SECONDS:
        return Line("set.left_seconds", {}, "wait")
    return Line("set.left_minutes", {"count": -(-seconds // MINUTE_SECONDS)}, "wait")


def mark(*shown: object) -> str:
    """A short name for what a page shows: where it is the same, a look is answered with nothing."""
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RefundLine:
    """Some money that goes back or went back: a headline, how it comes, why, how much, and when it came."""

    head: str
    text: str
    reason: str
    amount_minor: int
    currency: str
    at: datetime


def refund_lines(refunds: Sequence[RefundView]) -> list[RefundLine]:
    """What went back and what is on its way, as far as it is known: never more than what happened.

    A bank may give back a part first: then both lines stand here.
    """
    lines: list[RefundLine] = []
    for refund in refunds:
        reason = f"refund.reason_{refund.reason}"
        if refund.settled_minor:
            text = "refund.done_by_hand" if refund.by_hand else "refund.done_text"
            at = refund.settled_at or refund.created_at
            lines.append(
                RefundLine("refund.done", text, reason, refund.settled_minor, refund.currency, at)
            )
        rest = refund.amount_minor - refund.settled_minor
        if rest:
            word = "person" if refund.status == "failed" else "going"
            lines.append(
                RefundLine(
                    f"refund.{word}",
                    f"refund.{word}_text",
                    reason,
                    rest,
                    refund.currency,
                    refund.created_at,
                )
            )
    return lines


def is_returning(lines: Sequence[RefundLine]) -> bool:
    """Whether money is on its way by itself: a page about it should look again, now and then."""
    return any(line.head == "refund.going" for line in lines)
