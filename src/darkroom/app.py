"""The ASGI application for hosting that brings its own server: `darkroom.app:app`.

Such a host may send requests before the start is over, freezes the process between calls, and kills it without
a word. So nothing here runs beside a request: the parts are joined by the first one that comes, and a start
that failed (the database was away) is tried again by the next.
"""

import asyncio
import logging
import math
import time
from contextlib import AsyncExitStack
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.config import Settings, read_settings
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.edges.envelope import failure
from darkroom.flow.prepare import prepare
from darkroom.flow.recognize_store import ForeignStoreError
from darkroom.kit.log import configure_logging, get_logger
from darkroom.limits import Limits
from darkroom.wiring import build_application, bundled_catalog, open_darkroom, read_brand

log = get_logger("edges")

SHARED_SECONDS: Final = 1.0
"""Whoever asks later than this finds out anew."""
RETRY_AFTER_SECONDS: Final = 5
"""A managed database that slept is back within this (Neon: under a second; a failover: a few)."""


class OnDemand:
    """Joins the parts at the first request of a process, and serves from then on.

    It runs no migrations: `darkroom migrate` does, once per deployment, over a direct connection.
    """

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        self._settings = settings
        # Here and not in the first request: a wrong brand stops the start, it is no 500 for a customer.
        self._brand = read_brand(settings)
        self._limits = limits
        self._joining = asyncio.Lock()
        self._parts = AsyncExitStack()
        self._joined: ASGIApp | None = None
        self._failed_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or go through the host's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            joined = await self._join()
        except (
            DatabaseUnavailableError,
            DatabaseRefusedError,
            ForeignStoreError,
            RowBusyError,
        ):
            log.exception("not joined yet")
            refusal = failure(
                503,
                "UNAVAILABLE",
                "Please try again in a moment",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
            await refusal(scope, receive, send)
            return
        await joined(scope, receive, send)

    async def _join(self) -> ASGIApp:
        """The joined application. Raises what kept the database away."""
        async with self._joining:
            if self._joined is not None:
                return self._joined
            if time.monotonic() < self._failed_at + SHARED_SECONDS:
                # Who waited for a start that failed shares its failure: else each would wait for its own.
                raise DatabaseUnavailableError("the start has just failed")
            try:
                self._joined = await self._open()
            except BaseException:
                self._failed_at = time.monotonic()
                raise
            return self._joined

    async def _open(self) -> ASGIApp:
        async with AsyncExitStack() as parts:
            darkroom = await parts.enter_async_context(open_darkroom(self._settings, self._limits))
            await prepare(darkroom, bundled_catalog())
            application = build_application(
                darkroom, self._settings, worker=None, brand=self._brand
            )
            await parts.enter_async_context(application.router.lifespan_context(application))
            self._parts = parts.pop_all()
        return application

    async def _live(self, receive: Receive, send: Send) -> None:
        """The host's word is answered at once: waiting here would only make a cold start longer."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._parts.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _build() -> OnDemand:
    settings = read_settings()
    configure_logging(settings.log_shape, level=logging.INFO)
    return OnDemand(settings)


def __getattr__(name: str) -> OnDemand:
    """`app`, built when a host asks for it: importing this file reads no settings."""
    if name != "app":
        raise AttributeError(name)
    return _build()
