"""Payments: what was ordered, and what the provider says of the money."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.funnel import NOTE_PAID, note_chose
from darkroom.db.database import Connection
from darkroom.ports.money import Money
from darkroom.ports.payments import PaymentMoney


@dataclass(frozen=True, slots=True)
class NewPayment:
    """An order, before any provider knows of it. With an avatar and a style it starts by itself."""

    user_id: int
    provider: str
    tier_id: str
    currency: str
    request_id: UUID
    order_avatar_id: int | None = None
    order_style_id: str | None = None
    receipt_email: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentView:
    """A payment as its owner sees it.

    Attributes:
        compensates: the payment whose missing photos this free set makes good.
        redoes_photo_id: the photo that this free set of one photo makes again.
        paid_seconds: for how long the money has been there.
    """

    id: int
    provider: str
    status: str
    tier_id: str
    photo_count: int
    amount_minor: int
    currency: str
    checkout_url: str | None
    order_avatar_id: int | None
    order_style_id: str | None
    generation_consumed: bool
    job_id: int | None
    refunded_minor: int
    refund_reserved_minor: int
    created_at: datetime
    succeeded_at: datetime | None
    receipt_email: str | None
    compensates: int | None
    redoes_photo_id: int | None
    paid_seconds: float | None


_VIEW: Final = """
    SELECT p.id, p.provider, p.status, p.tier_id, p.photo_count, p.amount_minor, p.currency,
           p.checkout_url, p.order_avatar_id, p.order_style_id, p.generation_consumed,
           (SELECT j.id FROM generation_jobs j WHERE j.payment_id = p.id) AS job_id,
           (SELECT coalesce(sum(r.settled_minor), 0)::BIGINT FROM refunds r
            WHERE r.payment_id = p.id) AS refunded_minor,
           p.refund_reserved_minor, p.created_at, p.succeeded_at, p.receipt_email, p.compensates,
           p.redoes_photo_id, extract(epoch FROM darkroom_now() - p.succeeded_at)::FLOAT8 AS paid_seconds
    FROM payments p
"""


async def insert_payment(
    tx: Connection, new: NewPayment, *, first_ask_seconds: float
) -> int | None:
    """The row that stands before the provider is called; None: no such active, priced tier.

    Count, price, currency and the refund policy are copied from the catalog here and never change.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO payments
                (user_id, provider, tier_id, photo_count, amount_minor, currency, policy_id,
                 order_avatar_id, order_style_id, receipt_email, request_id, due_at)
            SELECT %(user_id)s, %(provider)s, t.id, t.photo_count, price.amount_minor, price.currency,
                   (SELECT max(id) FROM refund_policies),
                   %(order_avatar_id)s, %(order_style_id)s, %(receipt_email)s, %(request_id)s,
                   darkroom_now() + make_interval(secs => %(first_ask)s)
            FROM tiers t JOIN tier_prices price ON price.tier_id = t.id
            WHERE t.id = %(tier_id)s AND t.is_active AND price.currency = %(currency)s
            RETURNING id
            """,
            {
                "user_id": new.user_id,
                "provider": new.provider,
                "tier_id": new.tier_id,
                "currency": new.currency,
                "order_avatar_id": new.order_avatar_id,
                "order_style_id": new.order_style_id,
                "receipt_email": new.receipt_email,
                "request_id": new.request_id,
                "first_ask": first_ask_seconds,
            },
        )
        payment_id = await cursor.fetchone()
    if payment_id is not None:
        await note_chose(tx, new.user_id)
    return payment_id


async def insert_grant(
    tx: Connection, *, user_id: int, tier_id: str, request_id: UUID
) -> int | None:
    """A free set: a payment of provider `grant`, amount 0, succeeded at once. None: no such tier."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO payments
                (user_id, provider, status, tier_id, photo_count, amount_minor, currency, policy_id,
                 request_id, succeeded_at)
            SELECT %s, 'grant', 'succeeded', t.id, t.photo_count, 0, 'RUB',
                   (SELECT max(id) FROM refund_policies), %s, darkroom_now()
            FROM tiers t WHERE t.id = %s
            RETURNING id
            """,
            [user_id, request_id, tier_id],
        )
        return await cursor.fetchone()


async def count_recent_payments(tx: Connection, *, user_id: int, window_seconds: float) -> int:
    """Payments this user opened within the window. Exact behind the user's lock."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM payments WHERE user_id = %s AND provider <> 'grant' "
            "AND created_at > (SELECT darkroom_now()) - make_interval(secs => %s)",
            [user_id, window_seconds],
        )
        return int(await cursor.fetchone() or 0)


