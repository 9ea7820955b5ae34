"""What happened to an order, told in time order and in plain words."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from darkroom.flow.gather_evidence import Evidence
from darkroom.ports.money import Money

Row = dict[str, Any]
Tone = Literal["money", "work", "told", "trouble"]


class Event(NamedTuple):
    """One line of the timeline."""

    at: datetime
    tone: Tone
    what: str
    detail: str


_PAYMENT: Final = {
    "pending": "Ordered",
    "succeeded": "The money came",
    "canceled": "Canceled at the payment provider",
    "expired": "Expired without money",
    "refunding": "All of it is to go back",
    "refunded": "All of it is back",
    "partially_refunded": "A part of it is back",
}
_JOB: Final = {
    "pending": "The payment was used: its set was queued",
    "processing": "The set is being made",
    "completed": "The set is whole",
    "partial": "The set ended with some of its photos",
    "failed": "The set ended without a photo",
    "cancelled": "The set was stopped before it began",
}
_REFUND: Final = {
    "succeeded": "went back",
    "failed": "was refused",
    "unknown": "got no answer: the provider's books are asked",
}


def tell_order(evidence: Evidence) -> list[Event]:
    """Everything that a reader of the order's story needs; every single move stands in its own table."""
    record = evidence.record
    tables = record.tables
    currency = record.payment["currency"]
    price = str(Money(record.payment["amount_minor"], currency))
    places = {row["id"]: row["prompt_index"] + 1 for row in tables["tasks"]}
    events = [
        *_tell_moves(tables["moves"], price),
        *_tell_work(tables, places),
        *_tell_refunds(tables, currency),
        *_tell_talk(tables),
    ]
    # Equal times keep the order of telling: what was caused comes after its cause.
    return sorted(events, key=lambda event: event.at)


def _tell_moves(moves: list[Row], price: str) -> Iterator[Event]:
    for move in moves:
        status = move["to_status"]
        if move["kind"] == "payment":
            detail = price if status in ("pending", "succeeded") else ""
            tone: Tone = "trouble" if status in ("canceled", "expired") else "money"
            yield Event(move["moved_at"], tone, _PAYMENT[status], detail)
        elif move["kind"] == "job":
            tone = "trouble" if status in ("partial", "failed") else "work"
            yield Event(move["moved_at"], tone, _JOB[status], f"job {move['row_id']}")
        elif move["kind"] == "refund" and status in _REFUND:
            tone = "money" if status == "succeeded" else "trouble"
            yield Event(move["moved_at"], tone, f"Refund {move['row_id']} {_REFUND[status]}", "")


def _tell_work(tables: dict[str, list[Row]], places: dict[int, int]) -> Iterator[Event]:
    for photo in tables["photos"]:
        what = f"Photo {places[photo['task_id']]} of {len(places)} stored"
        detail = f"{photo['size_bytes']:,} bytes, SHA-256 {photo['sha256'][:16]}…"
        yield Event(photo["created_at"], "work", what, detail)
    for photo in tables["late_photos"]:
        what = f"Photo {places[photo['task_id']]} came after its money had gone back"
        yield Event(photo["created_at"], "trouble", what, "kept, not shown as delivered")
    for letter in tables["dead_letters"]:
        detail = f"{letter['error_code']}: {letter['error_text']}"
        what = f"Photo {places[letter['task_id']]} failed for good"
        yield Event(letter["created_at"], "trouble", what, detail)


def _tell_refunds(tables: dict[str, list[Row]], currency: str) -> Iterator[Event]:
    for refund in tables["refunds"]:
        amount = Money(refund["amount_minor"], currency)
        detail = refund["reason"].replace("_", " ")
        if refund["note"]:
            detail += f": {refund['note']}"
        yield Event(
            refund["created_at"], "money", f"Refund {refund['id']}: {amount} is owed back", detail
        )
    for call in tables["refund_attempts"]:
        amount = Money(call["amount_minor"], currency)
        answer = (call["answer"] or "no answer yet").replace("_", " ")
        said = f" ({call['text']})" if call["text"] else ""
        what = f"The provider was told to pay back {amount}"
        yield Event(call["called_at"], "money", what, f"key {call['key']}, answer: {answer}{said}")
    for back in tables["provider_refunds"]:
        what = f"The provider's books show {Money(back['amount_minor'], currency)} back"
        by = "the customer's bank took it" if back["is_chargeback"] else back["provider_refund_id"]
        yield Event(back["seen_at"], "money", what, by)
    for one in tables["settlements"]:
        if one["note"]:
            amount = Money(one["amount_minor"], currency)
            yield Event(one["settled_at"], "money", f"{amount} was paid by hand", one["note"])


def _tell_talk(tables: dict[str, list[Row]]) -> Iterator[Event]:
    for consent in tables["consent"]:
        what = f"The buyer agreed to the terms ({consent['locale']})"
        yield Event(
            consent["consented_at"], "told", what, f"SHA-256 {consent['terms_sha256'][:16]}…"
        )
    for message in tables["inbox_messages"]:
        if message["kind"] != "generation":
            what = f"Message from {message['source']}: {message['kind'].replace('_', ' ')}"
            outcome = (message["outcome"] or "not acted on yet").replace("_", " ")
            yield Event(message["received_at"], "told", what, outcome)
    for message in tables["customer_messages"]:
        yield Event(message["created_at"], "told", "The customer was told", message["text_en"])
    for difference in tables["differences"]:
        what = f"Our ledger and the provider's differ: {difference['kind'].replace('_', ' ')}"
        yield Event(difference["first_seen_at"], "trouble", what, difference["subject"])
