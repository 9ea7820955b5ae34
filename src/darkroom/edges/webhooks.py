"""Messages from outside: verify, keep, answer. Nothing is acted on here."""

import json
from typing import Annotated, Any, Final, Protocol, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from darkroom.edges.api import Joined
from darkroom.edges.fields import clean_text, parse_id
from darkroom.edges.gate import BODY_BYTES_MAX
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.receive import (
    receive_generation_callback,
    receive_payment_notice,
    receive_queue_message,
)
from darkroom.kit.log import get_logger

log = get_logger("edges")

router = APIRouter(prefix="/api", tags=["outside"])

PROCESS_PATH: Final = "/api/jobs/process"
TASK_ID_MAX: Final = 200


class QueueReceiver(Protocol):
    """Tells whether the queue signed a delivery."""

    def is_genuine(self, *, signature: str | None, body: bytes, url: str) -> bool:
        """True when it did, for this body and this address."""
        ...


def _queue_of(request: Request) -> QueueReceiver | None:
    receiver: QueueReceiver | None = request.app.state.queue_receiver
    return receiver


@router.post("/jobs/process")
async def process(
    request: Request,
    darkroom: Joined,
    receiver: Annotated[QueueReceiver | None, Depends(_queue_of)],
) -> JSONResponse:
    """A delivery of the outside queue. Any number of the same message has one effect."""
    body = await request.body()
    genuine = receiver is not None and receiver.is_genuine(
        signature=request.headers.get("upstash-signature"),
        body=body,
        # From settings, not from the Host header: a proxy may have changed that one.
        url=f"{darkroom.base_url}{PROCESS_PATH}",
    )
    if not genuine:
        log.warning("queue delivery refused")
        return JSONResponse({"error": "Unauthorized"}, 401)
    fresh = await receive_queue_message(
        darkroom, message_id=request.headers.get("upstash-message-id"), job_id=_job_id(body)
    )
    if not fresh:
        return JSONResponse({"success": True, "duplicate": True, "message": "Already processed"})
    return JSONResponse({"success": True})


def _job_id(body: bytes) -> int:
    try:
        content: Any = json.loads(body)
        return parse_id(content["jobId"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestRefusedError(400, "INVALID_REQUEST", "jobId is missing") from error


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