async def find_payment_by_request(tx: Connection, request_id: UUID) -> int | None:
    """The payment an earlier run of the same request left, if its commit arrived."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM payments WHERE request_id = %s", [request_id])
        return await cursor.fetchone()


async def record_checkout(
    tx: Connection, payment_id: int, *, provider_payment_id: str, checkout_url: str
) -> None:
    """The provider's own id and page: a fact, written once."""
    await tx.execute(
        "UPDATE payments SET provider_payment_id = coalesce(provider_payment_id, %s), "
        "checkout_url = coalesce(checkout_url, %s), updated_at = darkroom_now() WHERE id = %s",
        [provider_payment_id, checkout_url, payment_id],
    )


async def view_payment(tx: Connection, *, user_id: int, payment_id: int) -> PaymentView | None:
    """One payment of this user; None for anybody else's."""
    async with tx.cursor(row_factory=class_row(PaymentView)) as cursor:
        await cursor.execute(_VIEW + " WHERE p.id = %s AND p.user_id = %s", [payment_id, user_id])
        return await cursor.fetchone()


async def list_payments(
    tx: Connection, *, user_id: int, before_id: int | None, limit: int
) -> list[PaymentView]:
    """This user's payments, free sets with them, newest first, below `before_id`."""
    async with tx.cursor(row_factory=class_row(PaymentView)) as cursor:
        await cursor.execute(
            _VIEW
            + " WHERE p.user_id = %(user_id)s AND (%(before_id)s::BIGINT IS NULL OR p.id < %(before_id)s)"
            " ORDER BY p.id DESC LIMIT %(limit)s",
            {"user_id": user_id, "before_id": before_id, "limit": limit},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """What taking a notice needs to know of a payment, read behind the user's lock."""

    id: int
    user_id: int
    provider: str
    provider_payment_id: str | None
    status: str
    amount_minor: int
    currency: str
    generation_consumed: bool
    order_avatar_id: int | None
    order_style_id: str | None
    late_money: str
    payer_left: bool


async def lock_payment(tx: Connection, *, payment_id: int, provider: str) -> PaymentOrder | None:
    """Lock the payer, then the payment (the lock order), and read it. None: not of this provider."""
    async with tx.cursor(row_factory=class_row(PaymentOrder)) as cursor:
        await cursor.execute(
            "SELECT FROM users WHERE id = (SELECT user_id FROM payments WHERE id = %s) "
            "FOR NO KEY UPDATE",
            [payment_id],
        )
        await cursor.execute(
            "SELECT p.id, p.user_id, p.provider, p.provider_payment_id, p.status, p.amount_minor, p.currency, "
            "p.generation_consumed, p.order_avatar_id, p.order_style_id, policy.late_money, "
            "u.forget_at IS NOT NULL AS payer_left "
            "FROM payments p JOIN refund_policies policy ON policy.id = p.policy_id "
            "JOIN users u ON u.id = p.user_id "
            "WHERE p.id = %s AND p.provider = %s FOR NO KEY UPDATE OF p",
            [payment_id, provider],
        )
        return await cursor.fetchone()


async def mark_succeeded(tx: Connection, payment_id: int, *, provider_payment_id: str) -> bool:
    """Pending | canceled | expired -> succeeded. False: it was no such payment any more.

    Of several payments of the provider for one order the one that was paid counts, whichever was opened last.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            WITH moved AS (
                UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now(),
                    provider_payment_id = %s, lease_until = NULL, updated_at = darkroom_now()
                WHERE id = %s AND status IN ('pending', 'canceled', 'expired')
                RETURNING user_id, provider
            ), noted AS ("""
            + NOTE_PAID
            + ") SELECT EXISTS (SELECT FROM moved)",
            [provider_payment_id, payment_id],
        )
        return bool(await cursor.fetchone())


