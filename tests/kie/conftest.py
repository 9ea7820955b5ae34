import logging
from collections.abc import AsyncGenerator, Generator, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider, KieTerms
from darkroom.core.audit import run_audit
from darkroom.db.database import Database
from darkroom.flow.prepare import prepare
from darkroom.ports.generation import GenerationProvider
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.loopback import loopback
from darkroom.wiring import bundled_catalog
from tests.edges.serving import application_of
from tests.shop import Shop, open_shop


@dataclass
class KieShop:
    """A shop that buys at kie.ai's stand-in; its callbacks come in at the real door, over the wire."""

    shop: Shop
    twin: KieTwin
    provider: KieProvider
    door_url: str
    stack: AsyncExitStack
    inside: list[ASGIApp]

    def serve(self) -> None:
        """Restart the server with the program as it is now."""
        self.inside[:] = [application_of(self.shop)]

    def kie(
        self, *, name: str = "kie", model: str = "nano-banana-pro", terms: KieTerms | None = None
    ) -> KieProvider:
        """A provider of the same account, closed after the test."""
        provider = KieProvider(
            base_url=self.twin.base_url,
            api_key="twin-key",
            name=name,
            model=model,
            terms=terms,
            callback_base_url=self.door_url,
            reference_link=lambda key: f"https://photos.example/{key}",
            downloader=Downloader(allow_private=True, hosts_allowed=None, timeout_seconds=5),
            call_seconds=10,
        )
        self.stack.push_async_callback(provider.close)
        return provider

    async def use(self, *providers: GenerationProvider, fallback: tuple[str, ...] = ()) -> None:
        """Restart the program with these providers, the first one for new sets."""
        self.shop.darkroom = replace(
            self.shop.darkroom,
            generation={one.name: one for one in providers},
            new_tasks_go_to=providers[0].name,
            generation_fallback=fallback,
        )
        await prepare(self.shop.darkroom, bundled_catalog())


@pytest.fixture
async def kie_shop(database: Database, tmp_path: Path) -> AsyncGenerator[KieShop]:
    """The program with the real adapter, the stand-in, and the real door. Audited at the end."""
    inside: list[ASGIApp] = []

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        await inside[0](scope, receive, send)

    async with AsyncExitStack() as stack:
        twin = await stack.enter_async_context(kie_twin())
        twin.habits.asks_to_finish = 2
        twin.habits.creates_limit = None
        door_url = await stack.enter_async_context(loopback(door, {}))
        shop = await stack.enter_async_context(open_shop(database, tmp_path))
        kie_shop = KieShop(shop, twin, None, door_url, stack, inside)  # pyright: ignore[reportArgumentType]
        kie_shop.provider = kie_shop.kie()
        kie_shop.provider.window_requests = None
        await kie_shop.use(kie_shop.provider)
        kie_shop.serve()
        yield kie_shop
        if shop.audit_at_end:
            report = await run_audit(database)
            assert report.clean, report.findings


@pytest.fixture
def log_lines() -> Generator[list[MutableMapping[str, Any]]]:
    """What is logged from warnings upwards."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


def events(lines: list[MutableMapping[str, Any]], level: str = "error") -> list[str]:
    """What was logged at this level, in order."""
    return [str(line["event"]) for line in lines if line["log_level"] == level]
