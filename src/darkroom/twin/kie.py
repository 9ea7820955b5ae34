"""kie.ai on loopback: its protocol over real HTTP, with faults on order or drawn from a seed.

It paints small real pictures, counts what it would have billed, and calls back for real. What it
promises and what it does wrong are those of external-apis.md, section 1.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from darkroom.twin.kie_faults import FINE, Door, Fault, Habits, Kind
from darkroom.twin.kie_tasks import MEDIA_TYPES, TwinTask, mistake_in
from darkroom.twin.loopback import Cut, Links, beside, loopback

LIMIT_SECONDS: Final = 10
TICK_SECONDS: Final = 0.05
DRIP_SECONDS: Final = 0.02
CALLBACK_SECONDS: Final = 5
LATE_SECONDS: Final = 20
"""A callback that comes when its task was asked about, and settled, long ago: twice a lease."""
HUGE_BYTES: Final = 2_000_000

_OK: Final = 200
_MESSAGES: Final = {
    400: "taskId parameter is required",
    401: "You do not have access permissions",
    402: "Credits insufficient",
    422: "recordInfo is null",
    429: "Rate limit exceeded",
    455: "Service is under maintenance",
}


class KieTwin:
    """The stand-in. Its counters say what a real account would have been billed.

    Attributes:
        habits: how it behaves; may be changed at any time.
        base_url: its address.
        tasks: every task ever created, by id.
        served: how often each task's picture was given out whole, by task id.
        requests: how often each door was knocked at.
        callbacks: what each callback was answered: a status, or None for no answer.
        struck: how often each fault that the seed drew was given, by door and kind.
    """

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.base_url = ""
        self.tasks: dict[str, TwinTask] = {}
        self.served: Counter[str] = Counter()
        self.requests: Counter[Door] = Counter()
        self.callbacks: list[int | None] = []
        self.struck: Counter[str] = Counter()
        self.links: Links = {}
        self.closing = asyncio.Event()
        self._scripts: defaultdict[Door, deque[Fault]] = defaultdict(deque)
        self._skipped_seconds = 0.0
        self._creations: deque[float] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            timeout=CALLBACK_SECONDS, trust_env=False, verify=_authorities()
        )

    @property
    def tasks_created(self) -> int:
        """How many tasks there ever were."""
        return len(self.tasks)

    @property
    def tasks_by_token(self) -> Counter[str]:
        """How many tasks were created under each callback address's last part."""
        return Counter(task.token for task in self.tasks.values())

    @property
    def credits_spent(self) -> float:
        """What was billed: a task that fails costs nothing."""
        return sum(task.credits for task in self.tasks.values())

    @property
    def wasted(self) -> list[TwinTask]:
        """Tasks that were billed and whose picture nobody took whole."""
        return [task for task in self.tasks.values() if task.credits and not self.served[task.id]]

    def result_url(self, task: TwinTask) -> str:
        """Where a task's picture is, once it is there."""
        return f"{self.base_url}/results/{task.id}.{task.extension}"

    def script(self, door: Door, *faults: Fault) -> None:
        """The next requests at this door get these faults, one each."""
        self._scripts[door].extend(faults)

    async def advance(self, seconds: float) -> None:
        """Let time pass on the twin's clock. What became due has been called back on return."""
        self._skipped_seconds += seconds
        await self._finish_due()
        await self.callbacks_settled()

    async def finish(self, task_id: str) -> None:
        """The picture is there. Its callback has been delivered when this returns."""
        task = self.tasks[task_id]
        if await self._end_well(task):
            await self._call_back(task)

    async def fail(self, task_id: str, code: str, text: str = "Internal server error") -> None:
        """The task fails there. Its callback has been delivered when this returns."""
        task = self.tasks[task_id]
        if self._end(task, code, text):
            await self._call_back(task)

    async def forge_callback(self, callback_url: str, task_id: str, result_url: str) -> None:
        """Somebody who knows a callback address claims a success there."""
        record = {
            "taskId": task_id,
            "state": "success",
            "resultJson": json.dumps({"resultUrls": [result_url]}),
        }
        await self._post(callback_url, {"code": 200, "msg": "success", "data": record})

    async def callbacks_settled(self) -> None:
        """Wait until every callback under way has been answered."""
        while self._sending:
            await asyncio.gather(*self._sending)

    async def create(self, request: Request) -> Response:
        """POST /api/v1/jobs/createTask."""
        fault = self.draw("create")
        order: dict[str, Any] = await request.json()
        refusal = self._refuse(request) or self._over_limit()
        if refusal is None and fault.kind is Kind.ANSWER:
            refusal = self._error(fault)
        mistake = mistake_in(order)
        if refusal is None and mistake is not None:
            refusal = self._error(Fault(Kind.ANSWER, 422, mistake))
        if refusal is None and self.habits.credits_left < self.habits.price_credits:
            refusal = self._error(Fault(Kind.ANSWER, 402))
        if refusal is not None:
            return refusal
        task = self._commit(order)
        task.is_doomed = fault.kind is Kind.FAILS
        if self.habits.create_seconds:
            await asyncio.sleep(self.habits.create_seconds)
        if fault.kind is Kind.CALLBACK_FIRST:
            await self.finish(task.id)
        return await self._broken(fault) or _success({"taskId": task.id})

    async def ask(self, request: Request) -> Response:
        """GET /api/v1/jobs/recordInfo."""
        fault = self.draw("ask")
        broken = self._refuse(request) or await self._broken(fault)
        if broken is not None:
            return broken
        task_id = request.query_params.get("taskId", "")
        task = self.tasks.get(task_id)
        if task is None:
            return self._error(Fault(Kind.ANSWER, 422 if task_id else 400))
        task.asked()
        asks = task.asks - self.habits.unknown_for_asks
        if asks <= 0:
            return self._error(Fault(Kind.ANSWER, 422))
        if task.ended_at is None and asks >= (self.habits.asks_to_finish or asks + 1):
            await self._finish_soon(task)
        record = task.record(self.result_url(task), self.habits.credit_field, in_callback=False)
        if fault.kind is Kind.STRANGE_STATE:
            record["state"] = "pausing"
        if fault.kind is Kind.OTHER_TASK:
            record["taskId"] = uuid4().hex
        return _success(record)

    async def credit(self, request: Request) -> Response:
        """GET /api/v1/chat/credit."""
        broken = self._refuse(request) or await self._broken(self.draw("credit"))
        return broken or _success(self.habits.credits_left)

    async def fresh_link(self, request: Request) -> Response:
        """POST /api/v1/common/download-url: an address that is good for a while, of our own results only."""
        broken = self._refuse(request) or await self._broken(self.draw("link"))
        if broken is not None:
            return broken
        asked = str((await request.json()).get("url"))
        task = next((t for t in self.tasks.values() if self.result_url(t) == asked), None)
        if task is None or task.state != "success":
            return self._error(Fault(Kind.ANSWER, 422, "The url is not a result of ours"))
        return _success(f"{asked}?until={self._now() + self.habits.link_seconds}")

    async def result(self, request: Request) -> Response:
        """GET /results/{task id}.{extension}."""
        fault = self.draw("result")
        task_id, _, extension = str(request.path_params["file"]).rpartition(".")
        task = self.tasks.get(task_id)
        if fault.kind is Kind.ANSWER or task is None or task.state != "success":
            return Response(status_code=fault.code if fault.kind is Kind.ANSWER else 404)
        if not self._is_alive(task, request.query_params.get("until")):
            return Response(status_code=403)
        media_type = MEDIA_TYPES[extension]
        if fault.kind is Kind.TRUNCATED:
            return Cut(self.links, task.picture(), media_type)
        if fault.kind is Kind.REDIRECT:
            return RedirectResponse(fault.text, 302)
        if fault.kind is Kind.DRIP:
            return StreamingResponse(self._drip(task.picture()), media_type=media_type)
        broken = await self._broken(fault)
        if broken is None:
            self.served[task.id] += 1
        return broken or Response(task.picture(), media_type=media_type)

    def _is_alive(self, task: TwinTask, until: str | None) -> bool:
        """Whether a result's own link, or a temporary one, still opens it."""
        if until is not None:
            return self._now() < float(until)
        lifetime = self.habits.result_seconds
        return lifetime is None or self._now() < (task.ended_at or 0) + lifetime

    def _now(self) -> float:
        return time.time() + self._skipped_seconds

    def draw(self, door: Door) -> Fault:
        """The scripted fault, or one that only the seed, the door and the count decide."""
        self.requests[door] += 1
        if self._scripts[door]:
            return self._scripts[door].popleft()
        lot = f"{self.habits.seed}/{door}/{self.requests[door]}"
        digest = hashlib.sha256(lot.encode()).digest()
        if int.from_bytes(digest[:4]) / 2**32 >= self.habits.fault_rate:
            return FINE
        lots = self.habits.chaos.get(door, ())
        if not lots:
            return FINE
        fault = lots[int.from_bytes(digest[4:8]) % len(lots)]
        self.struck[f"{door} {fault.kind.name.lower()}"] += 1
        return fault

    def _refuse(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {self.habits.api_key}":
            return None
        return self._error(Fault(Kind.ANSWER, 401))

    def _over_limit(self) -> Response | None:
        now = self._now()
        while self._creations and self._creations[0] <= now - LIMIT_SECONDS:
            self._creations.popleft()
        limit = self.habits.creates_limit
        if limit is not None and len(self._creations) >= limit:
            return self._error(Fault(Kind.ANSWER, 429))
        self._creations.append(now)
        return None

    def _error(self, fault: Fault) -> Response:
        message = fault.text or _MESSAGES.get(fault.code, "Internal server error")
        return JSONResponse(
            {"code": fault.code, "msg": message, "data": None},
            status_code=_OK if self.habits.errors_in_body else fault.code,
            headers={} if fault.retry_after is None else {"retry-after": fault.retry_after},
        )

    async def _broken(self, fault: Fault) -> Response | None:
        """The answer of a fault that is the same at each door."""
        answer: Response | None = None
        match fault.kind:
            case Kind.DROP:
                answer = Cut(self.links)
            case Kind.HANG:
                await self.closing.wait()
                answer = Cut(self.links)
            case Kind.GARBAGE | Kind.NOT_A_PICTURE:
                answer = Response("<html>Sorry</html>", media_type="text/html")
            case Kind.HUGE:
                answer = JSONResponse({"code": 200, "msg": "x" * HUGE_BYTES, "data": None})
            case Kind.BLANK:
                answer = _success(None)
            case Kind.ANSWER | Kind.COMMIT_THEN_ANSWER:
                answer = self._error(fault)
            case _:
                pass
        return answer

    def _commit(self, order: dict[str, Any]) -> TwinTask:
        task = TwinTask(id=uuid4().hex, order=order, created_at=self._now())
        task.credits = self.habits.price_credits
        self.habits.credits_left -= task.credits
        self.tasks[task.id] = task
        return task

    async def _end_well(self, task: TwinTask) -> bool:
        """Success, unless a reference can't be read. False: it had ended before."""
        references: list[bytes] = []
        for link in task.input_links if self.habits.reads_references else ():
            try:
                answer = await self._http.get(link)
            except httpx.HTTPError:
                return self._end(task, "451", "Failed to fetch the image")
            if not answer.is_success:
                return self._end(task, "451", "Failed to fetch the image")
            references.append(answer.content)
        if task.is_doomed:
            return self._end(task, "500", "Internal server error")
        if self._never_succeeds(task):
            return self._end(task, "400", "Your prompt was flagged by the content policy")
        if self.habits.painter is not None:
            try:
                task.painted = await self.habits.painter(task.order, references)
            except Exception:  # noqa: BLE001 - a model that breaks fails its task, as there
                return self._end(task, "500", "Internal server error")
        return self._end(task)

    def _never_succeeds(self, task: TwinTask) -> bool:
        """Drawn by what was wished for, not by the try."""
        digest = hashlib.sha256(f"{self.habits.seed}/{task.wish}".encode()).digest()
        return int.from_bytes(digest[:4]) / 2**32 < self.habits.failed_share

    def _end(self, task: TwinTask, fail_code: str = "", fail_text: str = "") -> bool:
        if task.ended_at is not None:
            return False
        task.ended_at = self._now()
        task.state = "fail" if fail_code else "success"
        task.fail_code, task.fail_text = fail_code, fail_text
        if fail_code:
            self.habits.credits_left += task.credits
            task.credits = 0
        return True

    async def _finish_soon(self, task: TwinTask) -> None:
        """End it now; its callback comes whenever the receiver has time."""
        if await self._end_well(task):
            sending = asyncio.create_task(self._call_back(task))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _finish_due(self) -> None:
        age_seconds = self.habits.seconds_to_finish
        if age_seconds is None:
            return
        due = [
            task
            for task in self.tasks.values()
            if task.ended_at is None and task.created_at + age_seconds <= self._now()
        ]
        await asyncio.gather(*(self._finish_soon(task) for task in due))

    async def tick(self) -> None:
        """Finish tasks as real time passes, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._finish_due()

    async def _call_back(self, task: TwinTask) -> None:
        fault = self.draw("callback") if task.callback_url else Fault(Kind.LOST)
        if fault.kind is Kind.LOST:
            return
        if fault.kind is Kind.LATE:
            await asyncio.sleep(LATE_SECONDS)
        if fault.kind is Kind.FORGED:
            await self.forge_callback(task.callback_url, uuid4().hex, "http://127.0.0.1:9/forged")
        success = task.state == "success"
        body = {
            "code": _OK if success else 501,
            "msg": f"Playground task {'completed successfully' if success else 'failed'}.",
            "data": task.record(self.result_url(task), self.habits.credit_field, in_callback=True),
        }
        for _ in range(2 if fault.kind is Kind.TWICE else 1):
            await self._post(task.callback_url, body)

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        headers: dict[str, str] = {}
        if self.habits.hmac_key is not None:
            headers["x-webhook-timestamp"] = stamp = str(int(time.time()))
            signed = f"{body['data']['taskId']}.{stamp}".encode()
            digest = hmac.digest(self.habits.hmac_key.encode(), signed, "sha256")
            headers["x-webhook-signature"] = base64.b64encode(digest).decode()
        try:
            answer = await self._http.post(url, json=body, headers=headers)
        except httpx.HTTPError:
            self.callbacks.append(None)
        else:
            self.callbacks.append(answer.status_code)

    async def _drip(self, picture: bytes) -> AsyncIterator[bytes]:
        for number in range(len(picture)):
            if self.closing.is_set():
                return
            yield picture[number : number + 1]
            await asyncio.sleep(DRIP_SECONDS)

    async def close(self) -> None:
        """End what is under way, so that the server can leave."""
        self.closing.set()
        for sending in list(self._sending):
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._http.aclose()


_authorities = cache(httpx.create_ssl_context)


def _success(data: object) -> Response:
    return JSONResponse({"code": _OK, "msg": "success", "data": data})


@asynccontextmanager
async def kie_twin(habits: Habits | None = None) -> AsyncGenerator[KieTwin]:
    """Run the stand-in on a free port of loopback."""
    twin = KieTwin(habits or Habits())
    app = Starlette(
        routes=[
            Route("/api/v1/jobs/createTask", twin.create, methods=["POST"]),
            Route("/api/v1/jobs/recordInfo", twin.ask),
            Route("/api/v1/chat/credit", twin.credit),
            Route("/api/v1/common/download-url", twin.fresh_link, methods=["POST"]),
            Route("/results/{file}", twin.result),
        ]
    )
    async with loopback(app, twin.links) as base_url:
        twin.base_url = base_url
        try:
            async with beside(twin.tick()):
                yield twin
        finally:
            await twin.close()
