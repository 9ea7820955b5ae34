"""The customers, the bank and the queue, all of them impatient: everything is said more than once."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httpx

from darkroom.kit.backoff import backoff_seconds
from darkroom.torture.design import Design, Sold, Surroundings
from darkroom.torture.plan import SOLD, Order, Plan
from darkroom.twin.bank import SandboxBank
from darkroom.twin.qstash import sign_delivery

CALL_SECONDS: Final = 10
PAUSE_SECONDS: Final = 0.5
PAUSE_CAP_SECONDS: Final = 5
"""Customers press again sooner than they should, and then less and less often: a crowd that knocks twice a
second for ever would measure the machine, not the design."""
PATIENCE_SECONDS: Final = 120
"""After this a customer without an answer leaves. Deaths and databases come back within seconds."""
REPEATS_SPREAD_SECONDS: Final = 15
"""Copies of a message arrive late and out of order, up to this."""


@dataclass(slots=True)
class Sale:
    """One order as its customer saw it."""

    order: Order
    payment_id: int | None = None
    payment_ids: set[int] = field(default_factory=set[int])
    job_ids: set[int] = field(default_factory=set[int])
    done: bool = False


class Customers:
    """All orders of a plan, each in a task of its own.

    Attributes:
        sales: what became of each order, by its number.
        repeated: how many messages were said once more than needed, by kind.
    """

    def __init__(
        self,
        plan: Plan,
        design: Design,
        places: Surroundings,
        bank: SandboxBank,
        avatars: dict[int, int],
    ) -> None:
        self._plan = plan
        self._design = design
        self._places = places
        self._bank = bank
        self._avatars = avatars
        self._began = time.monotonic()
        self.sales = {order.number: Sale(order) for order in plan.orders}
        self.repeated: Counter[str] = Counter()
        self._http = httpx.AsyncClient(
            timeout=CALL_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def buy_everything(self) -> None:
        """Every order, from its moment to its customer's last click."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for sale in self.sales.values():
                group.create_task(self._buy(sale))

    def leave(self) -> None:
        """Whoever has not paid by now never will; the bank closes what was left open."""
        for row in self._bank.payments():
            if row["status"] == "waiting":
                self._bank.decide(row["id"], "canceled")

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()

    def sold(self) -> list[Sold]:
        """What the outside knows at the end, joined with the bank's own books."""
        taken: dict[int, list[int]] = {}
        for row in self._bank.payments():
            if row["status"] == "paid":
                taken.setdefault(int(row["order_id"]), []).append(int(row["amount_minor"]))
        returned = self._bank.paid_back()
        habits = self._bank.habits
        return [
            Sold(
                payment_id=sale.payment_id,
                photos=SOLD[sale.order.tier][0],
                price_minor=SOLD[sale.order.tier][1],
                paid_minor=sum(taken.get(sale.payment_id or 0, [])),
                bank_payments=len(taken.get(sale.payment_id or 0, [])),
                job_ids=frozenset(sale.job_ids),
                payment_ids=frozenset(sale.payment_ids),
                returned_minor=returned.get(sale.payment_id or 0, 0),
                refuses_refunds=habits.draws(habits.refused_share, "refused", sale.payment_id),
            )
            for sale in self.sales.values()
        ]

    async def _buy(self, sale: Sale) -> None:
        order = sale.order
        lot = random.Random(f"{self._plan.seed}/order/{order.number}")  # noqa: S311 - to be repeated
        await asyncio.sleep(max(0, self._began + order.at_seconds - time.monotonic()))
        try:
            checkout = await self._order(sale)
            if checkout is None:
                return
            paid = self._bank.decide(checkout, "paid" if order.pays else "canceled")
            if paid is None or not order.pays:
                return
            async with asyncio.TaskGroup() as group:
                for _ in range(order.notices):
                    group.create_task(self._notify_again(checkout, lot))
                if not (order.by_notice and self._design.starts_by_notice):
                    await self._generate(sale)
                for number in range(order.deliveries if sale.job_ids else 0):
                    group.create_task(self._deliver(sale, min(sale.job_ids), number, lot))
        finally:
            sale.done = True

    async def _order(self, sale: Sale) -> str | None:
        """Press "pay" until there is an answer; the bank's id of the payment."""
        order = sale.order
        body: dict[str, Any] = {"tierId": order.tier, "telegramUserId": order.telegram_user_id}
        if order.by_notice:
            body |= {"avatarId": self._avatars[order.telegram_user_id], "styleId": order.style}
        key = {"Idempotency-Key": f"order-{order.number}"}
        async for clicks in self._presses(order):
            answers = await asyncio.gather(
                *(self._post("/api/payments", body, key) for _ in range(clicks))
            )
            answered = [answer["data"] for answer in answers if answer.get("success")]
            sale.payment_ids |= {int(data["paymentId"]) for data in answered}
            if answered:
                sale.payment_id = int(answered[0]["paymentId"])
                return str(answered[0]["checkoutUrl"]).rpartition("/")[2]
        return None

    async def _presses(self, order: Order) -> AsyncGenerator[int]:
        """How many clicks at once, again and again: an impatient crowd of them first, then single ones."""
        ends_at = time.monotonic() + PATIENCE_SECONDS
        clicks, tries = order.clicks, 0
        while time.monotonic() < ends_at:
            self.repeated["click"] += clicks - (tries == 0)
            yield clicks
            pause = backoff_seconds(
                tries, base_seconds=PAUSE_SECONDS, cap_seconds=PAUSE_CAP_SECONDS
            )
            await asyncio.sleep(pause)
            clicks, tries = 1, tries + 1

    async def _generate(self, sale: Sale) -> None:
        """Press "generate" until some answer names the job."""
        order = sale.order
        body = {
            "telegramUserId": order.telegram_user_id,
            "avatarId": self._avatars[order.telegram_user_id],
            "styleId": order.style,
            "useStoredReferences": True,
            "paymentId": sale.payment_id,
        }
        async for clicks in self._presses(order):
            answers = await asyncio.gather(
                *(self._post("/api/generate", body, {}) for _ in range(clicks))
            )
            consumed = False
            for answer in answers:
                if answer.get("success"):
                    sale.job_ids.add(int(answer["data"]["jobId"]))
                    continue
                error: dict[str, Any] = answer.get("error") or {}
                details: dict[str, Any] = error.get("details") or {}
                consumed = consumed or error.get("code") == "PAYMENT_CONSUMED"
                if details.get("jobId") is not None:
                    sale.job_ids.add(int(details["jobId"]))
            if consumed or sale.job_ids:
                return

    async def _notify_again(self, bank_payment_id: str, lot: random.Random) -> None:
        """A copy of the bank's notice, whenever it comes."""
        await asyncio.sleep(lot.uniform(0, REPEATS_SPREAD_SECONDS))
        event_id = self._bank.event_of(bank_payment_id)
        if event_id is None:
            return
        url, headers, content = self._bank.notice(event_id)
        self.repeated["notice"] += 1
        await self._send(url, content, headers)

    async def _deliver(self, sale: Sale, job_id: int, number: int, lot: random.Random) -> None:
        """One of several copies of the same queue message, signed as the queue does."""
        await asyncio.sleep(lot.uniform(0, REPEATS_SPREAD_SECONDS))
        body = json.dumps({"jobId": job_id}).encode()
        url = f"{self._places.server_url}/api/jobs/process"
        headers = {
            "Content-Type": "application/json",
            "Upstash-Message-Id": f"message-{sale.order.number}",
            "Upstash-Signature": sign_delivery(body, url=url, key=self._places.queue_key),
        }
        self.repeated["queue message"] += number > 0
        await self._send(url, body, headers)

    async def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> dict[str, Any]:
        """The answer, or nothing where none came or it was none."""
        try:
            answer = await self._http.post(
                f"{self._places.server_url}{path}", json=body, headers=headers
            )
            content: Any = answer.json()
        except (httpx.HTTPError, ValueError):
            return {}
        return cast("dict[str, Any]", content) if isinstance(content, dict) else {}

    async def _send(self, url: str, content: bytes, headers: dict[str, str]) -> None:
        try:
            await self._http.post(url, content=content, headers=headers)
        except httpx.HTTPError:
            return
