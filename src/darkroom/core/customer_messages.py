"""What a customer was told, once each, in both languages; a copy goes to the chat where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

MessageKind = Literal[
    "money_back", "money_back_delayed", "unused_reminder", "made_again", "selfies_deleted"
]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """Something to be told. `subject_id` is what it is about: told of once."""

    user_id: int
    kind: MessageKind
    subject_id: int
    payment_id: int | None
    text_ru: str
    text_en: str


async def insert_message(tx: Connection, message: NewMessage, *, to_chat: bool) -> bool:
    """Keep a message, in the transaction of what it tells. False: it was told before."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            WITH told AS (
                INSERT INTO customer_messages (user_id, kind, subject_id, payment_id, text_ru, text_en)
                VALUES (%(user_id)s, %(kind)s, %(subject_id)s, %(payment_id)s, %(text_ru)s, %(text_en)s)
                ON CONFLICT (kind, subject_id) DO NOTHING
                RETURNING id, user_id
            ), chat AS (
                INSERT INTO telegram_message_queue (user_id, chat_id, customer_message_id)
                SELECT u.id, u.telegram_user_id, told.id FROM told JOIN users u ON u.id = told.user_id
                WHERE %(to_chat)s AND u.telegram_user_id IS NOT NULL
            )
            SELECT id FROM told
            """,
            {
                "user_id": message.user_id,
                "kind": message.kind,
                "subject_id": message.subject_id,
                "payment_id": message.payment_id,
                "text_ru": message.text_ru,
                "text_en": message.text_en,
                "to_chat": to_chat,
            },
        )
        return await cursor.fetchone() is not None


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as its reader sees it."""

    id: int
    kind: str
    payment_id: int | None
    text_ru: str
    text_en: str
    created_at: datetime


async def list_messages(
    tx: Connection, *, user_id: int, before_id: int | None, limit: int
) -> list[MessageView]:
    """A page of what this user was told, newest first."""
    async with tx.cursor(row_factory=class_row(MessageView)) as cursor:
        await cursor.execute(
            "SELECT id, kind, payment_id, text_ru, text_en, created_at FROM customer_messages "
            "WHERE user_id = %(user_id)s AND (%(before)s::BIGINT IS NULL OR id < %(before)s) "
            "ORDER BY id DESC LIMIT %(limit)s",
            {"user_id": user_id, "before": before_id, "limit": limit},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class RefundToTell:
    """What there is to say of a refund.

    Attributes:
        photo_count: photos that it is for; 0: it is not about photos.
        photos_failed, photos_delivered: of the payment's set, by now.
    """

    id: int
    user_id: int
    payment_id: int
    status: str
    reason: str
    amount_minor: int
    currency: str
    photo_count: int
    photos_failed: int
    photos_delivered: int
    by_hand: bool


async def read_refunds_to_tell(tx: Connection, refund_ids: Sequence[int]) -> list[RefundToTell]:
    """These refunds, as the transaction sees them."""
    async with tx.cursor(row_factory=class_row(RefundToTell)) as cursor:
        await cursor.execute(
            """
            SELECT r.id, p.user_id, p.id AS payment_id, r.status, r.reason, r.amount_minor, r.currency,
                   (SELECT count(*) FROM refund_lines l
                    WHERE l.refund_id = r.id AND l.kind = 'shortfall') AS photo_count,
                   photos.photos_failed, photos.photos_delivered,
                   -- Its few settlements one by one: of an EXISTS the planner may make a list of all there are.
                   coalesce((SELECT bool_or(s.note IS NOT NULL) FROM refund_settlements s
                             WHERE s.refund_id = r.id), FALSE) AS by_hand
            FROM refunds r JOIN payments p ON p.id = r.payment_id,
            LATERAL (SELECT count(*) FILTER (WHERE t.status = 'failed') AS photos_failed,
                            count(*) FILTER (WHERE t.status = 'completed') AS photos_delivered
                     FROM generation_jobs j JOIN kie_tasks t ON t.job_id = j.id
                     WHERE j.payment_id = p.id AND j.finished_at IS NOT NULL) photos
            WHERE r.id = ANY(%s) ORDER BY r.id
            """,
            [list(refund_ids)],
        )
        return await cursor.fetchall()
