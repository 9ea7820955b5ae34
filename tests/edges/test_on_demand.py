"""`darkroom.app`: joined by the first request, tried again after a start that failed."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from darkroom import app
from darkroom.app import OnDemand
from darkroom.config import IsolatedSettings, Settings, SettingsError
from darkroom.flow.darkroom import Darkroom
from darkroom.limits import Limits
from darkroom.wiring import open_darkroom

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
    monkeypatch.setattr(app, "SHARED_SECONDS", 30)
    settings = IsolatedSettings.model_validate(
        {**PLACE, "DATABASE_URL": "host=127.0.0.1 port=9", "DARKROOM_DATA_DIR": tmp_path}
    )
    starts = Counter[str]()

    @asynccontextmanager
    async def counted(settings: Settings, limits: Limits | None) -> AsyncGenerator[Darkroom]:
        starts["tried"] += 1
        async with open_darkroom(settings, limits) as darkroom:
            yield darkroom

    monkeypatch.setattr(app, "open_darkroom", counted)
    async with _client(OnDemand(settings)) as client:
        answers = await asyncio.gather(*(client.get("/healthz") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["retry-after"] for answer in answers)
    # One start was tried for all of them, not one after the other.
    assert starts["tried"] == 1


def test_a_wrong_brand_stops_the_start_and_no_request(tmp_path: Path) -> None:
    settings = IsolatedSettings.model_validate({**PLACE, "DARKROOM_BRAND": tmp_path / "nowhere"})
    with pytest.raises(SettingsError, match="DARKROOM_BRAND"):
        OnDemand(settings)
