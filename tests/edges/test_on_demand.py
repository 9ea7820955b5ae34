"""`darkroom.app`: joined by the first request, tried again after a start that failed."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from darkroom import app
from darkroom.app import OnDemand
from darkroom.config import IsolatedSettings
from darkroom.db import database

PLACE = {"DARKROOM_MODE": "demo", "DARKROOM_DATABASE_POOL_SIZE": 2}


def _client(application: OnDemand) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=application)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_the_first_request_joins_and_the_end_closes(dsn: str, tmp_path: Path) -> None:
    """A host may send requests before the start is over, and never say that it was."""
    settings = IsolatedSettings.model_validate(
        {**PLACE, "DATABASE_URL": dsn, "DARKROOM_DATA_DIR": tmp_path}
    )
    application = OnDemand(settings)
    async with _client(application) as client:
        answers = await asyncio.gather(*(client.get("/healthz") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
    said: list[str] = []
    words = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, str]:
        return {"type": next(words)}

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    await application({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_who_waits_for_a_start_that_fails_does_not_queue_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database away: the fifth request was answered after 25 s, the twelfth past the host's limit."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(app, "SHARED_SECONDS", 30)
    settings = IsolatedSettings.model_validate(
        {**PLACE, "DATABASE_URL": "host=127.0.0.1 port=9", "DARKROOM_DATA_DIR": tmp_path}
    )
    began = time.monotonic()
    async with _client(OnDemand(settings)) as client:
        answers = await asyncio.gather(*(client.get("/healthz") for _ in range(12)))
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["retry-after"] for answer in answers)
    # One wait for all of them: far less than two of them one after the other.
    assert time.monotonic() - began < 2 * database.USE_SECONDS