async def insert_duplicate(
    tx: Connection, payment_id: int, *, provider_payment_id: str
) -> int | None:
    """The second money for one order: a payment of its own, that nothing can be made with.

    None: it is known already. Its order's avatar and style are not copied: it must not start anything.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO payments
                (user_id, provider, provider_payment_id, status, tier_id, photo_count, amount_minor,
                 currency, policy_id, request_id, succeeded_at, duplicate_of)
            SELECT user_id, provider, %(theirs)s, 'succeeded', tier_id, photo_count, amount_minor,
                   currency, policy_id, gen_random_uuid(), darkroom_now(), id
            FROM payments WHERE id = %(payment_id)s
            ON CONFLICT (provider, provider_payment_id) DO NOTHING
            RETURNING id
            """,
            {"payment_id": payment_id, "theirs": provider_payment_id},
        )
        return await cursor.fetchone()


async def find_payment_there(tx: Connection, payment_id: int) -> tuple[str, str | None] | None:
    """Whose a payment is, and its id there; None: no such payment of ours."""
    cursor = await tx.execute(
        "SELECT provider, provider_payment_id FROM payments WHERE id = %s", [payment_id]
    )
    row = await cursor.fetchone()
    return None if row is None else (str(row[0]), row[1])


@dataclass(frozen=True, slots=True)
class _MoneyRow:
    payment_id: int
    provider_payment_id: str
    amount_minor: int
    currency: str
    returned_minor: int
    flying_key: str | None
    flying_minor: int | None
    payer_telegram_id: int | None


async def find_payment_money(
    tx: Connection, *, payment_id: int, provider: str, provider_payment_id: str
) -> PaymentMoney | None:
    """What is needed to read the provider's books of a payment; None: no such payment of ours was paid.

    The provider's own id decides: the second money for an order names the same order.
    """
    async with tx.cursor(row_factory=class_row(_MoneyRow)) as cursor:
        await cursor.execute(
            """
            SELECT p.id AS payment_id, p.provider_payment_id, p.amount_minor, p.currency,
                   (SELECT coalesce(sum(b.amount_minor), 0)::BIGINT FROM provider_refunds b
                    WHERE b.payment_id = p.id) AS returned_minor,
                   r.id || '-' || r.key_number AS flying_key,
                   r.amount_minor - r.settled_minor AS flying_minor,
                   coalesce(u.telegram_user_id, u.forgotten_telegram_user_id) AS payer_telegram_id
            FROM payments p JOIN users u ON u.id = p.user_id
            LEFT JOIN refunds r ON r.payment_id = p.id AND r.status IN ('sending', 'unknown')
            WHERE p.provider = %(provider)s AND p.succeeded_at IS NOT NULL
              AND p.provider_payment_id = %(theirs)s
              AND (p.id = %(payment_id)s OR p.duplicate_of = %(payment_id)s)
            """,
            {"payment_id": payment_id, "provider": provider, "theirs": provider_payment_id},
        )
        row = await cursor.fetchone()
    if row is None:
        return None
    return PaymentMoney(
        payment_id=row.payment_id,
        provider_payment_id=row.provider_payment_id,
        price=Money(row.amount_minor, row.currency),
        returned_minor=row.returned_minor,
        in_flight=None if row.flying_key is None else (row.flying_key, row.flying_minor or 0),
        payer_telegram_id=row.payer_telegram_id,
    )


