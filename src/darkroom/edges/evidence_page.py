"""An order's evidence as a file for machines and a page for people. The page escapes every text."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from darkroom.edges.evidence_sections import SECTIONS
from darkroom.edges.evidence_timeline import Event, tell_order
from darkroom.flow.gather_evidence import Evidence
from darkroom.ports.money import Money

Row = dict[str, Any]
NOTHING: Final = "-"


def evidence_json(evidence: Evidence) -> str:
    """Everything that was gathered, for machines."""
    record = evidence.record
    content = {
        "payment_id": record.payment["id"],
        "read_at": record.read_at,
        "moves_since": record.moves_since,
        "payment": record.payment,
        "book": {**record.book, "adds_up": record.adds_up},
        **_tables_with_bytes(evidence),
    }
    return json.dumps(content, ensure_ascii=False, indent=2, default=_plain) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def _tables_with_bytes(evidence: Evidence) -> dict[str, list[Row]]:
    tables = dict(evidence.record.tables)
    for name in ("photos", "late_photos"):
        tables[name] = [
            {**row, "stored_bytes": evidence.stored[row["object_key"]]} for row in tables[name]
        ]
    return tables


def evidence_html(evidence: Evidence, *, json_name: str, json_sha256: str) -> str:
    """The page: one file that needs no network and no script. It names the JSON file and its hash."""
    record = evidence.record
    tables = _tables_with_bytes(evidence)
    places = {row["id"]: row["prompt_index"] + 1 for row in record.tables["tasks"]}
    show = _shower(record.payment["currency"], places)
    templates = Environment(
        loader=PackageLoader("darkroom", "web/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("evidence.html").render(
        payment=record.payment,
        verdict=verdict(evidence),
        adds_up=record.adds_up,
        parts=_parts(record.book, record.payment["currency"]),
        facts=_facts(evidence),
        events=_days(tell_order(evidence)),
        sections=[
            {
                "title": section.title,
                "about": section.about,
                "headings": list(section.columns),
                "rows": [
                    [show(row, column) for column in section.columns.values()]
                    for row in tables[section.table]
                ],
            }
            for section in SECTIONS
            if tables[section.table]
        ],
        empty=[section.title for section in SECTIONS if not tables[section.table]],
        json_name=json_name,
        json_sha256=json_sha256,
        read_at=_moment(record.read_at),
        moves_since=record.moves_since and _moment(record.moves_since),
    )


def verdict(evidence: Evidence) -> str:
    """The order in one sentence of money."""
    record = evidence.record
    book, currency = record.book, record.payment["currency"]
    if record.payment["provider"] == "grant":
        return "A free set: no money came and none is owed."
    if book["paid_minor"] == 0:
        return f"No money came for this order ({record.payment['status']})."
    delivered = sum(1 for row in record.tables["tasks"] if row["status"] == "completed")
    parts: list[str] = []
    if book["earned_minor"]:
        photos = "photo" if delivered == 1 else "photos"
        parts.append(f"{Money(book['earned_minor'], currency)} earned with {delivered} {photos}")
    if book["refunded_minor"]:
        parts.append(f"{Money(book['refunded_minor'], currency)} back with the customer")
    owed = Money(book["owed_minor"], currency)
    parts.append(f"{owed} still owed" if book["owed_minor"] else "nothing owed")
    return f"Of {Money(book['paid_minor'], currency)} paid: {', '.join(parts)}."


def _parts(book: Row, currency: str) -> list[Row]:
    paid = int(book["paid_minor"])
    return [
        {
            "name": name,
            "money": str(Money(int(book[f"{name}_minor"]), currency)),
            "percent": round(100 * int(book[f"{name}_minor"]) / paid, 2) if paid else 0,
        }
        for name in ("earned", "refunded", "owed")
    ]


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    record = evidence.record
    payment = record.payment
    bytes_now = list(evidence.stored.values())
    same = bytes_now.count("same")
    customer = f"user {payment['user_id']}"
    if payment["telegram_user_id"] is not None:
        customer += f", Telegram {payment['telegram_user_id']}"
    facts = [
        ("Bought", f"{payment['tier_title']}: {payment['photo_count']} photos"),
        ("Price", str(Money(payment["amount_minor"], payment["currency"]))),
        ("Paid by", f"{payment['provider']} {payment['provider_payment_id'] or NOTHING}"),
        ("Status", payment["status"].replace("_", " ")),
        ("Ordered", _moment(payment["created_at"])),
        ("Money came", _moment(payment["succeeded_at"])),
        ("Customer", customer),
        ("Avatar", payment["avatar_name"] or NOTHING),
        ("Style", payment["style_title"] or NOTHING),
    ]
    if bytes_now:
        facts.append(("Stored bytes", f"{same} of {len(bytes_now)} pictures are what they were"))
    return [*facts, ("Sold under", _policy(payment))]


def _policy(payment: Row) -> str:
    return (
        f"Policy {payment['policy_id']}: photos that were not delivered are paid back; under "
        f"{payment['policy_whole_price_below_percent']} % delivered, the whole price; a set is settled "
        f"after {payment['policy_job_deadline_seconds'] // 60} minutes; unused money goes back after "
        f"{payment['policy_unused_refund_days']} days; photos made again on wish: "
        f"{payment['policy_redo_photos']}"
    )


def _days(events: list[Event]) -> list[Row]:
    """The events by day, so that a day is named once."""
    days: list[Row] = []
    for event in events:
        day = f"{event.at.astimezone(UTC):%A, %d %B %Y}"
        if not days or days[-1]["day"] != day:
            days.append({"day": day, "events": []})
        days[-1]["events"].append(
            {
                "time": f"{event.at.astimezone(UTC):%H:%M:%S}",
                "tone": event.tone,
                "what": event.what,
                "detail": event.detail,
            }
        )
    return days


def _moment(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _shower(currency: str, places: dict[int, int]) -> Callable[[Row, str], Row]:
    """How a value looks in a table, and by which class."""

    def show(row: Row, column: str) -> Row:
        value = places.get(row["task_id"] or 0) if column == "photo" and "task_id" in row else None
        if column == "photo" and value is None and "prompt_index" in row:
            value = None if row["prompt_index"] is None else row["prompt_index"] + 1
        elif column != "photo":
            value = row[column]
        # What a difference calls ours was sold in the payment's currency, whatever the provider says of theirs.
        said_in = None if column == "ours_minor" else row.get("currency")
        return {
            "text": _text(value, column, said_in or currency),
            "kind": _kind(column),
        }

    return show


def _text(value: object, column: str, currency: str) -> str:
    match value:
        case None:
            text = NOTHING
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = _moment(value)
        case int() if column.endswith("_minor"):
            text = str(Money(value, currency))
        case int() if column == "size_bytes":
            text = f"{value:,}"
        case dict():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case _:
            text = str(value)
    return text


_KINDS: Final = {
    "sha256": "hash",
    "object_key": "code",
    "provider_task_id": "code",
    "provider_refund_id": "code",
    "external_id": "code",
    "payload": "code",
    "subject": "code",
    "size_bytes": "number",
    "stored_bytes": "bytes",
}


def _kind(column: str) -> str:
    if column.endswith("_minor"):
        return "number"
    if column.endswith("_at"):
        return "time"
    return _KINDS.get(column, "plain")
