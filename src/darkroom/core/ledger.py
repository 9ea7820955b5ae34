"""Our ledger beside a provider's own list, line by line. Writes differences, and nothing else.

A line of theirs is held against our row by the provider's own ids. A row of ours that their list does not
contain is missing there, if the whole time in which its money can have moved was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, LiteralString

from psycopg.rows import class_row

from darkroom.core.differences import (
    SUBJECT_MAX,
    DifferenceKind,
    note_difference,
    plain_text,
)
from darkroom.core.settlements import kept_id
from darkroom.db.database import Connection
from darkroom.ports.payments import LedgerLine

CLOCK_SECONDS: Final = 300
"""How far a provider's clock may be from ours: the window that notices are given, too."""
EARLIER_DAYS_MAX: Final = 30
"""How long before a span its list is read for what became ours within it: news of money that came late, or that
somebody else gave back. A month: its list would else be read back to the oldest payment with a chargeback."""
MISSING_PAGE: Final = 500
_BIGINT_BELOW: Final = 2**63


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is compared, by the database's clock.

    Attributes:
        began_at: now. What was seen since then was seen by this look, or by another one beside it.
        since: moves from here on are judged,
        until: up to here. Later ones may have their notice still on the way.
        read_from: the list is read from here, so that it holds what became ours after `since`,
        read_until: up to here: their clock may be ahead.
    """

    began_at: datetime
    since: datetime
    until: datetime
    read_from: datetime
    read_until: datetime

    def judges(self, moved_at: datetime) -> bool:
        """Whether a move of that time is compared, and not only known."""
        return self.since <= moved_at <= self.until


OUR_PAYMENTS: Final[LiteralString] = """
    SELECT p.id, p.id AS payment_id, coalesce(p.provider_payment_id, p.id::TEXT) AS subject,
           p.amount_minor, p.currency,
           -- The second money for an order has a row since it was heard of; it moved after the order began.
           coalesce(first.created_at, p.created_at) AS begun_at
    FROM payments p LEFT JOIN payments first ON first.id = p.duplicate_of
    WHERE p.provider = %(provider)s AND p.amount_minor > 0
      AND p.succeeded_at BETWEEN %(since)s AND %(until)s
"""
OUR_REFUNDS: Final[LiteralString] = """
    SELECT b.id, b.payment_id, b.provider_refund_id AS subject, b.amount_minor, p.currency,
           -- What bears our key moved after we wished for it; what somebody else began, after the order.
           coalesce(r.created_at, first.created_at, p.created_at) AS begun_at
    FROM provider_refunds b JOIN payments p ON p.id = b.payment_id
    LEFT JOIN payments first ON first.id = p.duplicate_of
    -- LIMIT: looked for one by one, by its index, however many rows the span is thought to have.
    LEFT JOIN LATERAL (SELECT r.created_at FROM refunds r WHERE r.payment_id = b.payment_id
                       AND r.id::TEXT = split_part(b.key, '-', 1) LIMIT 1) r ON TRUE
    WHERE p.provider = %(provider)s AND b.seen_at BETWEEN %(since)s AND %(until)s
"""
OPEN_SPAN: Final = (
    """
WITH clock AS MATERIALIZED (
    SELECT now AS began_at, now - make_interval(days => %(ago)s + %(days)s) AS since,
           now - greatest(make_interval(days => %(ago)s), make_interval(secs => %(grace)s)) AS until
    FROM (SELECT darkroom_now() AS now) moment
), begun AS (
    SELECT begun_at FROM clock, LATERAL ("""
    + OUR_PAYMENTS.replace("%(since)s", "clock.since").replace("%(until)s", "clock.until")
    + """) ours
    UNION ALL
    SELECT begun_at FROM clock, LATERAL ("""
    + OUR_REFUNDS.replace("%(since)s", "clock.since").replace("%(until)s", "clock.until")
    + """) ours
)
SELECT began_at, since, until,
       greatest(since - make_interval(days => %(earlier)s),
                least(since, (SELECT min(begun_at) FROM begun))) - make_interval(secs => %(clock)s)
           AS read_from,
       until + make_interval(secs => %(clock)s) AS read_until
