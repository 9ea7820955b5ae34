"""What QStash's stand-in does by itself: it delivers, repeats, gives up, calls back, and fires schedules."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

import httpx

from darkroom.twin.qstash_cron import Cron
from darkroom.twin.qstash_faults import Fault, Habits, Kind, Lots
from darkroom.twin.qstash_messages import (
    CALLER,
    DeadMessage,
    Heard,
    Order,
    TwinMessage,
    backoff_seconds,
    is_here,
    read_duration,
    wished_pause_seconds,
)
from darkroom.twin.qstash_signature import sign_delivery

DEDUPLICATION_SECONDS: Final = 600
TICK_SECONDS: Final = 0.02
EXPIRED_SECONDS: Final = 600
STRANGER_KEY: Final = "a-key-of-somebody-else-000000000000"


@dataclass(slots=True)
class TwinSchedule:
    """One schedule."""

    id: str
    cron_text: str
    cron: Cron
    order: Order
    created_at: float
    next_at: float
    is_paused: bool = False
    last_at: float | None = None

    def record(self) -> dict[str, Any]:
        """As `/v2/schedules` shows it."""
        order = self.order
        shown = {
            "scheduleId": self.id,
            "destination": order.url,
            "cron": self.cron_text,
            "createdAt": round(self.created_at * 1000),
            "method": order.method,
            "header": {name: [text] for name, text in order.headers.items()},
            "body": order.body.decode(errors="replace"),
            "retries": order.retries,
            "callback": order.callback,
            "failureCallback": order.failure_callback,
            "label": order.label,
            "isPaused": self.is_paused,
            "callerIP": CALLER,
            "lastScheduleTime": None if self.last_at is None else round(self.last_at * 1000),
            "nextScheduleTime": round(self.next_at * 1000),
        }
        return {name: value for name, value in shown.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery that was tried, and what it was answered."""

    message_id: str
    url: str
    retried: int
    status: int


