"""The tables of the evidence page: which rows, and which of their columns under which headings."""

from typing import Final, NamedTuple


class Section(NamedTuple):
    """A table of the page: which rows, and which of their columns under which headings."""

    table: str
    title: str
    about: str
    columns: dict[str, str]


SECTIONS: Final = (
    Section(
        "consent",
        "What the buyer agreed to",
        "The SHA-256 of the terms and the privacy page, as they stood in that language.",
        {"when": "consented_at", "language": "locale", "SHA-256 of the pages": "terms_sha256"},
    ),
    Section(
        "jobs",
        "The set",
        "One payment starts at most one.",
        {
            "job": "id",
            "status": "status",
            "photos": "total_photos",
            "delivered": "completed_photos",
            "started": "created_at",
            "deadline": "deadline_at",
            "finished": "finished_at",
        },
    ),
    Section(
        "photos",
        "Photos delivered",
        "Stored, hashed and shown to the customer. The last column was read from the store for this page.",
        {
            "photo": "photo",
            "object": "object_key",
            "bytes": "size_bytes",
            "SHA-256": "sha256",
            "stored": "created_at",
            "deleted": "deleted_at",
            "bytes now": "stored_bytes",
        },
    ),
    Section(
        "late_photos",
        "Photos that came too late",
        "Their money had gone back before. Kept as evidence, never shown as delivered.",
        {
            "photo": "photo",
            "object": "object_key",
            "bytes": "size_bytes",
            "SHA-256": "sha256",
            "stored": "created_at",
            "bytes now": "stored_bytes",
        },
    ),
    Section(
        "tasks",
        "Each photo and its share of the price",
        "One row a photo that was paid for. The shares sum to the price. The prompts stand in the JSON file.",
        {
            "photo": "photo",
            "status": "status",
            "share": "share_minor",
            "goes back": "returned_minor",
            "provider": "provider",
            "since": "status_since",
            "last error": "last_error",
        },
    ),
    Section(
        "attempts",
        "Spend ledger",
        "One row before each call that may have cost the generation provider's money.",
        {
            "photo": "photo",
            "no.": "number",
            "provider": "provider",
            "its task": "provider_task_id",
            "called": "called_at",
            "ended": "ended_at",
            "end": "end_state",
            "refusal": "refusal_code",
            "error": "error_code",
            "credits": "credits",
        },
    ),
    Section(
        "dead_letters",
        "Photos that failed for good",
        "",
        {
            "photo": "photo",
            "error": "error_code",
            "what was said": "error_text",
            "attempts": "attempts",
            "when": "created_at",
            "tried again": "replayed_at",
        },
    ),
    Section(
        "refunds",
        "Refunds",
        "What is owed back and why. Settled: by the provider's own books, or by hand with a note.",
        {
            "no.": "id",
            "reason": "reason",
            "amount": "amount_minor",
            "settled": "settled_minor",
            "status": "status",
            "requested": "created_at",
            "back": "succeeded_at",
            "note": "note",
            "last error": "last_error",
        },
    ),
    Section(
        "refund_lines",
        "Refund lines",
        "What each refund is for, photo by photo.",
        {
            "refund": "refund_id",
            "kind": "kind",
            "photo": "photo",
            "amount": "amount_minor",
            "written": "created_at",
        },
    ),
    Section(
        "refund_attempts",
        "Calls to the payment provider",
        "One row before each call that may have given money back.",
        {
            "refund": "refund_id",
            "no.": "number",
            "key": "key",
            "amount": "amount_minor",
            "called": "called_at",
            "answered": "answered_at",
            "answer": "answer",
            "code": "code",
            "what was said": "text",
        },
    ),
    Section(
        "provider_refunds",
        "Money back by the provider's own books",
        "",
        {
            "its id": "provider_refund_id",
            "amount": "amount_minor",
            "our key": "key",
            "chargeback": "is_chargeback",
            "seen": "seen_at",
        },
    ),
    Section(
        "settlements",
        "What settled what",
        "",
        {
            "refund": "refund_id",
            "by provider refund": "provider_refund_row_id",
            "amount": "amount_minor",
            "by hand": "note",
            "when": "settled_at",
        },
    ),
    Section(
        "related_payments",
        "Payments that belong to this one",
        "A second payment for the same order, or photos made again for free.",
        {
            "payment": "id",
            "status": "status",
            "amount": "amount_minor",
            "second money for": "duplicate_of",
            "makes up for": "compensates",
            "makes again photo": "redoes_photo_id",
            "created": "created_at",
        },
    ),
    Section(
        "differences",
        "Where our ledger and the provider's differ",
        "",
        {
            "what": "kind",
            "its id": "subject",
            "ours": "ours_minor",
            "theirs": "theirs_minor",
            "first seen": "first_seen_at",
            "closed": "closed_at",
            "note": "note",
        },
    ),
    Section(
        "inbox_messages",
        "Messages from outside",
        "Verified before they were stored, each once.",
        {
            "from": "source",
            "kind": "kind",
            "its id": "external_id",
            "received": "received_at",
            "done": "processed_at",
            "outcome": "outcome",
            "content": "payload",
        },
    ),
    Section(
        "customer_messages",
        "What the customer was told",
        "",
        {"when": "created_at", "in English": "text_en", "in Russian": "text_ru"},
    ),
    Section(
        "chat_deliveries",
        "Copies to the chat",
        "",
        {
            "photo row": "photo_id",
            "message row": "customer_message_id",
            "status": "status",
            "chat message": "message_id",
            "updated": "updated_at",
            "last error": "last_error",
        },
    ),
    Section(
        "moves",
        "Every move, as the database logged it",
        "Written by triggers: also a status that a person typed would stand here.",
        {
            "when": "moved_at",
            "what": "kind",
            "row": "row_id",
            "from": "from_status",
            "to": "to_status",
        },
    ),
)
