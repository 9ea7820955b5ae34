"""The stand-in bank's books, in a file of its own: payments, refunds, events to be told, and every move.

A refund is keyed as real providers key it: the same key is the same refund for as long as the key lives,
and a new one after that.
"""

import random
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TABLES: Final = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, key TEXT UNIQUE NOT NULL,
 order_id INTEGER NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL,
 title TEXT NOT NULL, return_url TEXT NOT NULL, notify_url TEXT NOT NULL,
 status TEXT NOT NULL DEFAULT 'waiting', receipt_email TEXT);
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, payment_id TEXT NOT NULL,
 delivered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS refunds (id TEXT PRIMARY KEY, payment_id TEXT NOT NULL, key TEXT,
 keyed_at REAL NOT NULL, amount_minor INTEGER NOT NULL, status TEXT NOT NULL,
 is_chargeback INTEGER NOT NULL DEFAULT 0, code TEXT);
CREATE TABLE IF NOT EXISTS moves (id INTEGER PRIMARY KEY, moved_at REAL NOT NULL,
 payment_id TEXT NOT NULL, refund_id TEXT, amount_minor INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS refunds_of_payment ON refunds (payment_id);
CREATE INDEX IF NOT EXISTS payments_of_order ON payments (order_id);
"""


@dataclass
class BankHabits:
    """How the bank pays back. Shares are of all refunds, and drawn from the seed and the refund's key.

    Attributes:
        silent_share: it pays back, and the answer is lost on the way (504).
        refused_share: a definite no, for good: drawn by payment, so that another key meets it again.
        slow_share: accepted, and done only by `finish_refunds`.
        busy_share: "not now" (429), by the number of the call.
        untold_share: paid back, and no notice of it is ever sent.
        key_seconds: how long a key is remembered.
    """

    seed: int = 0
    silent_share: float = 0
    refused_share: float = 0
    slow_share: float = 0
    busy_share: float = 0
    untold_share: float = 0
    key_seconds: float = 86_400

    def draws(self, share: float, *what: object) -> bool:
        """Whether this one is among the share."""
        name = "/".join(str(part) for part in (self.seed, *what))
        return share > 0 and random.Random(name).random() < share  # noqa: S311 - to be repeated


@dataclass(frozen=True, slots=True)
class RefundWish:
    """What a merchant asks for."""

    payment_id: str
    amount_minor: int
    key: str | None


class BankBooks:
    """Everything the bank knows. One process at a time; each method is whole or did not happen."""

    def __init__(self, file: Path, habits: BankHabits) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.habits = habits
        self._books = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._books.row_factory = sqlite3.Row
        self._books.executescript(_TABLES)
        if "receipt_email" not in {row["name"] for row in self.rows("PRAGMA table_info(payments)")}:
            # Books that were begun before there were receipts.
            self._books.execute("ALTER TABLE payments ADD COLUMN receipt_email TEXT")

    def close(self) -> None:
        """Close the file."""
        self._books.close()

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """What a question finds."""
        return self._books.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> sqlite3.Row | None:
        """Its first row."""
        found: sqlite3.Row | None = self._books.execute(query, values).fetchone()
        return found

    def payment(self, payment_id: str) -> sqlite3.Row | None:
        """One payment by the bank's own id."""
        return self.row("SELECT * FROM payments WHERE id = ?", payment_id)

    def open_payment(self, key: str, content: dict[str, Any]) -> sqlite3.Row:
        """A payment to be made; the same key is the same payment."""
        self._books.execute(
            "INSERT INTO payments (id, key, order_id, amount_minor, currency, title, return_url,"
            " notify_url, receipt_email) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO NOTHING",
            (
                f"pay_{secrets.token_hex(8)}",
                key,
                int(content["order_id"]),
                int(content["amount_minor"]),
                str(content["currency"]),
                str(content["title"]),
                str(content["return_url"]),
                str(content["notify_url"]),
                content.get("receipt_email"),
            ),
        )
        row = self.row("SELECT * FROM payments WHERE key = ?", key)
        assert row is not None  # noqa: S101 - inserted above or before
        return row

    def decide(self, payment_id: str, status: str) -> str | None:
        """Waiting -> paid | canceled. The event's id; None: it was decided before."""
        moved = self._books.execute(
            "UPDATE payments SET status = ? WHERE id = ? AND status = 'waiting'",
            [status, payment_id],
        )
        if moved.rowcount != 1:
            return None
        row = self.payment(payment_id)
        if row is not None and status == "paid":
            self._move(payment_id, None, row["amount_minor"])
        return self.add_event(payment_id)

    def add_event(self, payment_id: str) -> str:
        """Something happened to this payment, and the merchant is to be told."""
        event_id = f"evt_{secrets.token_hex(8)}"
        self._books.execute(
            "INSERT INTO events (id, payment_id) VALUES (?, ?)", [event_id, payment_id]
        )
        return event_id

    def mark_delivered(self, event_id: str) -> None:
        """The merchant said OK."""
        self._books.execute("UPDATE events SET delivered = 1 WHERE id = ?", [event_id])

    def _move(self, payment_id: str, refund_id: str | None, amount_minor: int) -> None:
        self._books.execute(
            "INSERT INTO moves (moved_at, payment_id, refund_id, amount_minor) VALUES (?, ?, ?, ?)",
            [time.time(), payment_id, refund_id, amount_minor],
        )

    def returned_minor(self, payment_id: str) -> int:
        """What went back, or is on its way."""
        row = self.row(
            "SELECT coalesce(sum(amount_minor), 0) AS minor FROM refunds"
            " WHERE payment_id = ? AND status IN ('pending', 'done')",
            payment_id,
        )
        return 0 if row is None else int(row["minor"])

    def refund_of_key(self, key: str) -> sqlite3.Row | None:
        """The refund that a key made, while the key lives."""
        return self.row(
            "SELECT * FROM refunds WHERE key = ? AND keyed_at > ? ORDER BY keyed_at DESC",
            key,
            time.time() - self.habits.key_seconds,
        )

    def age_keys(self, seconds: float) -> None:
        """Let time pass for every key: what a day does, without the day."""
        self._books.execute("UPDATE refunds SET keyed_at = keyed_at - ?", [seconds])

    def pay_back(
        self, wish: RefundWish, *, status: str, is_chargeback: bool = False, code: str | None = None
    ) -> sqlite3.Row:
        """Write a refund down."""
        refund_id = f"ref_{secrets.token_hex(8)}"
        self._books.execute(
            "INSERT INTO refunds (id, payment_id, key, keyed_at, amount_minor, status,"
            " is_chargeback, code) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                refund_id,
                wish.payment_id,
                wish.key,
                time.time(),
                wish.amount_minor,
                status,
                is_chargeback,
                code,
            ),
        )
        if status == "done":
            self._move(wish.payment_id, refund_id, wish.amount_minor)
        row = self.row("SELECT * FROM refunds WHERE id = ?", refund_id)
        assert row is not None  # noqa: S101 - inserted above
        return row

    def finish_refund(self, refund_id: str, status: str) -> sqlite3.Row | None:
        """Pending -> done | refused; None: it was not pending."""
        moved = self._books.execute(
            "UPDATE refunds SET status = ? WHERE id = ? AND status = 'pending'", [status, refund_id]
        )
        row = self.row("SELECT * FROM refunds WHERE id = ?", refund_id)
        if moved.rowcount != 1 or row is None:
            return None
        if status == "done":
            self._move(row["payment_id"], refund_id, row["amount_minor"])
        return row

    def moves(self, since: float, until: float, after: int, limit: int) -> list[sqlite3.Row]:
        """The bank's own list: money in and money back, oldest first."""
        return self.rows(
            "SELECT m.id, m.moved_at, m.payment_id, m.refund_id, m.amount_minor, p.order_id,"
            " p.currency FROM moves m JOIN payments p ON p.id = m.payment_id"
            " WHERE m.moved_at >= ? AND m.moved_at < ? AND m.id > ? ORDER BY m.id LIMIT ?",
            since,
            until,
            after,
            limit,
        )
