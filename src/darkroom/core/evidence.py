"""Everything that is written about one order, in one snapshot: what a dispute is settled with.

Columns are named one by one: a token, a session or a page's address that still opens something never gets in.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.rows import dict_row

from darkroom.core.books import BOOKS
from darkroom.core.history import moves_kept_since
from darkroom.db.database import Connection

Row = dict[str, Any]

EVIDENCE_SECONDS: Final = 120
"""Of the transaction: some twenty statements, each found by an index, on a machine that has much else to do."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A picture that we say to have: its key, and the hash its bytes had."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """What the database holds of one order, by one snapshot.

    Attributes:
        read_at: when, by the database's clock.
        payment: what was bought, by whom, for how much, under which policy.
        book: paid = earned + refunded + owed, each term on its own (`core/books.py`).
        tables: rows by table, in the order they are told in.
        moves_since: its moves before that were forgotten by their age; None: it has all of them.
    """

    read_at: datetime
    payment: Row
    book: Row
    tables: dict[str, list[Row]]
    moves_since: datetime | None = None

    @property
    def adds_up(self) -> bool:
        """Whether every kopek of it is explained."""
        book = self.book
        explained = book["earned_minor"] + book["refunded_minor"] + book["owed_minor"]
        return bool(book["paid_minor"] == explained)

    def objects(self) -> list[StoredObject]:
        """Every picture of the order, late ones too."""
        return [
            StoredObject(row["object_key"], row["sha256"])
            for table in ("photos", "late_photos")
            for row in self.tables[table]
        ]


PAYMENT: Final = """
SELECT p.id, p.user_id, u.telegram_user_id, u.locale, p.provider, p.provider_payment_id, p.status,
       p.tier_id, t.title_en AS tier_title, p.photo_count, p.amount_minor, p.currency,
       p.order_avatar_id, p.order_style_id, p.generation_consumed, p.consumed_at, p.consumed_avatar_id,
       a.name AS avatar_name, s.title_en AS style_title, p.refund_reserved_minor,
       p.duplicate_of, p.compensates, p.redoes_photo_id, p.created_at, p.succeeded_at,
       policy.id AS policy_id, policy.whole_price_below_percent AS policy_whole_price_below_percent,
       policy.job_deadline_seconds AS policy_job_deadline_seconds,
       policy.unused_remind_days AS policy_unused_remind_days,
       policy.unused_refund_days AS policy_unused_refund_days,
       policy.late_money AS policy_late_money, policy.without_partial AS policy_without_partial,
       policy.redo_photos AS policy_redo_photos
FROM payments p JOIN users u ON u.id = p.user_id JOIN tiers t ON t.id = p.tier_id
JOIN refund_policies policy ON policy.id = p.policy_id
LEFT JOIN generation_jobs j ON j.payment_id = p.id
LEFT JOIN avatars a ON a.id = coalesce(j.avatar_id, p.consumed_avatar_id, p.order_avatar_id)
LEFT JOIN styles s ON s.id = coalesce(j.style_id, p.order_style_id)
WHERE p.id = %(id)s
"""
_OF_JOB: Final[LiteralString] = (
    "(SELECT t.id FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id WHERE j.payment_id = %(id)s)"
)
_OF_REFUNDS: Final[LiteralString] = "(SELECT id FROM refunds WHERE payment_id = %(id)s)"
# Two lists where an OR would do: each is found by its index, an OR reads the whole table.
_IN_CHAT: Final[LiteralString] = (
    "(SELECT c.id FROM telegram_message_queue c WHERE c.photo_id IN "
    "(SELECT id FROM generated_photos WHERE task_id IN " + _OF_JOB + ") UNION ALL "
    "SELECT c.id FROM telegram_message_queue c WHERE c.customer_message_id IN "
    "(SELECT id FROM customer_messages WHERE payment_id = %(id)s))"
)
_NOTICES: Final[LiteralString] = (
    "SELECT i.id FROM payments p JOIN inbox i ON i.source = p.provider "
    "AND i.kind IN ('payment', 'money_back') AND "
)

