"""QStash on loopback: its protocol over real HTTP, with faults on order or drawn from a seed.

It signs and delivers for real, to this machine only. What it promises and what it does wrong are those of
external-apis.md, section 2.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.twin.loopback import Cut, Links, beside, loopback
from darkroom.twin.qstash_engine import QStashEngine
from darkroom.twin.qstash_faults import Fault, Habits, Kind
from darkroom.twin.qstash_messages import MistakeError, Order, TwinMessage, read_order
from darkroom.twin.qstash_signature import sign_delivery

__all__ = ["Habits", "QStashTwin", "qstash_twin", "sign_delivery"]

HUGE_BYTES: Final = 2_000_000
PAGE: Final = 100

Door = Callable[[Request], Awaitable[Response]]


class QStashTwin(QStashEngine):
    """The stand-in and its doors.

    Attributes:
        base_url: its address.
        requests: how many requests came in, whatever became of them.
    """

    def __init__(self, habits: Habits) -> None:
        super().__init__(habits)
        self.base_url = ""
        self.requests = 0
        self.links: Links = {}
        self.closing = asyncio.Event()

    def door(self, name: str) -> Door:
        """A door for whoever has the token; what it refuses is said as QStash says it."""
        inner: Door = getattr(self, name)

        async def guarded(request: Request) -> Response:
            self.requests += 1
            if request.headers.get("authorization") != f"Bearer {self.habits.token}":
                return _error("invalid token", 401)
            try:
                return await inner(request)
            except MistakeError as error:
                return _error(str(error), error.status)

        return guarded

    async def publish(self, request: Request) -> Response:
        """POST /v2/publish/{destination}: the destination stands in the path as it is."""
        return await self._publishing(request, "/v2/publish/", queue=None)

    async def enqueue(self, request: Request) -> Response:
        """POST /v2/enqueue/{queue}/{destination}: one after the other."""
        queue = request.path_params["queue"]
        return await self._publishing(request, f"/v2/enqueue/{queue}/", queue=queue)

    async def batch(self, request: Request) -> Response:
        """POST /v2/batch."""
        wishes: list[dict[str, Any]] = await request.json()
        orders = [
            read_order(
                str(wish["destination"]),
                str(wish.get("body") or "").encode(),
                wish.get("headers") or {},
                queue=wish.get("queue"),
            )
            for wish in wishes
        ]
        broken, keeps = await self._fault()
        if broken is not None and not keeps:
            return broken
        answers = [_accepted(*self.accept(order)) for order in orders]
        return broken or JSONResponse(answers)

    async def message(self, request: Request) -> Response:
        """GET and DELETE /v2/messages/{id}: what was delivered is not there any more."""
        message = self.messages.get(request.path_params["id"])
        if message is None or not message.is_live:
            raise MistakeError("message not found", 404)
        if request.method == "DELETE":
            self.cancel(message.id)
            return Response(status_code=202)
        return JSONResponse(message.record())

    async def cancel_messages(self, request: Request) -> Response:
        """DELETE /v2/messages: those that the body names, or all."""
        body = await request.body()
        ids: list[str] = json.loads(body)["messageIds"] if body else list(self.messages)
        return JSONResponse({"cancelled": sum(self.cancel(one) for one in ids)})

    async def make_schedule(self, request: Request) -> Response:
        """POST /v2/schedules/{destination}; the same id overwrites."""
        order = await _order_in(request, "/v2/schedules/", queue=None)
        schedule_id = request.headers.get("upstash-schedule-id") or f"scd_{uuid4().hex}"
        if schedule_id not in self.schedules and len(self.schedules) >= self.habits.schedules_max:
            raise MistakeError("maximum number of schedules exceeded", 412)
        try:
            self.plan(schedule_id, request.headers.get("upstash-cron", ""), order)
        except (ValueError, KeyError) as error:
            raise MistakeError(f"invalid cron: {error}") from error
        return JSONResponse({"scheduleId": schedule_id}, 201)

    async def list_schedules(self, _request: Request) -> Response:
        """GET /v2/schedules."""
        return JSONResponse([schedule.record() for schedule in self.schedules.values()])

    async def schedule(self, request: Request) -> Response:
        """GET and DELETE /v2/schedules/{id}."""
        schedule = self.schedules.get(request.path_params["id"])
        if schedule is None:
            raise MistakeError("schedule not found", 404)
        if request.method == "DELETE":
            del self.schedules[schedule.id]
            return Response(status_code=200)
        return JSONResponse(schedule.record())

    async def turn_schedule(self, request: Request) -> Response:
        """PATCH /v2/schedules/{id}/pause and /resume."""
        schedule = self.schedules.get(request.path_params["id"])
        if schedule is None:
            raise MistakeError("schedule not found", 404)
        schedule.is_paused = request.path_params["turn"] == "pause"
        if not schedule.is_paused:
            # What it missed meanwhile is not made up for.
            schedule.next_at = schedule.cron.next_after(self.now())
        return Response(status_code=200)

    async def list_dead(self, request: Request) -> Response:
        """GET /v2/dlq, oldest first; DELETE of those that the body names."""
        if request.method == "DELETE":
            ids: list[str] = (await request.json())["dlqIds"]
            gone = [one for one in ids if self.dead.pop(one, None) is not None]
            return JSONResponse({"deleted": len(gone)})
        wanted = request.query_params
        found = [dead.record() for dead in self.dead.values()]
        names = ("messageId", "url", "queueName", "scheduleId", "label")
        found = [
            one
            for one in found
            if all(name not in wanted or one.get(name) == wanted[name] for name in names)
        ]
        first = int(wanted.get("cursor", "0"))
        last = first + min(int(wanted.get("count", PAGE)), PAGE)
        cursor = {"cursor": str(last)} if last < len(found) else {}
        return JSONResponse({"messages": found[first:last], **cursor})

    async def dead_one(self, request: Request) -> Response:
        """GET and DELETE /v2/dlq/{id}."""
        dead = self.dead.get(request.path_params["id"])
        if dead is None:
            raise MistakeError("message not found", 404)
        if request.method == "DELETE":
            del self.dead[dead.id]
            return Response(status_code=200)
        return JSONResponse(dead.record())

    async def retry_dead(self, request: Request) -> Response:
        """POST /v2/dlq/retry/{id}: a new message, under a new id."""
        dlq_id = request.path_params["id"]
        if dlq_id not in self.dead:
            raise MistakeError("message not found", 404)
        return JSONResponse({"messageId": self.revive(dlq_id).id}, 201)

    async def keys(self, _request: Request) -> Response:
        """GET /v2/keys."""
        return JSONResponse({"current": self.habits.current_key, "next": self.habits.next_key})

    async def rotate_keys(self, request: Request) -> Response:
        """POST /v2/keys/rotate: the next one becomes the current one."""
        self.habits.current_key = self.habits.next_key
        self.habits.next_key = f"twin-signing-key-{uuid4().hex}"
        return await self.keys(request)

    async def leave(self) -> None:
        """End what is under way, so that the server can leave."""
        self.closing.set()
        await self.close()

    async def _publishing(self, request: Request, prefix: str, *, queue: str | None) -> Response:
        order = await _order_in(request, prefix, queue=queue)
        daily = self.habits.messages_daily
        if daily is not None and self.counts["published"] >= daily:
            limit = {"RateLimit-Limit": str(daily), "RateLimit-Remaining": "0"}
            return _error("daily limit exceeded", 429, limit)
        broken, keeps = await self._fault()
        if broken is not None and not keeps:
            return broken
        message, deduplicated = self.accept(order)
        answer = _accepted(message, deduplicated)
        return broken or JSONResponse(answer, 202 if deduplicated else 200)

    async def _fault(self) -> tuple[Response | None, bool]:
        """The answer of a fault, and whether the message was kept before it."""
        fault: Fault = self.lots.draw("publish")
        answer: Response | None = None
        match fault.kind:
            case Kind.ANSWER:
                limit = {"Burst-RateLimit-Limit": "1"} if fault.code == 429 else None  # noqa: PLR2004 - HTTP
                answer = _error("something went wrong", fault.code, limit)
            case Kind.HANG:
                await self.closing.wait()
                # Whoever asked has hung up long ago: there is no connection left to cut.
                answer = _error("leaving", 503)
            case Kind.DROP | Kind.KEEP_THEN_DROP:
                answer = Cut(self.links)
            case Kind.GARBAGE:
                answer = Response("<html>Sorry</html>", media_type="text/html")
            case Kind.HUGE:
                answer = JSONResponse({"messageId": "x" * HUGE_BYTES})
            case _:
                pass
        return answer, fault.kind not in (Kind.ANSWER, Kind.HANG, Kind.DROP)


async def _order_in(request: Request, prefix: str, *, queue: str | None) -> Order:
    """What a request wants delivered. Its destination is read from the raw path: `//` and all."""
    raw = cast("bytes", request.scope["raw_path"]).decode()
    destination = raw.removeprefix(prefix)
    if request.url.query:
        destination = f"{destination}?{request.url.query}"
    return read_order(destination, await request.body(), dict(request.headers), queue=queue)


def _accepted(message: TwinMessage, deduplicated: bool) -> dict[str, Any]:  # noqa: FBT001 - a pair as `accept` gives it
    answer: dict[str, Any] = {"messageId": message.id}
    return answer | {"deduplicated": True} if deduplicated else answer


def _error(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


_DOORS: Final = (
    ("POST", "/v2/publish/{destination:path}", "publish"),
    ("POST", "/v2/enqueue/{queue}/{destination:path}", "enqueue"),
    ("POST", "/v2/batch", "batch"),
    ("DELETE", "/v2/messages", "cancel_messages"),
    ("GET DELETE", "/v2/messages/{id}", "message"),
    ("GET", "/v2/schedules", "list_schedules"),
    ("PATCH", "/v2/schedules/{id}/{turn}", "turn_schedule"),
    ("GET DELETE", "/v2/schedules/{id}", "schedule"),
    ("POST", "/v2/schedules/{destination:path}", "make_schedule"),
    ("GET DELETE", "/v2/dlq", "list_dead"),
    ("POST", "/v2/dlq/retry/{id}", "retry_dead"),
    ("GET DELETE", "/v2/dlq/{id}", "dead_one"),
    ("GET", "/v2/keys", "keys"),
    ("POST", "/v2/keys/rotate", "rotate_keys"),
)


@asynccontextmanager
async def qstash_twin(habits: Habits | None = None) -> AsyncGenerator[QStashTwin]:
    """Run the stand-in on a free port of loopback."""
    twin = QStashTwin(habits or Habits())
    app = Starlette(
        routes=[
            Route(path, twin.door(name), methods=methods.split()) for methods, path, name in _DOORS
        ]
    )
    async with loopback(app, twin.links) as base_url:
        twin.base_url = base_url
        try:
            async with beside(twin.tick()):
                yield twin
        finally:
            await twin.leave()
