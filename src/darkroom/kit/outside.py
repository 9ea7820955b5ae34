"""The one way to call the outside: named, timed, limited, and never inside a transaction."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from prometheus_client import Counter, Histogram

from darkroom.kit.checkpoint import checkpoint

_transaction_open: ContextVar[bool] = ContextVar("transaction_open", default=False)

CALL_SECONDS = Histogram(
    "darkroom_outside_call_seconds",
    "How long calls to the outside took.",
    ["call"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CALL_ERRORS = Counter(
    "darkroom_outside_call_errors_total",
    "Calls to the outside that raised.",
    ["call", "error"],
)


class TransactionOpenError(AssertionError):
    """Our own mistake: a call to the outside was made while a transaction was open."""


@contextmanager
def transaction_marked() -> Generator[None]:
    """Mark this context, and the tasks started from it, as inside a transaction."""
    token = _transaction_open.set(True)
    try:
        yield
    finally:
        _transaction_open.reset(token)


def assert_no_transaction(call: str) -> None:
    """Refuse to go outside while a transaction is open: it would hold locks for as long as others like.

    Raises:
        TransactionOpenError: one is open in this context.
    """
    if _transaction_open.get():
        raise TransactionOpenError(f"{call} was called inside a database transaction")


@asynccontextmanager
async def outside_call(call: str, *, timeout_seconds: float) -> AsyncGenerator[None]:
    """Run one call to the outside under its name and its time limit, between two checkpoints of that name.

    Raises:
        TransactionOpenError: a transaction is open.
        TimeoutError: the block took longer than `timeout_seconds`.
    """
    assert_no_transaction(call)
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            await checkpoint(f"outside.{call}.before")
            yield
            await checkpoint(f"outside.{call}.after")
    except Exception as error:
        CALL_ERRORS.labels(call, type(error).__name__).inc()
        raise
    finally:
        CALL_SECONDS.labels(call).observe(time.monotonic() - began)