FROM clock
"""
)


async def open_span(
    tx: Connection, *, provider: str, days: int, grace_seconds: float, ago_days: int = 0
) -> Span:
    """What a look of so many days compares, and what of the provider's list has to be read for it.

    `ago_days`: as it would have been seen so many days ago.
    """
    async with tx.cursor(row_factory=class_row(Span)) as cursor:
        await cursor.execute(
            OPEN_SPAN,
            {
                "provider": provider,
                "days": days,
                "ago": ago_days,
                "grace": grace_seconds,
                "earlier": EARLIER_DAYS_MAX,
                "clock": CLOCK_SECONDS,
            },
        )
        span = await cursor.fetchone()
    assert span is not None  # noqa: S101 - the clock always answers
    return span


@dataclass(slots=True)
class Seen:
    """Our rows that their list contained, and what differs so far. Two numbers a line at the most."""

    payments: set[int] = field(default_factory=set[int])
    refunds: set[int] = field(default_factory=set[int])
    found: int = 0


@dataclass(frozen=True, slots=True)
class _Ours:
    """What we have of one line. `order_id` is the payment that their line names, where their own id is new."""

    payment_id: int | None
    order_id: int | None
    price_minor: int | None
    currency: str | None
    is_paid: bool
    refund_row_id: int | None
    refund_minor: int | None


FIND_OURS: Final = """
SELECT p.id AS payment_id, o.id AS order_id, coalesce(p.amount_minor, o.amount_minor) AS price_minor,
       coalesce(p.currency, o.currency) AS currency, p.succeeded_at IS NOT NULL AS is_paid,
       b.id AS refund_row_id, b.amount_minor AS refund_minor
FROM unnest(%(theirs)s::TEXT[], %(refunds)s::TEXT[], %(orders)s::BIGINT[]) WITH ORDINALITY
     AS line (theirs, refund, order_id, number)
LEFT JOIN payments p ON p.provider = %(provider)s AND p.provider_payment_id = line.theirs
LEFT JOIN payments o ON p.id IS NULL AND o.provider = %(provider)s AND o.id = line.order_id
LEFT JOIN provider_refunds b ON b.payment_id = p.id AND b.provider_refund_id = line.refund
ORDER BY line.number
"""


async def compare_lines(
    tx: Connection, lines: Sequence[LedgerLine], *, provider: str, span: Span, seen: Seen
) -> None:
    """Hold a page of their list against our rows; what differs is written down. Harmless to repeat."""
    async with tx.cursor(row_factory=class_row(_Ours)) as cursor:
        await cursor.execute(
            FIND_OURS,
            {
                "provider": provider,
                "theirs": [plain_text(line.provider_payment_id) for line in lines],
                "refunds": [
                    None if line.provider_refund_id is None else kept_id(line.provider_refund_id)
                    for line in lines
                ],
                "orders": [_order_of(line) for line in lines],
            },
        )
        rows = await cursor.fetchall()
    for line, ours in zip(lines, rows, strict=True):
        # Their list holds it, whatever it says of it: then it is not missing there.
        if line.provider_refund_id is None and ours.payment_id is not None:
            seen.payments.add(ours.payment_id)
        if ours.refund_row_id is not None:
            seen.refunds.add(ours.refund_row_id)
        kind = _judge(line, ours) if span.judges(line.moved_at) else None
        if kind is not None:
            seen.found += 1
            await _note_line(tx, line, ours, provider=provider, kind=kind)
    await _place_notices(tx, lines, provider=provider)


def _order_of(line: LedgerLine) -> int | None:
    """Our id as their line names it: text that anybody may have typed there."""
    if line.payment_id is None or not 0 < line.payment_id < _BIGINT_BELOW:
        return None
    return line.payment_id


def _judge(line: LedgerLine, ours: _Ours) -> DifferenceKind | None:
    if ours.payment_id is None and ours.order_id is None:
        return "unknown_payment"
    theirs = (line.amount.amount_minor, line.amount.currency)
    if line.provider_refund_id is not None:
        if ours.refund_row_id is None:
            return "refund_not_ours_yet"
        return None if theirs == (ours.refund_minor, ours.currency) else "refund_amount"
    if theirs != (ours.price_minor, ours.currency):
        return "price_mismatch"
    if ours.payment_id is None or not ours.is_paid:
        return "payment_not_ours_yet"
    return None


async def _note_line(
    tx: Connection, line: LedgerLine, ours: _Ours, *, provider: str, kind: DifferenceKind
) -> None:
    ours_minor = {"price_mismatch": ours.price_minor, "refund_amount": ours.refund_minor}.get(kind)
    await note_difference(
        tx,
        provider=provider,
        kind=kind,
        subject=line.provider_refund_id or line.provider_payment_id,
        payment_id=ours.payment_id or ours.order_id,
        ours_minor=ours_minor,
        theirs_minor=line.amount.amount_minor,
        currency=line.amount.currency,
        moved_at=line.moved_at,
    )


async def _place_notices(tx: Connection, lines: Sequence[LedgerLine], *, provider: str) -> None:
    """What a notice had written down stands in their list at a known time: from now on a look can close it."""
    await tx.execute(
        """
        UPDATE differences d SET moved_at = line.moved_at
        FROM unnest(%(subjects)s::TEXT[], %(times)s::TIMESTAMPTZ[]) AS line (subject, moved_at)
        WHERE d.provider = %(provider)s AND d.subject = line.subject AND d.closed_at IS NULL
          AND d.moved_at IS NULL AND d.kind IN ('unknown_payment', 'price_mismatch')
        """,
        {
            "provider": provider,
            "subjects": [
                plain_text(line.provider_payment_id)[:SUBJECT_MAX]
                for line in lines
                if line.provider_refund_id is None
            ],
            "times": [line.moved_at for line in lines if line.provider_refund_id is None],
        },
    )


@dataclass(frozen=True, slots=True)
class _Missing:
    id: int
    payment_id: int
    subject: str
    amount_minor: int
    currency: str


def _missing(ours: LiteralString) -> LiteralString:
    return (
        # The span first: by number, all payments that there ever were would be passed over.
        "WITH ours AS MATERIALIZED ("
        + ours
        + """)
