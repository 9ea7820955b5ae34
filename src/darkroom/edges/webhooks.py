"""Messages from outside: verify, keep, answer. Nothing is acted on here."""

import json
from base64 import b64decode
from typing import Any, Final, cast
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from darkroom.edges.api import Joined
from darkroom.edges.envelope import failure
from darkroom.edges.fields import clean_text, parse_optional_id
from darkroom.edges.gate import BODY_BYTES_MAX
from darkroom.edges.queue_door import Queue
from darkroom.flow.errors import not_found
from darkroom.flow.receive import (
    QueueFailure,
    receive_generation_callback,
    receive_payment_notice,
    receive_queue_failure,
    receive_queue_message,
)
from darkroom.flow.work_in_calls import work_in_call

router = APIRouter(prefix="/api", tags=["outside"])

PROCESS_PATH: Final = "/api/jobs/process"
FAILED_PATH: Final = "/api/jobs/failed"
TASK_ID_MAX: Final = 200
QUEUE_ID_MAX: Final = 1000
SMALL_MAX: Final = 100_000
NOT_RETRYABLE: Final = 489
"""QStash's own status: with a header beside it, the message is given up at once (external-apis 2.3)."""
UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What JSON from outside raises when it is none, or not of the shape it should have."""


@router.post("/jobs/process")
async def process(request: Request, darkroom: Joined, queue: Queue) -> JSONResponse:
    """A delivery of the outside queue. Any number of the same message has one effect.

    Where no worker lives, the call itself then does rounds for a while.
    """
    if not await queue.lets_in(request, f"{darkroom.base_url}{PROCESS_PATH}"):
        return _not_signed()
    try:
        job_id = _job_id(await request.body())
    except UNREADABLE:
        return _not_retryable("jobId is missing")
    fresh = await receive_queue_message(
        darkroom, message_id=request.headers.get("upstash-message-id"), job_id=job_id
    )
    if request.app.state.serverless:
        # Also for a repeat: whoever took the message first may have been killed in the middle of the work.
        await work_in_call(darkroom)
    if not fresh:
        return JSONResponse({"success": True, "duplicate": True, "message": "Already processed"})
    return JSONResponse({"success": True})


@router.post("/jobs/failed")
async def failed(request: Request, darkroom: Joined, queue: Queue) -> JSONResponse:
    """The outside queue gave up on a message. It is kept, and acted on later."""
    if not await queue.lets_in(request, f"{darkroom.base_url}{FAILED_PATH}"):
        return _not_signed()
    try:
        given_up = _failure(await request.body())
    except UNREADABLE:
        return _not_retryable("sourceMessageId is missing")
    await receive_queue_failure(darkroom, given_up)
    return JSONResponse({"success": True})


def _not_signed() -> JSONResponse:
    return JSONResponse({"error": "Unauthorized"}, 401)


def _not_retryable(message: str) -> JSONResponse:
    """What the queue signed and nobody can read is not sent again: any other status is, for a day."""
    return failure(
        NOT_RETRYABLE, "INVALID_REQUEST", message, headers={"Upstash-NonRetryable-Error": "true"}
    )


def _job_id(body: bytes) -> int | None:
    """The job's id; null is whatever is due. Raises UNREADABLE."""
    content: Any = json.loads(body)
    return parse_optional_id(content["jobId"])


def _failure(body: bytes) -> QueueFailure:
    """What was given up. The original message is inside, in base64. Raises UNREADABLE."""
    told: Any = json.loads(body)
    dlq_id = told.get("dlqId")
    return QueueFailure(
        message_id=clean_text(told.get("sourceMessageId") or dlq_id, QUEUE_ID_MAX),
        dlq_id=None if dlq_id is None else clean_text(dlq_id, QUEUE_ID_MAX),
        job_id=_source_job_id(told.get("sourceBody")),
        status=_small_number(told.get("status")),
        retried=_small_number(told.get("retried")),
    )


def _source_job_id(source: object) -> int | None:
    try:
        return _job_id(b64decode(clean_text(source, BODY_BYTES_MAX), validate=True))
    except UNREADABLE:
        return None


def _small_number(value: object) -> int:
    """For people to read: what is no such number is 0."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < SMALL_MAX
    return cast("int", value) if is_one else 0


@router.post("/webhooks/payments/{provider}")
async def payment_notice(provider: str, request: Request, darkroom: Joined) -> PlainTextResponse:
    """A payment provider's notice, answered exactly as that provider demands."""
    reply = await receive_payment_notice(
        darkroom, provider_name=provider, headers=request.headers, body=await request.body()
    )
    return PlainTextResponse(reply)


@router.post("/webhooks/generation/{provider}/{token}")
async def generation_callback(
    provider: str, token: str, request: Request, darkroom: Joined
) -> JSONResponse:
    """A generation provider's callback: only a doorbell, its body is not believed."""
    try:
        attempt_token = UUID(token)
        content = cast("dict[str, Any]", json.loads((await request.body())[:BODY_BYTES_MAX]))
        data = cast("dict[str, Any]", content["data"])
        task_id = clean_text(data.get("taskId") or data.get("task_id"), TASK_ID_MAX)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise not_found("task") from error
    await receive_generation_callback(
        darkroom,
        provider_name=provider,
        token=attempt_token,
        provider_task_id=task_id,
        headers=request.headers,
    )
    return JSONResponse({"success": True})
