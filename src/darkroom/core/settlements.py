"""Refunds are settled by the provider's own books, and by nothing else.

Every refund it made is a row, once; what each of them paid of ours is a row, once. Money that somebody gave
back outside settles what is owed anyway, and only the rest is a refund of its own.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.core.differences import DifferenceKind, note_difference, plain_text
from darkroom.core.refunds import CALL_MAY_STILL_ARRIVE, request_goodwill, request_unused
from darkroom.db.database import Connection
from darkroom.ports.payments import RefundFact, RefundState

ID_MAX: Final = 255
_KEY: Final = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,8})")


class RefundInFlightError(Exception):
    """Money that somebody gave back fits nowhere while our own refund is under way: come back afterwards."""


@dataclass(slots=True)
class Settled:
    """What the provider's books changed in ours: ids of refunds.

    Attributes:
        succeeded: all of it went back.
        failed: refused there.
    """

    succeeded: list[int] = field(default_factory=list[int])
    failed: list[int] = field(default_factory=list[int])

    @property
    def ids(self) -> list[int]:
        """Those that there is something to tell of."""
        return [*self.succeeded, *self.failed]


@dataclass(frozen=True, slots=True)
class _Payment:
    id: int
    provider: str
    currency: str
    amount_minor: int
    generation_consumed: bool


async def apply_facts(
    tx: Connection, payment_id: int, facts: Sequence[RefundFact], *, idle_refund_id: int | None
) -> Settled:
    """Bring our refunds of one payment in line with the provider's books. Harmless any number of times.

    Call it behind `lock_payment_money`. `idle_refund_id` is a refund that its holder knows not to be under
    way at the provider, although its status says so.

    Raises:
        RefundInFlightError: not now, and roll back.
    """
    async with tx.cursor(row_factory=class_row(_Payment)) as cursor:
        await cursor.execute(
            "SELECT id, provider, currency, amount_minor, generation_consumed FROM payments "
            "WHERE id = %s AND succeeded_at IS NOT NULL",
            [payment_id],
        )
        payment = await cursor.fetchone()
    if payment is None:
        return Settled()
    books = _Books(tx, payment, idle_refund_id)
    # Ours first: what is left over afterwards was nobody's wish of ours.
    for fact in sorted(facts, key=lambda one: one.key is None):
        if fact.state is RefundState.DONE:
            await books.take_done(fact)
        elif fact.state is RefundState.REFUSED and fact.key is not None:
            await books.take_refused(fact.key)
    await _move_payment(tx, payment.id)
    return books.settled


def kept_id(provider_refund_id: str) -> str:
    """An outside id in our column: itself, or its hash when it is too long, or no text that a column takes."""
    if 0 < len(provider_refund_id) <= ID_MAX and provider_refund_id == plain_text(
        provider_refund_id
    ):
        return provider_refund_id
    raw = provider_refund_id.encode(errors="surrogatepass")
    return "sha256:" + hashlib.sha256(raw).hexdigest()


SETTLE_REFUND: Final = """
WITH due AS (
    SELECT id, least(amount_minor - settled_minor, %(most)s)::BIGINT AS minor FROM refunds
    WHERE id = %(refund_id)s AND payment_id = %(payment_id)s AND settled_minor < amount_minor
    FOR NO KEY UPDATE
), line AS (
    INSERT INTO refund_settlements (refund_id, provider_refund_row_id, amount_minor, note)
    SELECT id, %(source_id)s, minor, %(note)s FROM due WHERE minor > 0
    RETURNING refund_id, amount_minor
)
UPDATE refunds r
SET settled_minor = r.settled_minor + line.amount_minor,
    status = CASE WHEN r.settled_minor + line.amount_minor = r.amount_minor
                  THEN 'succeeded' ELSE r.status END,
    succeeded_at = CASE WHEN r.settled_minor + line.amount_minor = r.amount_minor
                        THEN darkroom_now() END,
    failed_at = CASE WHEN r.settled_minor + line.amount_minor = r.amount_minor
                     THEN NULL ELSE r.failed_at END,
    -- The rest is another wish than the one whose key was sent.
    key_number = r.key_number + CASE
        WHEN r.settled_minor + line.amount_minor < r.amount_minor
             AND EXISTS (SELECT FROM refund_attempts a
                         WHERE a.refund_id = r.id AND a.key = r.id || '-' || r.key_number)
        THEN 1 ELSE 0 END,
    lease_until = CASE WHEN r.settled_minor + line.amount_minor = r.amount_minor
                       THEN NULL ELSE r.lease_until END,
    updated_at = darkroom_now()
