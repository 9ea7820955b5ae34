"""A bank that takes no money: the sandbox provider's stand-in, with a checkout page of its own.

It keeps its books in a file of its own, so that a restart forgets nothing, and sends signed notices
until they are answered "OK", the way real banks do.
"""

import asyncio
import contextlib
import hashlib
import hmac
import html
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

NOTICE_TRIES_MAX: Final = 12
"""0.2 s doubled 12 times is about a quarter of an hour: a server being restarted is back by then."""
_STATUSES: Final = {"pay": "paid", "decline": "canceled"}

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Sandbox bank</title>
<style>body{{font:16px/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.7rem 1.4rem;border:0;border-radius:.6rem;margin-right:.5rem;cursor:pointer}}
.pay{{background:#1a7f37;color:#fff}}small{{color:#666}}</style>
<h1>Sandbox bank</h1><p>{title}</p><p><strong>{amount} {currency}</strong></p>{body}
<p><small>No money moves here. Payment {id}, order {order_id}.</small></p></html>"""
_BUTTONS: Final = """<form method="post" action="{id}/pay" style="display:inline">
<button class="pay">Pay</button></form>
<form method="post" action="{id}/decline" style="display:inline"><button>Decline</button></form>"""


class SandboxBank:
    """The bank's books and its HTTP face.

    Args:
        secret: shared with its one merchant.
        file: where the books are kept.
        public_url: how customers reach the checkout page.
    """

    def __init__(self, *, secret: str, file: Path, public_url: str) -> None:
        self._secret = secret
        self._public_url = public_url.rstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._books = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._books.row_factory = sqlite3.Row
        self._books.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, key TEXT UNIQUE NOT NULL,"
            " order_id INTEGER NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL,"
            " title TEXT NOT NULL, return_url TEXT NOT NULL, notify_url TEXT NOT NULL,"
            " status TEXT NOT NULL DEFAULT 'waiting');"
            "CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, payment_id TEXT NOT NULL,"
            " delivered INTEGER NOT NULL DEFAULT 0);"
        )
        self._sending: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/v1/payments", self._create, methods=["POST"]),
                Route("/v1/payments/{id}", self._show, methods=["GET"]),
                Route("/v1/orders/{order_id:int}", self._show_order, methods=["GET"]),
                Route("/checkout/{id}", self._page, methods=["GET"]),
                Route("/checkout/{id}/{choice}", self._choose, methods=["POST"]),
            ]
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["SandboxBank"]:
        """Send what is still undelivered, and stop sending at the end."""
        for row in self._books.execute("SELECT id FROM events WHERE delivered = 0").fetchall():
            self._send(row["id"])
        try:
            yield self
        finally:
            for task in list(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            self._books.close()

    def payments(self) -> list[dict[str, Any]]:
        """The bank's own list, for reconciliation and tests."""
        return [_public(row) for row in self._books.execute("SELECT * FROM payments").fetchall()]

    def _refuse(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self._secret}".encode()):
            return None
        return JSONResponse({"error": "unauthorized"}, 401)

    async def _create(self, request: Request) -> Response:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        key = request.headers.get("idempotency-key", "")
        try:
            content = await request.json()
            values = (
                f"pay_{secrets.token_hex(8)}",
                key or secrets.token_hex(8),
                int(content["order_id"]),
                int(content["amount_minor"]),
                str(content["currency"]),
                str(content["title"]),
                str(content["return_url"]),
                str(content["notify_url"]),
            )
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "bad request"}, 400)
        self._books.execute(
            "INSERT INTO payments (id, key, order_id, amount_minor, currency, title, return_url,"
            " notify_url) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            values,
        )
        row = self._books.execute("SELECT * FROM payments WHERE key = ?", [values[1]]).fetchone()
        return JSONResponse(self._answer(row), 201)

    async def _show(self, request: Request) -> Response:
        return self._refuse(request) or self._found("id", request.path_params["id"])

    async def _show_order(self, request: Request) -> Response:
        return self._refuse(request) or self._found("order_id", request.path_params["order_id"])

    def _found(self, column: str, value: str | int) -> Response:
        by_id = "SELECT * FROM payments WHERE id = ?"
        by_order = "SELECT * FROM payments WHERE order_id = ? ORDER BY rowid DESC"
        row = self._books.execute(by_id if column == "id" else by_order, [value]).fetchone()
        if row is None:
            return JSONResponse({"error": "no such payment"}, 404)
        return JSONResponse(self._answer(row))

    def _answer(self, row: sqlite3.Row) -> dict[str, Any]:
        return {**_public(row), "checkout_url": f"{self._public_url}/checkout/{row['id']}"}

    async def _page(self, request: Request) -> Response:
        row = self._books.execute(
            "SELECT * FROM payments WHERE id = ?", [request.path_params["id"]]
        ).fetchone()
        if row is None:
            return HTMLResponse("No such payment", 404)
        open_page = row["status"] == "waiting"
        back = html.escape(row["return_url"])
        body = (
            _BUTTONS.format(id=row["id"])
            if open_page
            else f'<p>This payment is {row["status"]}. <a href="{back}">Back to the shop</a></p>'
        )
        return HTMLResponse(
            _PAGE.format(
                title=html.escape(row["title"]),
                amount=f"{row['amount_minor'] / 100:.2f}",
                currency=html.escape(row["currency"]),
                body=body,
                id=row["id"],
                order_id=row["order_id"],
            )
        )

    async def _choose(self, request: Request) -> Response:
        status = _STATUSES.get(request.path_params["choice"])
        if status is None:
            return Response("No such button", 404)
        row = self.decide(request.path_params["id"], status)
        if row is None:
            return Response("No such payment", 404)
        return RedirectResponse(row["return_url"], 303)

    def decide(self, payment_id: str, status: str) -> sqlite3.Row | None:
        """The customer pressed a button. Pressing again changes nothing."""
        moved = self._books.execute(
            "UPDATE payments SET status = ? WHERE id = ? AND status = 'waiting'",
            [status, payment_id],
        )
        if moved.rowcount == 1:
            event_id = f"evt_{secrets.token_hex(8)}"
            self._books.execute(
                "INSERT INTO events (id, payment_id) VALUES (?, ?)", [event_id, payment_id]
            )
            self._send(event_id)
        row: sqlite3.Row | None = self._books.execute(
            "SELECT * FROM payments WHERE id = ?", [payment_id]
        ).fetchone()
        return row

    def _send(self, event_id: str) -> None:
        task = asyncio.create_task(self._deliver(event_id))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def notice(self, event_id: str) -> tuple[str, dict[str, str], bytes]:
        """The notice of an event as it goes out now: address, headers, body."""
        row = self._books.execute(
            "SELECT p.* FROM payments p JOIN events e ON e.payment_id = p.id WHERE e.id = ?",
            [event_id],
        ).fetchone()
        body = json.dumps({"event_id": event_id, "payment": _public(row)}).encode()
        unix_seconds = int(time.time())
        signature = hmac.new(
            self._secret.encode(), f"{unix_seconds}.".encode() + body, hashlib.sha256
        ).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "Sandbox-Signature": f"t={unix_seconds},v1={signature}",
        }
        return row["notify_url"], headers, body

    def event_of(self, payment_id: str) -> str | None:
        """The event that a decision about this payment made, if there was one."""
        row = self._books.execute(
            "SELECT id FROM events WHERE payment_id = ? ORDER BY rowid LIMIT 1", [payment_id]
        ).fetchone()
        return None if row is None else str(row["id"])

    def events(self) -> list[str]:
        """Every event's id, oldest first."""
        return [row["id"] for row in self._books.execute("SELECT id FROM events ORDER BY rowid")]

    async def _deliver(self, event_id: str) -> None:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            for attempt in range(NOTICE_TRIES_MAX):
                url, headers, body = self.notice(event_id)
                if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
                    return  # this stand-in talks to its own machine only
                with contextlib.suppress(httpx.HTTPError):
                    response = await client.post(url, content=body, headers=headers)
                    if response.is_success and response.text == "OK":
                        self._books.execute(
                            "UPDATE events SET delivered = 1 WHERE id = ?", [event_id]
                        )
                        return
                await asyncio.sleep(0.2 * 2**attempt)


def _public(row: sqlite3.Row) -> dict[str, Any]:
    names = ("id", "order_id", "amount_minor", "currency", "status")
    return {name: row[name] for name in names}
