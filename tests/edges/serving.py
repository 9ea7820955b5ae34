"""The application over a test's database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from darkroom.brand import Brand, load_brand
from darkroom.edges.queue_door import QueueReceiver
from darkroom.edges.server import ServerParts, build_server
from darkroom.ports.identity import IdentityCheck
from tests.shop import Shop

CRON_SECRET = "cron-secret"


def application_of(
    shop: Shop,
    *,
    demo: bool = True,
    receiver: QueueReceiver | None = None,
    cron: str | None = CRON_SECRET,
    identity_check: IdentityCheck | None = None,
    serverless: bool = False,
    brand: Brand | None = None,
) -> FastAPI:
    """The application over this shop."""
    return build_server(
        shop.darkroom,
        ServerParts(
            demo=demo,
            brand=brand or load_brand(None),
            cron_secret=cron,
            queue_receiver=receiver,
            identity_check=identity_check,
            serverless=serverless,
        ),
    )


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """A client in the same process, without a socket."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