FROM line WHERE r.id = line.refund_id
RETURNING line.amount_minor, r.status
"""


class _Books:
    """One payment's refunds while the provider's are held against them."""

    def __init__(self, tx: Connection, payment: _Payment, idle_refund_id: int | None) -> None:
        self._tx = tx
        self._payment = payment
        self._idle_refund_id = idle_refund_id
        self.settled = Settled()

    async def take_done(self, fact: RefundFact) -> None:
        """Money went back: it pays our refund of that key, then what waits, and the rest is a new one."""
        if fact.amount.currency != self._payment.currency:
            await self._note(fact, "refund_amount", ours_minor=0)
            return
        if fact.amount.amount_minor <= 0:
            return  # nothing went back
        source_id = await self._write_down(fact)
        if source_id is None:
            return  # known, and all of it was used when it became known
        left = fact.amount.amount_minor
        own = None if fact.key is None else _KEY.fullmatch(fact.key)
        waiting = [] if own is None else [int(own[1])]
        for refund_id in waiting + await self._list_waiting():
            if left > 0:
                left -= await self._settle(refund_id, source_id, left)
        if left > 0:
            left -= await self._settle_by_a_new_one(fact, source_id, left)
        if left > 0:
            if await self._is_another_under_way():
                raise RefundInFlightError(
                    f"{left} minor units fit nowhere while another is under way"
                )
            ours = fact.amount.amount_minor - left
            await self._note(fact, "more_back_than_paid", ours_minor=ours)

    async def take_refused(self, key: str) -> None:
        """Its books say no to a key whose outcome we do not know."""
        async with self._tx.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(
                "UPDATE refunds SET status = 'failed', failed_at = darkroom_now(), "
                "last_error = 'refused, by its own books', lease_until = NULL, "
                "updated_at = darkroom_now() WHERE payment_id = %s AND status = 'unknown' "
                "AND id || '-' || key_number = %s RETURNING id",
                [self._payment.id, key],
            )
            failed = await cursor.fetchone()
        if failed is not None:
            self.settled.failed.append(failed)

    async def _note(self, fact: RefundFact, kind: DifferenceKind, *, ours_minor: int) -> None:
        await note_difference(
            self._tx,
            provider=self._payment.provider,
            kind=kind,
            subject=kept_id(fact.provider_refund_id),
            payment_id=self._payment.id,
            ours_minor=ours_minor,
            theirs_minor=fact.amount.amount_minor,
            currency=fact.amount.currency[:8],
        )

    async def _write_down(self, fact: RefundFact) -> int | None:
        async with self._tx.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(
                "INSERT INTO provider_refunds "
                "(payment_id, provider_refund_id, amount_minor, key, is_chargeback) "
                "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (payment_id, provider_refund_id) DO NOTHING "
                "RETURNING id",
                [
                    self._payment.id,
                    kept_id(fact.provider_refund_id),
                    fact.amount.amount_minor,
                    fact.key,
                    fact.is_chargeback,
                ],
            )
            return await cursor.fetchone()

    async def _list_waiting(self) -> list[int]:
        """Refunds that wait for money and are certainly not under way at the provider, oldest first."""
        async with self._tx.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(
                "SELECT r.id FROM refunds r WHERE r.payment_id = %s AND r.settled_minor < r.amount_minor "
                "AND (r.status = 'failed' OR r.id = %s OR (r.status = 'requested' AND NOT "
                + CALL_MAY_STILL_ARRIVE
                + ")) ORDER BY r.id",
                [self._payment.id, self._idle_refund_id],
            )
            return await cursor.fetchall()

    async def _is_another_under_way(self) -> bool:
        async with self._tx.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(
                "SELECT EXISTS (SELECT FROM refunds r WHERE r.payment_id = %s "
                "AND r.id IS DISTINCT FROM %s AND (r.status IN ('sending', 'unknown') "
                "OR (r.status = 'requested' AND " + CALL_MAY_STILL_ARRIVE + ")))",
                [self._payment.id, self._idle_refund_id],
            )
            return bool(await cursor.fetchone())

    async def _settle(self, refund_id: int, source_id: int, most_minor: int) -> int:
        """How much of it this money paid."""
        paid_minor, status = await _settle_refund(
            self._tx,
            {
                "refund_id": refund_id,
                "payment_id": self._payment.id,
                "source_id": source_id,
                "most": most_minor,
                "note": None,
            },
        )
        if status == "succeeded":
            self.settled.succeeded.append(refund_id)
        return paid_minor

    async def _settle_by_a_new_one(self, fact: RefundFact, source_id: int, left_minor: int) -> int:
        """Money that none of us had asked for: a refund that is settled as it is written."""
        reason = "chargeback" if fact.is_chargeback else "outside"
        if self._payment.generation_consumed:
            refund_id = await request_goodwill(
                self._tx, self._payment.id, most_minor=left_minor, reason=reason
            )
        else:
            # Partly paid back it can buy nothing any more: what the provider still has follows by itself.
            refund_id = await request_unused(self._tx, self._payment.id, reason=reason)
        return 0 if refund_id is None else await self._settle(refund_id, source_id, left_minor)


async def _settle_refund(tx: Connection, params: dict[str, object]) -> tuple[int, str | None]:
    """(minor units paid, the refund's status now); (0, None) where nothing of it was due."""
    row = await (await tx.execute(SETTLE_REFUND, params)).fetchone()
    return (0, None) if row is None else (int(row[0]), str(row[1]))


MOVE_PAYMENT: Final = """
UPDATE payments p SET status = back.target, updated_at = darkroom_now()
FROM (
    SELECT CASE WHEN coalesce(sum(r.settled_minor), 0) = q.amount_minor THEN 'refunded'
                WHEN NOT q.generation_consumed THEN 'refunding'
                ELSE 'partially_refunded' END AS target
    FROM payments q JOIN refunds r ON r.payment_id = q.id
    WHERE q.id = %(payment_id)s AND q.amount_minor > 0
    GROUP BY q.id HAVING sum(r.settled_minor) > 0
) back
WHERE p.id = %(payment_id)s AND p.status <> back.target
"""


async def _move_payment(tx: Connection, payment_id: int) -> None:
    """The payment's status follows from what was settled of it."""
    await tx.execute(MOVE_PAYMENT, {"payment_id": payment_id})


async def settle_by_hand(tx: Connection, refund_id: int, *, note: str) -> int | None:
    """A person paid what is left of a failed refund, and says how. Returns the payment; None: it is not failed.

    Call it behind `lock_payment_money`.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            # Held: whoever asks for it again at this moment finds it paid, or we find it asked for.
            "SELECT payment_id FROM refunds WHERE id = %s AND status = 'failed' FOR NO KEY UPDATE",
            [refund_id],
        )
        payment_id = await cursor.fetchone()
    if payment_id is None:
        return None
    await _settle_refund(
        tx,
        {
            "refund_id": refund_id,
            "payment_id": payment_id,
            "source_id": None,
            "most": 2**62,
            "note": note,
        },
    )
    await _move_payment(tx, payment_id)
    return int(payment_id)