class QStashEngine:
    """The stand-in without its doors.

    Attributes:
        habits: how it behaves; may be changed at any time.
        messages: every message there ever was, by id.
        dead: messages that were given up, by their id in the DLQ.
        schedules: by id.
        counts: what it did: published, deduplicated, delivered, retried, dlq, cancelled, fired.
        deliveries: every delivery that was tried, in order of their answers.
        lots: what goes wrong next; scripts go here.
    """

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.messages: dict[str, TwinMessage] = {}
        self.dead: dict[str, DeadMessage] = {}
        self.schedules: dict[str, TwinSchedule] = {}
        self.counts: Counter[str] = Counter()
        self.deliveries: list[Delivery] = []
        self.lots = Lots(habits)
        self._deduplicated: dict[str, tuple[str, float]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._began_at = time.time()
        self._scale = habits.time_scale
        self._skipped_seconds = 0.0
        self._http = httpx.AsyncClient(trust_env=False)

    def now(self) -> float:
        """The twin's clock, in unix seconds."""
        passed = (time.time() - self._began_at) * self._scale
        return self._began_at + passed + self._skipped_seconds

    def accept(self, order: Order) -> tuple[TwinMessage, bool]:
        """Keep a message. True: it was here within the last ten minutes, and that one is returned."""
        now = self.now()
        key = order.deduplication_id
        if key is not None and key in self._deduplicated:
            message_id, at = self._deduplicated[key]
            if now < at + DEDUPLICATION_SECONDS:
                self.counts["deduplicated"] += 1
                return self.messages[message_id], True
        due_at = order.not_before if order.not_before is not None else now + order.delay_seconds
        message = TwinMessage(order, created_at=now, due_at=max(now, due_at))
        self.messages[message.id] = message
        if key is not None:
            self._deduplicated[key] = message.id, now
        self.counts["published"] += 1
        return message, False

    def cancel(self, message_id: str) -> bool:
        """Deliver it no more. False: there is nothing to cancel."""
        message = self.messages.get(message_id)
        if message is None or not message.is_live:
            return False
        message.state = "CANCELLED"
        self.counts["cancelled"] += 1
        return True

    def revive(self, dlq_id: str) -> TwinMessage:
        """A dead message once more, as a new one. Raises KeyError."""
        dead = self.dead.pop(dlq_id)
        return self.accept(replace(dead.message.order, deduplication_id=None, delay_seconds=0))[0]

    def plan(self, schedule_id: str, cron_text: str, order: Order) -> TwinSchedule:
        """Make a schedule, or overwrite the one of this id. Raises ValueError for a wrong expression."""
        cron, now = Cron.parse(cron_text), self.now()
        schedule = TwinSchedule(
            schedule_id,
            cron_text,
            cron,
            replace(order, schedule_id=schedule_id),
            created_at=now,
            next_at=cron.next_after(now),
        )
        self.schedules[schedule_id] = schedule
        return schedule

    async def advance(self, seconds: float) -> None:
        """Let time pass on the twin's clock, event by event. What became due was answered on return."""
        ends_at = self.now() + seconds
        await self.settle()
        while (next_at := self._next_event_at()) <= ends_at:
            self._skip_to(next_at)
            await self.settle()
        self._skip_to(ends_at)
        await self.settle()

    async def settle(self) -> None:
        """Deliver what is due, and wait until every delivery under way was answered."""
        while self.begin_due() or self._sending:
            await asyncio.gather(*self._sending)

    async def tick(self) -> None:
        """Deliver as time passes, until cancelled."""
        while True:
            self.begin_due()
            await asyncio.sleep(TICK_SECONDS)

    async def close(self) -> None:
        """End what is under way."""
        for sending in list(self._sending):
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._http.aclose()

    def begin_due(self) -> int:
        """Fire what is due and begin every delivery that is due and allowed. Returns how many began."""
        now = self.now()
        for schedule in self.schedules.values():
            while not schedule.is_paused and schedule.next_at <= now:
                self.accept(schedule.order)
                self.counts["fired"] += 1
                schedule.last_at = schedule.next_at
                schedule.next_at = schedule.cron.next_after(schedule.next_at)
        waiting = [m for m in self.messages.values() if m.is_live and not m.is_under_way]
        begun = 0
        for message in sorted(waiting, key=lambda one: one.due_at):
            if message.due_at > now or not self._is_allowed(message):
                continue
            fault = self.lots.draw("delivery")
            if fault.kind is Kind.LATE:
                message.due_at = now + self.habits.late_seconds
                continue
            message.is_under_way = True
            sending = asyncio.create_task(self._attempt(message, fault))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
            begun += 1
        return begun

    def _next_event_at(self) -> float:
        times = [m.due_at for m in self.messages.values() if m.is_live and not m.is_under_way]
        times += [s.next_at for s in self.schedules.values() if not s.is_paused]
        return min(times, default=math.inf)

    def _skip_to(self, moment: float) -> None:
        self._skipped_seconds += max(0, moment - self.now())

    def _is_allowed(self, message: TwinMessage) -> bool:
        """Flow control, and queues: one at a time."""
        order = message.order
        under_way = [m.order for m in self.messages.values() if m.is_under_way]
        if order.queue is not None and any(other.queue == order.queue for other in under_way):
            return False
        beside = sum(other.flow_key == order.flow_key for other in under_way)
        return order.flow_key is None or order.parallelism is None or beside < order.parallelism

    async def _attempt(self, message: TwinMessage, fault: Fault) -> None:
        try:
            if fault.kind is Kind.LOST:
                heard = Heard(0)
            elif fault.kind is Kind.AT_ONCE:
                both = await asyncio.gather(*(self._deliver(message, fault) for _ in range(2)))
                heard = next((one for one in both if one.is_success), both[0])
            else:
                heard = await self._deliver(message, fault)
                if heard.is_success and fault.kind is Kind.TWICE:
                    await self._deliver(message, fault)
        finally:
            message.is_under_way = False
        self._judge(message, heard)

    async def _deliver(self, message: TwinMessage, fault: Fault) -> Heard:
        order = message.order
        body = order.body
        key = self.habits.current_key
        if fault.kind is Kind.NEXT_KEY:
            key = self.habits.next_key
        if fault.kind is Kind.STRANGER:
            key = STRANGER_KEY
        signature = sign_delivery(
            body,
            url=f"{order.url}/else" if fault.kind is Kind.WRONG_SUB else order.url,
            key=key,
            age_seconds=EXPIRED_SECONDS if fault.kind is Kind.EXPIRED else 0,
        )
        headers: dict[str, str] = {
            **order.headers,
            "Upstash-Signature": signature,
            "Upstash-Message-Id": message.id,
            "Upstash-Retried": str(message.retried),
            "Upstash-Caller-Ip": CALLER,
            "upstash-region": "loopback",
            "User-Agent": "Upstash-QStash",
        }
        if order.schedule_id is not None:
            headers["Upstash-Schedule-Id"] = order.schedule_id
        heard = await self._post(
            order, headers, body + b"x" if fault.kind is Kind.CORRUPT else body
        )
        self.deliveries.append(Delivery(message.id, order.url, message.retried, heard.status))
        return heard

    async def _post(self, order: Order, headers: Mapping[str, str], body: bytes) -> Heard:
        limit = min(order.timeout_seconds or math.inf, self.habits.answer_seconds)
        try:
            async with asyncio.timeout(limit):
                answer = await self._http.request(
                    order.method, order.url, content=body, headers=dict(headers), timeout=limit
                )
        except (httpx.HTTPError, TimeoutError):
            return Heard(0)
        return Heard(answer.status_code, dict(answer.headers), answer.content)

    def _judge(self, message: TwinMessage, heard: Heard) -> None:
        """Delivered, once more later, or given up."""
        order = message.order
        if order.callback is not None and message.is_live:
            self._call_back(order.callback, order.callback_headers, message.told(heard, None))
        if heard.is_success:
            message.state = "DELIVERED"
            self.counts["delivered"] += 1
        elif not message.is_live:
            return
        elif message.retried >= order.retries or heard.forbids_retries:
            self._give_up(message, heard)
        else:
            now = self.now()
            wished = wished_pause_seconds(heard.headers, now)
            message.retried += 1
            message.due_at = now + (backoff_seconds(message.retried) if wished is None else wished)
            message.state = "RETRY"
            self.counts["retried"] += 1

    def _give_up(self, message: TwinMessage, heard: Heard) -> None:
        message.state = "FAILED"
        dead = DeadMessage(f"dlq_{uuid4().hex}", message, heard)
        self.dead[dead.id] = dead
        self.counts["dlq"] += 1
        order = message.order
        if order.failure_callback is not None:
            told = message.told(heard, dead.id)
            self._call_back(order.failure_callback, order.failure_headers, told)

    def _call_back(self, url: str, wishes: Mapping[str, str], told: dict[str, Any]) -> None:
        """A callback is a message of its own, signed and repeated like any."""
        if not is_here(url):
            return
        self.accept(
            Order(
                url=url,
                body=json.dumps(told).encode(),
                method=wishes.get("method", "POST"),
                headers={
                    "content-type": "application/json",
                    **{
                        name.removeprefix("forward-"): text
                        for name, text in wishes.items()
                        if name.startswith("forward-")
                    },
                },
                retries=int(wishes.get("retries", "3")),
                delay_seconds=read_duration(wishes["delay"]) if "delay" in wishes else 0,
            )
        )