MARK_CANCELED: Final = """
UPDATE payments SET status = 'canceled', lease_until = NULL, updated_at = darkroom_now()
WHERE id = %s AND status = 'pending'
"""


async def mark_canceled(tx: Connection, payment_id: int) -> bool:
    """Pending -> canceled. A payment that succeeded stays: a late "no" undoes nothing."""
    moved = await tx.execute(MARK_CANCELED, [payment_id])
    return moved.rowcount == 1


@dataclass(frozen=True, slots=True)
class PaymentClaim:
    """A pending payment to be asked about while the lease holds."""

    id: int
    claim: int
    provider: str
    provider_payment_id: str | None
    attempts: int
    is_old: bool


async def claim_silent_payments(
    tx: Connection, *, limit: int, lease_seconds: float, old_after_seconds: float
) -> list[PaymentClaim]:
    """Lease pending payments nobody told us about for a while."""
    async with tx.cursor(row_factory=class_row(PaymentClaim)) as cursor:
        await cursor.execute(
            """
            WITH due AS (
                SELECT id FROM payments
                WHERE status = 'pending' AND due_at <= (SELECT darkroom_now())
                  AND (lease_until IS NULL OR lease_until <= (SELECT darkroom_now()))
                ORDER BY due_at, id LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE payments p
            SET claim = p.claim + 1, attempts = p.attempts + 1,
                lease_until = darkroom_now() + make_interval(secs => %(lease)s),
                -- Behind the lease and growing: a payment whose asking breaks cannot keep us busy.
                due_at = darkroom_now()
                         + make_interval(secs => %(lease)s * power(2, least(p.attempts, 6)))
            WHERE p.id = ANY(ARRAY(SELECT id FROM due))
            RETURNING p.id, p.claim, p.provider, p.provider_payment_id, p.attempts,
                      p.created_at <= darkroom_now() - make_interval(secs => %(old)s) AS is_old
            """,
            {"limit": limit, "lease": lease_seconds, "old": old_after_seconds},
        )
        return await cursor.fetchall()


async def ask_again_later(tx: Connection, payment: PaymentClaim, *, pause_seconds: float) -> bool:
    """Give the lease back; the payment stays pending."""
    moved = await tx.execute(
        "UPDATE payments SET lease_until = NULL, "
        "due_at = darkroom_now() + make_interval(secs => %s) "
        "WHERE id = %s AND claim = %s AND status = 'pending'",
        [pause_seconds, payment.id, payment.claim],
    )
    return moved.rowcount == 1


async def mark_expired(tx: Connection, payment: PaymentClaim) -> bool:
    """Pending -> expired: old, and the provider, asked just now, knows of no money that could start it."""
    moved = await tx.execute(
        "UPDATE payments SET status = 'expired', lease_until = NULL, updated_at = darkroom_now() "
        "WHERE id = %s AND claim = %s AND status = 'pending'",
        [payment.id, payment.claim],
    )
    return moved.rowcount == 1


async def list_idle_orders(tx: Connection, *, limit: int) -> list[tuple[int, str]]:
    """Paid orders that could start now and have not: (payment id, provider)."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            """
            SELECT p.id, p.provider FROM payments p
            WHERE p.generation_consumed = FALSE AND p.status = 'succeeded'
              AND p.order_avatar_id IS NOT NULL
              -- Order by order: joined, all avatars and all selfies would be read for a few that wait.
              AND (SELECT a.deleted_at IS NULL FROM avatars a WHERE a.id = p.order_avatar_id)
              -- What lives is not being erased: so it is found without those that were.
              AND (SELECT TRUE FROM reference_photos r WHERE r.avatar_id = p.order_avatar_id
                   AND r.deleted_at IS NULL AND r.erasing_at IS NULL LIMIT 1)
            ORDER BY p.id LIMIT %s
            """,
            [limit],
        )
        return [
            (int(payment_id), str(provider)) for payment_id, provider in await cursor.fetchall()
        ]
