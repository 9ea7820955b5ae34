"""A small application for the host's stand-in: says who it is, counts in the background, and can hang."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

_counted = {"ticks": 0}
_kept: list[asyncio.Task[None]] = []


async def _count() -> None:
    while True:
        await asyncio.sleep(0.01)
        _counted["ticks"] += 1


async def pid(_request: Request) -> PlainTextResponse:
    """Which process this is."""
    return PlainTextResponse(str(os.getpid()))


async def ticks(_request: Request) -> PlainTextResponse:
    """How often the background task ran."""
    if not _kept:
        _kept.append(asyncio.create_task(_count()))
    return PlainTextResponse(str(_counted["ticks"]))


async def hang(_request: Request) -> PlainTextResponse:
    """Never answers."""
    await asyncio.Event().wait()
    return PlainTextResponse("")


app = Starlette(
    routes=[
        Route("/pid", pid, methods=["GET", "POST"]),
        Route("/ticks", ticks),
        Route("/hang", hang),
    ]
)