SELECT id, payment_id, subject, amount_minor, currency FROM ours
WHERE begun_at >= %(read_from)s AND id > %(after)s
  AND NOT EXISTS (SELECT FROM unnest(%(seen)s::BIGINT[]) AS s (id) WHERE s.id = ours.id)
ORDER BY id LIMIT %(limit)s
"""
    )


MISSING_PAYMENTS: Final = _missing(OUR_PAYMENTS)
MISSING_REFUNDS: Final = _missing(OUR_REFUNDS)


async def note_missing(tx: Connection, *, provider: str, span: Span, seen: Seen) -> None:
    """What became ours in the span and stands nowhere in their list. Only after all of it was read."""
    await _note_missing(tx, provider, span, seen, "payment_missing_there")
    await _note_missing(tx, provider, span, seen, "refund_missing_there")


async def _note_missing(
    tx: Connection,
    provider: str,
    span: Span,
    seen: Seen,
    kind: Literal["payment_missing_there", "refund_missing_there"],
) -> None:
    is_payment = kind == "payment_missing_there"
    after = 0
    while True:
        async with tx.cursor(row_factory=class_row(_Missing)) as cursor:
            await cursor.execute(
                MISSING_PAYMENTS if is_payment else MISSING_REFUNDS,
                {
                    "provider": provider,
                    "since": span.since,
                    "until": span.until,
                    "read_from": span.read_from,
                    "after": after,
                    "seen": list(seen.payments if is_payment else seen.refunds),
                    "limit": MISSING_PAGE,
                },
            )
            rows = await cursor.fetchall()
        for row in rows:
            await note_difference(
                tx,
                provider=provider,
                kind=kind,
                subject=row.subject,
                payment_id=row.payment_id,
                ours_minor=row.amount_minor,
                theirs_minor=None,
                currency=row.currency,
            )
        seen.found += len(rows)
        if len(rows) < MISSING_PAGE:
            return
        after = rows[-1].id


CLOSE_GONE: Final = (
    """
UPDATE differences d SET closed_at = darkroom_now(), note = 'gone at a later look'
WHERE d.provider = %(provider)s AND d.closed_at IS NULL AND d.last_seen_at < %(began_at)s AND (
    (d.kind IN ('unknown_payment', 'price_mismatch', 'payment_not_ours_yet', 'refund_not_ours_yet',
                'refund_amount')
     AND d.moved_at BETWEEN %(since)s AND %(until)s)
    OR (d.kind = 'payment_missing_there' AND EXISTS (SELECT FROM ("""
    + OUR_PAYMENTS
    + """) ours WHERE left(ours.subject, 255) = d.subject AND ours.begun_at >= %(read_from)s))
    OR (d.kind = 'refund_missing_there' AND EXISTS (SELECT FROM ("""
    + OUR_REFUNDS
    + """) ours WHERE left(ours.subject, 255) = d.subject AND ours.payment_id = d.payment_id
        AND ours.begun_at >= %(read_from)s)))
"""
)


async def close_gone(tx: Connection, *, provider: str, span: Span) -> int:
    """Close what this look judged and did not find again. Only after all of it was read. Returns how many.

    A difference outside of the span, one that no list has shown yet, and one that somebody else has seen
    meanwhile stay open.
    """
    closed = await tx.execute(
        CLOSE_GONE,
        {
            "provider": provider,
            "since": span.since,
            "until": span.until,
            "read_from": span.read_from,
            "began_at": span.began_at,
        },
    )
    return closed.rowcount
