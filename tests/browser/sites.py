"""Where browsers go: the program on a free port of loopback."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from darkroom.__main__ import open_mounts
from darkroom.config import IsolatedSettings, Settings
from darkroom.core.audit import run_audit
from darkroom.edges.serve import listen_on_free_port, make_server
from darkroom.edges.worker import Worker
from darkroom.flow.prepare import prepare
from darkroom.wiring import build_application, bundled_catalog, open_darkroom
from tests.edges.serving import application_of
from tests.shop import Shop


@asynccontextmanager
async def serving(
    application: FastAPI, settings: Settings, listening: socket.socket
) -> AsyncGenerator[str]:
    """An application on a socket; its address."""
    server = make_server(application, settings)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            assert not serving.done(), "the server did not start"
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


@asynccontextmanager
async def open_stage(shop: Shop) -> AsyncGenerator[str]:
    """A test's shop as a site; its address. Nothing works on orders but the test itself."""
    settings = IsolatedSettings.model_validate({"DARKROOM_MODE": "demo"})
    async with serving(application_of(shop), settings, listen_on_free_port()) as url:
        yield url


@asynccontextmanager
async def open_product(dsn: str, folder: Path) -> AsyncGenerator[str]:
    """What `make run` starts, on a test's database; its address. The audit runs at the end."""
    listening = listen_on_free_port()
    settings = IsolatedSettings.model_validate(
        {
            "DARKROOM_MODE": "demo",
            "DARKROOM_DATA_DIR": folder,
            "DARKROOM_PORT": listening.getsockname()[1],
            "DATABASE_URL": dsn,
        }
    )
    async with open_darkroom(settings) as darkroom, open_mounts(settings) as mounts:
        await prepare(darkroom, bundled_catalog())
        application = build_application(darkroom, settings, worker=Worker(darkroom), mounts=mounts)
        async with serving(application, settings, listening) as url:
            yield url
        report = await run_audit(darkroom.database)
        assert report.clean, report.findings
