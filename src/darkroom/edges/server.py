"""All ways in by HTTP, joined into one application."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.types import ASGIApp

from darkroom.brand import Brand
from darkroom.edges import (
    api,
    avatars,
    cron,
    direct_uploads,
    events,
    gallery,
    leaving,
    lists,
    ops,
    photos_out,
    policy,
    sessions,
    shares,
    webhooks,
)
from darkroom.edges.envelope import install_error_answers
from darkroom.edges.gate import Gate
from darkroom.edges.identity import Identity
from darkroom.edges.queue_door import QueueDoor, QueueReceiver
from darkroom.edges.site import PAGES, selfies
from darkroom.edges.site.frame import Site
from darkroom.edges.site.route import lost
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.watch_jobs import JobWatch
from darkroom.ports.identity import IdentityCheck


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What the server needs beside the program.

    Attributes:
        brand: the operator's own name, colours, texts and pages.
        upload_origin: where browsers put selfies directly; None: they send them here.
        serverless: no worker lives anywhere: deliveries and cron calls do the work.
        background: runs while the server does (the worker, when it lives in the same process).
        mounts: other applications by path (the sandbox bank in demo mode).
        shows_metrics: /metrics is here, and has no port of its own.
    """

    demo: bool
    cron_secret: str | None
    queue_receiver: QueueReceiver | None
    brand: Brand
    identity_check: IdentityCheck | None = None
    upload_origin: str | None = None
    serverless: bool = False
    background: AbstractAsyncContextManager[None] | None = None
    mounts: Mapping[str, ASGIApp] = field(default_factory=dict[str, ASGIApp])
    shows_metrics: bool = True


def build_server(darkroom: Darkroom, parts: ServerParts) -> FastAPI:
    """The application. Its OpenAPI page is part of the product."""
    watch = JobWatch(darkroom)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            if parts.background is not None:
                await stack.enter_async_context(parts.background)
            stack.push_async_callback(watch.stop)
            yield

    app = FastAPI(
        title="Darkroom",
        description="One payment, one generation; every photo or its money.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.darkroom = darkroom
    app.state.identity = Identity(darkroom, check=parts.identity_check, demo=parts.demo)
    app.state.job_watch = watch
    app.state.cron_secret = parts.cron_secret
    app.state.serverless = parts.serverless
    app.state.queue_door = QueueDoor(parts.queue_receiver)
    app.state.site = Site(
        darkroom, brand=parts.brand, demo=parts.demo, upload_origin=parts.upload_origin
    )
    app.add_middleware(Gate, demo=parts.demo, allowances=(avatars.UPLOADS, selfies.UPLOADS))
    rooms = (
        webhooks,
        sessions,
        leaving,
        policy,
        api,
        lists,
        gallery,
        shares,
        avatars,
        direct_uploads,
        photos_out,
        events,
        cron,
        ops,
        *PAGES,
    )
    for room in rooms:
        app.include_router(room.router)
    if parts.shows_metrics:
        app.include_router(ops.metrics_router)
    for path, mounted in parts.mounts.items():
        app.mount(path, mounted)
    install_error_answers(app, lost)
    return app
