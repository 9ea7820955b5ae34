"""A bank that takes no money: the sandbox provider's stand-in, with a checkout page of its own.

It keeps its books in a file of its own, so that a restart forgets nothing, sends signed notices until they
are answered "OK", the way real banks do, and pays back by keys that live for a day.
"""

import asyncio
import contextlib
import hashlib
import hmac
import html
import json
import secrets
import sqlite3
import ssl
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

from darkroom.twin.bank_books import BankBooks, BankHabits, RefundWish

NOTICE_TRIES_MAX: Final = 12
"""0.2 s doubled 12 times is about a quarter of an hour: a server being restarted is back by then."""
MOVES_MAX: Final = 100
"""Lines of one page of the bank's list."""
_STATUSES: Final = {"pay": "paid", "decline": "canceled"}

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Sandbox bank</title>
<link rel="icon" href="data:,">
<style>body{{font:16px/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.7rem 1.4rem;border:0;border-radius:.6rem;margin-right:.5rem;cursor:pointer}}
.pay{{background:#1a7f37;color:#fff}}small{{color:#666}}</style>
<h1>Sandbox bank</h1><p>{title}</p><p><strong>{amount} {currency}</strong></p>{body}
<p><small>No money moves here. Payment {id}, order {order_id}.</small></p></html>"""
_BUTTONS: Final = """<form method="post" action="{id}/pay" style="display:inline">
<button class="pay">Pay</button></form>
<form method="post" action="{id}/decline" style="display:inline"><button>Decline</button></form>"""


class SandboxBank:
    """The bank's HTTP face.

    Args:
        secret: shared with its one merchant.
        file: where the books are kept.
        public_url: how customers reach the checkout page.
        habits: how it pays back.
    """

    def __init__(
        self, *, secret: str, file: Path, public_url: str, habits: BankHabits | None = None
    ) -> None:
        self._secret = secret
        self.public_url = public_url.rstrip("/")
        self.habits = habits or BankHabits()
        self.books = BankBooks(file, self.habits)
        self._sending: set[asyncio.Task[None]] = set()
        # One for all notices: each of its own would read the machine's list of authorities, 30 ms of standing
        # still. It trusts none of them, since it speaks to its own machine without TLS.
        self._http = httpx.AsyncClient(
            timeout=5,
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._refund_calls = 0
        self.app = Starlette(
            routes=[
                Route("/v1/payments", self._create, methods=["POST"]),
                Route("/v1/payments/{id}", self._show, methods=["GET"]),
                Route("/v1/payments/{id}/refunds", self._show_refunds, methods=["GET"]),
                Route("/v1/orders/{order_id:int}", self._show_order, methods=["GET"]),
                Route("/v1/refunds", self._refund, methods=["POST"]),
                Route("/v1/moves", self._show_moves, methods=["GET"]),
                Route("/checkout/{id}", self._page, methods=["GET"]),
                Route("/checkout/{id}/{choice}", self._choose, methods=["POST"]),
            ]
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["SandboxBank"]:
        """Send what is still undelivered, and stop sending at the end."""
        for row in self.books.rows("SELECT id FROM events WHERE delivered = 0"):
            self._send(row["id"])
        try:
            yield self
        finally:
            for task in list(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            await self._http.aclose()
            self.books.close()

    def payments(self) -> list[dict[str, Any]]:
        """The bank's own list, for reconciliation and tests."""
        return [_public(row) for row in self.books.rows("SELECT * FROM payments")]

    def paid_back(self) -> dict[int, int]:
        """What went back for good, by order."""
        rows = self.books.rows(
            "SELECT p.order_id, sum(r.amount_minor) AS minor FROM refunds r"
            " JOIN payments p ON p.id = r.payment_id WHERE r.status = 'done' GROUP BY p.order_id"
        )
        return {int(row["order_id"]): int(row["minor"]) for row in rows}

    def _refuse(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self._secret}".encode()):
            return None
        return JSONResponse({"error": "unauthorized"}, 401)

    async def _create(self, request: Request) -> Response:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        key = request.headers.get("idempotency-key", "") or secrets.token_hex(8)
        try:
            row = self.books.open_payment(key, await request.json())
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "bad request"}, 400)
        return JSONResponse(self._answer(row), 201)

    async def _show(self, request: Request) -> Response:
        return self._refuse(request) or self._found(
            self.books.payment(str(request.path_params["id"]))
        )

    async def _show_order(self, request: Request) -> Response:
        return self._refuse(request) or self._found(
            self.books.row(
                # Money that came counts before a page that still waits.
                "SELECT * FROM payments WHERE order_id = ?"
                " ORDER BY status = 'paid' DESC, rowid DESC",
                request.path_params["order_id"],
            )
        )

    def _found(self, row: sqlite3.Row | None) -> Response:
        if row is None:
            return JSONResponse({"error": "no such payment"}, 404)
        return JSONResponse(self._answer(row))

    def _answer(self, row: sqlite3.Row) -> dict[str, Any]:
        return {**_public(row), "checkout_url": f"{self.public_url}/checkout/{row['id']}"}

    async def _refund(self, request: Request) -> Response:
        """Pay back: done, pending, refused, or done without a word."""
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        try:
            content = await request.json()
            wish = RefundWish(
                str(content["payment_id"]),
                int(content["amount_minor"]),
                request.headers.get("idempotency-key") or None,
            )
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "bad request"}, 400)
        self._refund_calls += 1
        if self.habits.draws(self.habits.busy_share, "busy", wish.key, self._refund_calls):
            return JSONResponse({"error": "too many requests"}, 429)
        answer = self._refund_of(wish)
        if self.habits.draws(self.habits.silent_share, "silent", wish.key):
            return JSONResponse({"error": "gateway time-out"}, 504)
        return answer

    def _refund_of(self, wish: RefundWish) -> Response:
        payment = self.books.payment(wish.payment_id)
        if payment is None:
            return JSONResponse({"error": "no such payment"}, 404)
        row = None if wish.key is None else self.books.refund_of_key(wish.key)
        if row is not None and row["amount_minor"] != wish.amount_minor:
            return JSONResponse({"error": "key_reused"}, 409)
        if row is None:
            error = self._why_not(payment, wish)
            if error is not None:
                return JSONResponse({"error": error}, 422)
            row = self._pay_back(payment, wish)
        if row["status"] == "refused":
            return JSONResponse({"error": row["code"]}, 422)
        return JSONResponse(_public_refund(row), 201)

    def _why_not(self, payment: sqlite3.Row, wish: RefundWish) -> str | None:
        returned = self.books.returned_minor(wish.payment_id)
        if payment["status"] != "paid" or wish.amount_minor < 1:
            return "not_paid"
        if returned == payment["amount_minor"]:
            return "already_refunded"
        return (
            "amount_too_large" if returned + wish.amount_minor > payment["amount_minor"] else None
        )

    def _pay_back(self, payment: sqlite3.Row, wish: RefundWish) -> sqlite3.Row:
        if self.habits.draws(self.habits.refused_share, "refused", payment["order_id"]):
            return self.books.pay_back(wish, status="refused", code="account_closed")
        slow = self.habits.draws(self.habits.slow_share, "slow", wish.key)
        row = self.books.pay_back(wish, status="pending" if slow else "done")
        if not slow and not self.habits.draws(self.habits.untold_share, "untold", wish.key):
            self._send(self.books.add_event(wish.payment_id))
        return row

    async def _show_refunds(self, request: Request) -> Response:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        rows = self.books.rows(
            "SELECT * FROM refunds WHERE payment_id = ? ORDER BY rowid",
            str(request.path_params["id"]),
        )
        return JSONResponse({"refunds": [_public_refund(row) for row in rows]})

    async def _show_moves(self, request: Request) -> Response:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        try:
            since, until = (float(request.query_params[name]) for name in ("since", "until"))
            after = int(request.query_params.get("after", "0"))
        except (ValueError, KeyError):
            return JSONResponse({"error": "bad request"}, 400)
        rows = self.books.moves(since, until, after, MOVES_MAX)
        lines = [{name: row[name] for name in row.keys()} for row in rows]  # noqa: SIM118 - a Row is no dict
        return JSONResponse(
            {"moves": lines, "next": rows[-1]["id"] if len(rows) == MOVES_MAX else None}
        )

    def refund_outside(
        self, payment_id: str, amount_minor: int, *, is_chargeback: bool = False
    ) -> str:
        """Somebody at the bank pays back, or the customer's bank takes it. The refund's id."""
        wish = RefundWish(payment_id, amount_minor, None)
        row = self.books.pay_back(wish, status="done", is_chargeback=is_chargeback)
        self._send(self.books.add_event(payment_id))
        return str(row["id"])

    def finish_refunds(self, status: str = "done") -> int:
        """What was accepted is done (or refused) now. Returns how many there were."""
        rows = self.books.rows("SELECT id FROM refunds WHERE status = 'pending'")
        for row in rows:
            finished = self.books.finish_refund(row["id"], status)
            if finished is not None:
                self._send(self.books.add_event(finished["payment_id"]))
        return len(rows)

    async def _page(self, request: Request) -> Response:
        row = self.books.payment(str(request.path_params["id"]))
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
        event_id = self.books.decide(payment_id, status)
        if event_id is not None:
            self._send(event_id)
        return self.books.payment(payment_id)

    def _send(self, event_id: str) -> None:
        task = asyncio.create_task(self._deliver(event_id))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def notice(self, event_id: str) -> tuple[str, dict[str, str], bytes]:
        """The notice of an event as it goes out now: address, headers, body."""
        row = self.books.row(
            "SELECT p.* FROM payments p JOIN events e ON e.payment_id = p.id WHERE e.id = ?",
            event_id,
        )
        if row is None:
            raise KeyError(event_id)
        content: dict[str, Any] = {"event_id": event_id, "payment": _public(row)}
        content["payment"]["returned_minor"] = self.books.returned_minor(row["id"])
        body = json.dumps(content).encode()
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
        row = self.books.row(
            "SELECT id FROM events WHERE payment_id = ? ORDER BY rowid LIMIT 1", payment_id
        )
        return None if row is None else str(row["id"])

    def events(self) -> list[str]:
        """Every event's id, oldest first."""
        return [row["id"] for row in self.books.rows("SELECT id FROM events ORDER BY rowid")]

    async def _deliver(self, event_id: str) -> None:
        for attempt in range(NOTICE_TRIES_MAX):
            url, headers, body = self.notice(event_id)
            if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
                return  # this stand-in talks to its own machine only
            with contextlib.suppress(httpx.HTTPError):
                response = await self._http.post(url, content=body, headers=headers)
                if response.is_success and response.text == "OK":
                    self.books.mark_delivered(event_id)
                    return
            await asyncio.sleep(0.2 * 2**attempt)


def _public(row: sqlite3.Row) -> dict[str, Any]:
    names = ("id", "order_id", "amount_minor", "currency", "status", "receipt_email")
    return {name: row[name] for name in names}


def _public_refund(row: sqlite3.Row) -> dict[str, Any]:
    names = ("id", "payment_id", "key", "amount_minor", "status")
    return {
        **{name: row[name] for name in names},
        "is_chargeback": bool(row["is_chargeback"]),
    }