TABLES: Final[dict[str, LiteralString]] = {
    "related_payments": (
        "SELECT p.id, p.status, p.provider, p.amount_minor, p.currency, p.duplicate_of, p.compensates, "
        "p.redoes_photo_id, p.created_at, p.succeeded_at FROM payments p WHERE p.id <> %(id)s AND p.id IN ("
        "SELECT id FROM payments WHERE duplicate_of = %(id)s "
        "UNION ALL SELECT id FROM payments WHERE compensates = %(id)s "
        "UNION ALL SELECT duplicate_of FROM payments WHERE id = %(id)s "
        "UNION ALL SELECT compensates FROM payments WHERE id = %(id)s "
        "UNION ALL SELECT r.id FROM generation_jobs j JOIN generated_photos g ON g.job_id = j.id "
        "JOIN payments r ON r.redoes_photo_id = g.id WHERE j.payment_id = %(id)s "
        "UNION ALL SELECT j.payment_id FROM payments r JOIN generated_photos g ON g.id = r.redoes_photo_id "
        "JOIN generation_jobs j ON j.id = g.job_id WHERE r.id = %(id)s) ORDER BY p.id"
    ),
    "consent": (
        "SELECT terms_sha256, locale, consented_at FROM consents WHERE payment_id = %(id)s"
    ),
    "jobs": (
        "SELECT id, avatar_id, style_id, status, total_photos, completed_photos, reference_ids, "
        "deadline_at, created_at, finished_at FROM generation_jobs WHERE payment_id = %(id)s ORDER BY id"
    ),
    "tasks": (
        "SELECT id, job_id, prompt_index, status, provider, kie_task_id, attempt_id, attempts, share_minor, "
        "returned_minor, last_error, prompt, seed, created_at, status_since FROM kie_tasks WHERE id IN "
        + _OF_JOB
        + " ORDER BY prompt_index"
    ),
    "attempts": (
        "SELECT id, task_id, number, provider, created_at, called_at, answered_at, provider_task_id, adopted, "
        "refusal_code, ended_at, end_state, error_code, error_text, credits FROM task_attempts "
        "WHERE task_id IN " + _OF_JOB + " ORDER BY task_id, number"
    ),
    "photos": (
        "SELECT p.id, p.task_id, t.prompt_index, p.attempt_id, p.object_key, p.size_bytes, p.sha256, "
        "p.content_type, p.width, p.height, p.created_at, p.deleted_at "
        "FROM generated_photos p JOIN kie_tasks t ON t.id = p.task_id WHERE p.task_id IN "
        + _OF_JOB
        + " ORDER BY t.prompt_index"
    ),
    "late_photos": (
        "SELECT l.id, l.task_id, t.prompt_index, l.attempt_id, l.object_key, l.size_bytes, l.sha256, "
        "l.content_type, l.created_at FROM late_photos l JOIN kie_tasks t ON t.id = l.task_id "
        "WHERE l.task_id IN " + _OF_JOB + " ORDER BY l.id"
    ),
    "dead_letters": (
        "SELECT id, task_id, error_code, error_text, attempts, created_at, replayed_at "
        "FROM generation_dead_letter_queue WHERE task_id IN " + _OF_JOB + " ORDER BY id"
    ),
    "refunds": (
        "SELECT id, status, reason, amount_minor, settled_minor, currency, key_number, note, last_error, "
        "created_at, succeeded_at, failed_at FROM refunds WHERE payment_id = %(id)s ORDER BY id"
    ),
    "refund_lines": (
        "SELECT l.id, l.refund_id, l.kind, l.task_id, t.prompt_index, l.amount_minor, l.created_at "
        "FROM refund_lines l LEFT JOIN kie_tasks t ON t.id = l.task_id "
        "WHERE l.payment_id = %(id)s ORDER BY l.id"
    ),
    "refund_attempts": (
        "SELECT id, refund_id, number, key, amount_minor, called_at, answered_at, answer, code, text "
        "FROM refund_attempts WHERE refund_id IN " + _OF_REFUNDS + " ORDER BY id"
    ),
    "provider_refunds": (
        "SELECT id, provider_refund_id, amount_minor, key, is_chargeback, seen_at "
        "FROM provider_refunds WHERE payment_id = %(id)s ORDER BY id"
    ),
    "settlements": (
        "SELECT id, refund_id, provider_refund_row_id, amount_minor, note, settled_at "
        "FROM refund_settlements WHERE refund_id IN " + _OF_REFUNDS + " ORDER BY id"
    ),
    "differences": (
        "SELECT id, provider, kind, subject, ours_minor, theirs_minor, currency, first_seen_at, last_seen_at, "
        "closed_at, note FROM differences WHERE payment_id = %(id)s ORDER BY id"
    ),
    # A callback's outside id is made of its attempt's token.
    "inbox_messages": (
        "SELECT id, source, kind, CASE WHEN kind IN ('payment', 'money_back') THEN external_id END "
        "AS external_id, payload - 'token' AS payload, received_at, processed_at, outcome, attempts, "
        "last_error FROM inbox WHERE id IN ("
        + _NOTICES
        + "i.payload->>'payment_id' = p.id::TEXT WHERE p.id = %(id)s UNION ALL "
        + _NOTICES
        + "i.payload->>'provider_payment_id' = p.provider_payment_id WHERE p.id = %(id)s UNION ALL "
        "SELECT i.id FROM task_attempts a JOIN inbox i "
        "ON i.source = split_part(a.provider, ':', 1) || '-callback' "
        "AND i.external_id = a.token || '/' || a.provider_task_id WHERE a.task_id IN "
        + _OF_JOB
        + ") ORDER BY id"
    ),
    "customer_messages": (
        "SELECT id, kind, subject_id, text_en, text_ru, created_at FROM customer_messages "
        "WHERE payment_id = %(id)s ORDER BY id"
    ),
    "chat_deliveries": (
        "SELECT q.id, q.photo_id, q.customer_message_id, q.status, q.message_id, q.last_error, q.created_at, "
        "q.updated_at FROM telegram_message_queue q WHERE q.id IN " + _IN_CHAT + " ORDER BY q.id"
    ),
    "moves": (
        "SELECT m.id, m.kind, m.row_id, m.from_status, m.to_status, m.moved_at FROM ("
        "SELECT 'payment' AS kind, %(id)s::BIGINT AS id "
        "UNION ALL SELECT 'job', id FROM generation_jobs WHERE payment_id = %(id)s "
        "UNION ALL SELECT 'task', t.id FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id "
        "WHERE j.payment_id = %(id)s "
        "UNION ALL SELECT 'refund', id FROM refunds WHERE payment_id = %(id)s "
        "UNION ALL SELECT 'delivery', chat.id FROM "
        + _IN_CHAT
        + " chat) its JOIN move_log m ON m.kind = its.kind AND m.row_id = its.id ORDER BY m.moved_at, m.id"
    ),
}
"""Every table of an order, and what of it is evidence."""


async def read_order_record(tx: Connection, payment_id: int) -> OrderRecord | None:
    """Everything of one order; None: no such payment. Changes nothing.

    In one snapshot: call it first in a transaction of its own.
    """
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    await tx.execute("SELECT set_config('statement_timeout', '60s', TRUE)")
    payment = await _rows(tx, PAYMENT, payment_id)
    if not payment:
        return None
    book = await _rows(tx, BOOKS + "WHERE p.id = %(id)s", payment_id)
    tables = {name: await _rows(tx, query, payment_id) for name, query in TABLES.items()}
    clock = await _rows(tx, "SELECT darkroom_now() AS read_at", payment_id)
    kept = await moves_kept_since(tx)
    is_older = kept is not None and payment[0]["created_at"] < kept
    return OrderRecord(
        clock[0]["read_at"], payment[0], book[0], tables, moves_since=kept if is_older else None
    )


async def _rows(tx: Connection, query: LiteralString, payment_id: int) -> list[Row]:
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, {"id": payment_id})
        return list(await cursor.fetchall())
