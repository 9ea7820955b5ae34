"""The shape of every answer: `{"success": true, "data": ...}` or an error with a code."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from darkroom.core.requests import UserLeftError
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.flow.errors import RequestRefusedError, unauthorized
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError

log = get_logger("edges")

RETRY_AFTER_SECONDS: Final = 2
"""A restarted database is back, and a stalled claim's lock timeout is over, within this."""
_CODES: Final = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}


def success(data: Any, status: int = 200) -> JSONResponse:  # noqa: ANN401 - any JSON
    """An answer that worked."""
    return JSONResponse({"success": True, "data": data}, status)


def failure(
    status: int,
    code: str,
    message: str,
    details: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An answer that did not; `details` always repeats the code."""
    return JSONResponse(
        {
            "success": False,
            "error": {
                "code": code,
                "message": message,
                "details": {"code": code, **(details or {})},
            },
        },
        status,
        headers,
    )


Lost = Callable[[Request, int], Awaitable[Response | None]]


def install_error_answers(app: FastAPI, lost: Lost) -> None:
    """Answer every error in the envelope; nothing of a stack or a query reaches the customer.

    `lost` gives a page instead to whoever looks for one that is not there.
    """

    @app.exception_handler(RequestRefusedError)
    async def refused(_request: Request, error: RequestRefusedError) -> JSONResponse:
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status == 503 else None  # noqa: PLR2004
        return failure(error.status, error.code, error.message, error.details, retry)

    @app.exception_handler(UserLeftError)
    async def gone(_request: Request, _error: UserLeftError) -> JSONResponse:
        refusal = unauthorized()
        return failure(refusal.status, refusal.code, refusal.message)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return failure(400, "INVALID_JSON", "The body is not JSON")
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return failure(400, "INVALID_REQUEST", f"{field}: {first['msg']}", {"field": field})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        page = await lost(request, error.status_code)
        if page is not None:
            return page
        code = _CODES.get(error.status_code, "ERROR")
        headers = dict(error.headers) if error.headers else None
        return failure(error.status_code, code, str(error.detail), headers=headers)

    _answer_what_broke(app)


def _answer_what_broke(app: FastAPI) -> None:
    async def busy(_request: Request, error: Exception) -> JSONResponse:
        log.warning("answered 503", error=type(error).__name__)
        return failure(
            503,
            "BUSY" if isinstance(error, RowBusyError) else "UNAVAILABLE",
            "Please try again in a moment",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )

    for kind in (
        DatabaseUnavailableError,
        DatabaseRefusedError,
        RowBusyError,
        StorageUnavailableError,
        TimeoutError,
    ):
        app.add_exception_handler(kind, busy)

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        # Nobody reads this. It is the client's doing, not an error of ours, and nothing was begun.
        log.info("client left in the middle of its request")
        return failure(400, "CLIENT_LEFT", "The request ended in the middle")

    @app.exception_handler(Exception)
    async def broken(_request: Request, error: Exception) -> JSONResponse:
        log.error("unhandled error", error=type(error).__name__)
        return failure(500, "INTERNAL", "Something broke on our side; nothing was charged")
