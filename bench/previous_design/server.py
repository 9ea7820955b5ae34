"""The server: orders, the bank's notices, the start of a set, and the queue's messages that carry it out."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from psycopg.rows import DictRow
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bench.previous_design.database import Settings, Statements
from bench.previous_design.jobs import CALLBACK_PATH, JobProcessor
from bench.previous_design.outside import PROCESS_PATH, Queue, open_books, open_client
from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.money import Money
from darkroom.ports.payments import MoneyBackNotice, NoticeRefusedError, PaidState, PaymentRequest

log = get_logger("previous")

BANK_PATH: Final = "/api/webhooks/sandbox"

Handler = Callable[[Request], Awaitable[Response]]


class PreviousServer:
    """The server and what it talks to.

    Attributes:
        app: its HTTP face.
        queue: where it publishes jobs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sql = Statements(settings.dsn)
        self._http = open_client()
        self._bank = SandboxPayments(base_url=settings.bank_url, secret=settings.bank_secret)
        self._books = open_books(Path(settings.folder))
        self.queue = Queue(
            self._books,
            http=self._http,
            server_url=settings.server_url,
            key=settings.queue_key,
        )
        jobs = JobProcessor(settings, sql=self._sql, http=self._http, queue=self.queue)
        self.app = Starlette(
            routes=[
                Route("/api/payments", _answering(self._order), methods=["POST"]),
                Route(BANK_PATH, _answering(self._notice), methods=["POST"]),
                Route("/api/generate", _answering(self._generate), methods=["POST"]),
                Route(PROCESS_PATH, _answering(jobs.process), methods=["POST"]),
                Route(CALLBACK_PATH + "/{token}", self._callback, methods=["POST"]),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        delivering = asyncio.create_task(self.queue.deliver_forever())
        try:
            yield
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._http.aclose()
        await self._bank.close()
        await self._sql.close()
        self._books.close()

    async def _order(self, request: Request) -> Response:
        """POST /api/payments."""
        # A27: an Idempotency-Key is not read; a double click makes two payments, both payable.
        wish: dict[str, Any] = await request.json()
        tier = await self._sql.first(
            "SELECT id, photo_count, amount_minor FROM tiers WHERE id = %s", [wish.get("tierId")]
        )
        user = await self._user(wish)
        if tier is None or user is None:
            return _error(404, "NOT_FOUND", "No such tier or user")
        number = await self._sql.first("SELECT nextval('payment_numbers') AS id")
        payment_id = int(number["id"]) if number else 0
        # E1: the bank knows the payment before we do. Whoever dies here leaves one that no row names.
        checkout = await self._bank.create(
            PaymentRequest(
                payment_id=payment_id,
                key=secrets.token_hex(8),
                price=Money(tier["amount_minor"], self._bank.currency),
                title=f"{tier['photo_count']} AI photos",
                return_url=f"{self._settings.server_url}/payment/success",
                notify_url=f"{self._settings.server_url}{BANK_PATH}",
            )
        )
        await checkpoint("previous.bank_asked")
        await self._sql.run(
            "INSERT INTO payments (id, user_id, bank_payment_id, tier_id, photo_count, amount_minor) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [
                payment_id,
                user["id"],
                checkout.provider_payment_id,
                tier["id"],
                tier["photo_count"],
                tier["amount_minor"],
            ],
        )
        return _success(
            {
                "paymentId": payment_id,
                "checkoutUrl": checkout.url,
                "photoCount": tier["photo_count"],
            }
        )

    async def _notice(self, request: Request) -> Response:
        """The bank's notice. A14: it starts nothing; that is left to the browser's return."""
        try:
            notice = self._bank.verify(request.headers, await request.body())
        except NoticeRefusedError:
            return PlainTextResponse("refused", 401)
        fact = notice.fact
        if isinstance(fact, MoneyBackNotice):
            return PlainTextResponse(self._bank.notice_reply)
        known = await self._sql.first(
            "SELECT status FROM payments WHERE id = %s", [fact.payment_id]
        )
        if known is None:
            return PlainTextResponse("unknown payment", 404)
        if fact.state is PaidState.PAID and known["status"] == "pending":
            await self._sql.run(
                "UPDATE payments SET status = 'succeeded' WHERE id = %s", [fact.payment_id]
            )
        elif fact.state is PaidState.CANCELED:
            # E6: whatever it was before, also paid.
            await self._sql.run(
                "UPDATE payments SET status = 'canceled' WHERE id = %s", [fact.payment_id]
            )
        return PlainTextResponse(self._bank.notice_reply)

    async def _generate(self, request: Request) -> Response:
        """POST /api/generate."""
        wish: dict[str, Any] = await request.json()
        user = await self._user(wish)
        if user is None:
            return _error(404, "NOT_FOUND", "No such user")
        payment = await self._usable_payment(user["id"], wish.get("paymentId"))
        if isinstance(payment, Response):
            return payment
        await checkpoint("previous.payment_checked")
        avatar = await self._sql.first(
            "SELECT id FROM avatars WHERE id = %s AND user_id = %s", [wish["avatarId"], user["id"]]
        )
        if avatar is None:
            return _error(404, "NOT_FOUND", "No such avatar")
        style = str(wish["styleId"])
        # C12: what a running set of this avatar will use is not looked at; both choose the same.
        prompts = await self._sql.run(
            "SELECT id FROM pack_prompts p WHERE style_id = %(style)s AND NOT EXISTS (SELECT FROM "
            "generated_photos g WHERE g.avatar_id = %(avatar)s AND g.prompt = p.prompt) "
            "ORDER BY position LIMIT %(photos)s",
            {"style": style, "avatar": avatar["id"], "photos": payment["photo_count"]},
        )
        if not prompts:
            return _error(400, "NO_PROMPTS_AVAILABLE", "No prompts left for this style")
        # A1: the check above is long ago, and nothing here repeats it.
        await self._sql.run(
            "UPDATE payments SET generation_consumed = TRUE, consumed_at = now(), "
            "consumed_avatar_id = %s WHERE id = %s",
            [avatar["id"], payment["id"]],
        )
        # A2, A3: consumed and without a job, if anything goes wrong between these two statements.
        await checkpoint("previous.payment_consumed")
        job = await self._sql.first(
            "INSERT INTO generation_jobs (payment_id, avatar_id, style_id, total_photos, used_prompt_ids) "
            "VALUES (%s, %s, %s, %s, %s) RETURNING id, status",
            [payment["id"], avatar["id"], style, len(prompts), [one["id"] for one in prompts]],
        )
        job_id = int(job["id"]) if job else 0
        # A4: a job that nobody was told of.
        await checkpoint("previous.job_inserted")
        self.queue.publish({"jobId": job_id})
        return _success(
            {
                "jobId": job_id,
                "avatarId": avatar["id"],
                "status": "pending",
                "totalPhotos": len(prompts),
            }
        )

    async def _user(self, wish: dict[str, Any]) -> DictRow | None:
        return await self._sql.first(
            "SELECT id FROM users WHERE telegram_user_id = %s", [wish.get("telegramUserId")]
        )

    async def _usable_payment(self, user_id: int, payment_id: object) -> DictRow | Response:
        """A paid payment that no set has used, or the refusal."""
        paid = await self._sql.run(
            "SELECT id, photo_count, generation_consumed FROM payments WHERE user_id = %(user)s "
            "AND status = 'succeeded' AND (%(payment)s::bigint IS NULL OR id = %(payment)s) "
            "ORDER BY created_at DESC",
            {"user": user_id, "payment": payment_id},
        )
        if not paid:
            return _error(
                402, "PAYMENT_REQUIRED", "Please complete payment before generating photos"
            )
        free = next((row for row in paid if not row["generation_consumed"]), None)
        return free or _error(
            402,
            "PAYMENT_CONSUMED",
            "Ваш платёж уже использован. Для новой генерации необходима новая оплата.",
        )

    async def _callback(self, _request: Request) -> Response:
        """The provider's callback: nothing was ever done with it, the cron looks anyway."""
        return JSONResponse({"success": True})


def _answering(handler: Handler) -> Handler:
    """Answer 500 to whatever goes wrong inside, and go on serving."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - as the older framework did
            log.warning("request failed", path=request.url.path, error=repr(error))
            return _error(500, "INTERNAL_ERROR", "Something went wrong")

    return answer


def _success(data: dict[str, Any]) -> Response:
    return JSONResponse({"success": True, "data": data})


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse(
        {
            "success": False,
            "error": {"code": code, "message": message, "details": {"code": code}},
        },
        status,
    )
