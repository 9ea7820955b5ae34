"""What the older system rented and the torture does not provide: a queue, and the bank's door for refunds.

Both keep their own books in one file beside the database and outlive every process of ours, as the real ones
do. They are better than the real ones: they never fail and never lose anything.
"""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from darkroom.kit.log import get_logger
from darkroom.twin.qstash import sign_delivery

log = get_logger("previous")

FILE: Final = "outside.sqlite"
PROCESS_PATH: Final = "/api/jobs/process"
CALL_SECONDS: Final = 15
LOOK_SECONDS: Final = 0.1
ANSWER_SECONDS: Final = 30
"""The queue waits this long for an answer; it was 3 minutes."""
PAUSES_SECONDS: Final = (1.0, 3.0, 9.0)
"""Before the second, third and fourth delivery: the queue was set to 3 retries, with longer pauses."""


def open_client() -> httpx.AsyncClient:
    """What calls the outside. It keeps no connections, as Darkroom keeps none to the provider."""
    return httpx.AsyncClient(
        timeout=CALL_SECONDS, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )


def open_books(folder: Path) -> sqlite3.Connection:
    """The outside's books, made where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    books = sqlite3.connect(folder / FILE, isolation_level=None, timeout=10)
    books.row_factory = sqlite3.Row
    books.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
        "CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, body TEXT NOT NULL,"
        " deliveries INTEGER NOT NULL DEFAULT 0, due_at REAL NOT NULL);"
        "CREATE TABLE IF NOT EXISTS refunds (id INTEGER PRIMARY KEY, payment_id INTEGER NOT NULL,"
        " amount_minor INTEGER NOT NULL);"
    )
    return books


class RefundDoor:
    """The bank's own door for paying back. It does what it is told, as often as it is told (D4: no key)."""

    def __init__(self, books: sqlite3.Connection) -> None:
        self._books = books

    def pay_back(self, payment_id: int, amount_minor: int) -> None:
        """Pay it back."""
        self._books.execute(
            "INSERT INTO refunds (payment_id, amount_minor) VALUES (?, ?)",
            [payment_id, amount_minor],
        )

    def paid_back(self) -> dict[int, int]:
        """What was paid back in all, by payment."""
        rows = self._books.execute(
            "SELECT payment_id, sum(amount_minor) AS sum FROM refunds GROUP BY payment_id"
        )
        return {int(row["payment_id"]): int(row["sum"]) for row in rows.fetchall()}


class Queue:
    """A queue as QStash is one: it keeps what was published, and delivers it until it hears a 2xx.

    Args:
        books: where it keeps its messages.
        http: how it reaches the server.
        server_url: where the server is.
        key: what it signs with.
    """

    def __init__(
        self, books: sqlite3.Connection, *, http: httpx.AsyncClient, server_url: str, key: str
    ) -> None:
        self._books = books
        self._http = http
        self._url = f"{server_url}{PROCESS_PATH}"
        self._key = key

    def publish(self, content: dict[str, Any]) -> None:
        """Take a message. It will be delivered at least once, unless all deliveries fail."""
        self._books.execute(
            "INSERT INTO messages (id, body, due_at) VALUES (?, ?, ?)",
            [f"msg_{uuid4().hex}", json.dumps(content), time.time()],
        )

    def due(self) -> list[tuple[str, bytes]]:
        """Take the messages whose time has come: their ids and bodies. They come again if nothing is heard."""
        rows = self._books.execute(
            "SELECT id, body FROM messages WHERE due_at <= ? ORDER BY due_at", [time.time()]
        ).fetchall()
        for row in rows:
            self._books.execute(
                "UPDATE messages SET deliveries = deliveries + 1, due_at = ? WHERE id = ?",
                [time.time() + 2 * ANSWER_SECONDS, row["id"]],
            )
        return [(str(row["id"]), str(row["body"]).encode()) for row in rows]

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Deliver once, and keep the message for later where the answer is no 2xx."""
        headers = {
            "Content-Type": "application/json",
            "Upstash-Message-Id": message_id,
            "Upstash-Signature": sign_delivery(body, url=self._url, key=self._key),
        }
        try:
            answer = await self._http.post(
                self._url, content=body, headers=headers, timeout=ANSWER_SECONDS
            )
        except httpx.HTTPError:
            self._postpone(message_id)
            return
        if answer.is_success:
            self._books.execute("DELETE FROM messages WHERE id = ?", [message_id])
        else:
            self._postpone(message_id)

    async def deliver_forever(self) -> None:
        """Deliver what is due until cancelled, every message in a task of its own."""
        # What was under way when the server died was heard to break off.
        self._books.execute(
            "UPDATE messages SET due_at = min(due_at, ?)", [time.time() + PAUSES_SECONDS[0]]
        )
        async with asyncio.TaskGroup() as deliveries:
            while True:
                for message_id, body in self.due():
                    deliveries.create_task(self.deliver(message_id, body))
                await asyncio.sleep(LOOK_SECONDS)

    def _postpone(self, message_id: str) -> None:
        row: sqlite3.Row | None = self._books.execute(
            "SELECT deliveries FROM messages WHERE id = ?", [message_id]
        ).fetchone()
        if row is None:
            return
        deliveries = int(row["deliveries"])
        if deliveries > len(PAUSES_SECONDS):
            # B10: the failure callback that was to refund never did.
            log.warning("the queue gives a message up", message_id=message_id)
            self._books.execute("DELETE FROM messages WHERE id = ?", [message_id])
            return
        self._books.execute(
            "UPDATE messages SET due_at = ? WHERE id = ?",
            [time.time() + PAUSES_SECONDS[deliveries - 1], message_id],
        )
