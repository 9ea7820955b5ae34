"""One process of the tortured Darkroom: the real server or worker, with a death of its own.

Run as `python -m darkroom.torture.process ROLE LIFE`; the rest stands in the environment. It is the production
wiring, with kie.ai's adapter pointed at its stand-in and the waits of a quiet day shortened. Where no store is
rented, kie.ai gets links that lead nowhere; it does not look.
"""

import logging
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.config import Settings, read_settings
from darkroom.edges.serve import make_server
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.prepare import prepare
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop, spare_the_collector
from darkroom.limits import Limits
from darkroom.torture.design import CALM_LIFE
from darkroom.torture.ours import ATTEMPTS_MAX
from darkroom.wiring import build_application, bundled_catalog, open_darkroom

CHECKPOINTS_LIVED: Final = (2_000, 40_000)
"""A worker passes some hundred checkpoints a second: it dies by itself every minute or two, in mid-step."""
LIMITS: Final = Limits(
    unknown_grace_seconds=8,
    pending_give_up_seconds=60,
    poll_first_seconds=0.3,
    poll_cap_seconds=3,
    retry_base_seconds=0.3,
    retry_cap_seconds=3,
    paused_seconds=1,
    slowed_seconds=0.5,
    refund_ask_first_seconds=0.5,
    refund_ask_cap_seconds=5,
    payment_ask_first_seconds=5,
    payment_ask_cap_seconds=10,
    lock_timeout_ms=2000,
    audit_seconds=20,
    payments_max=100,
    open_jobs_max=100,
)
"""Leases are those of production; waits for others are shortened, so that a run takes minutes, not hours."""


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Darkroom]:
    async with open_darkroom(settings, LIMITS) as darkroom:
        if settings.kie_api_key is not None:
            # A whole shop: every part is as production joins it.
            yield darkroom
            return
        provider = KieProvider(
            base_url=settings.kie_base_url,
            api_key=os.environ["TORTURE_KIE_KEY"],
            model=settings.kie_model,
            callback_base_url=os.environ["TORTURE_PUBLIC_URL"],
            reference_link=lambda key: f"http://127.0.0.1/{key}",
            window_requests=settings.kie_window_requests,
            window_seconds=settings.kie_window_seconds,
            downloader=Downloader(allow_private=True, hosts_allowed=None),
        )
        try:
            yield replace(
                darkroom,
                generation={"kie": provider},
                new_tasks_go_to="kie",
                base_url=os.environ["TORTURE_PUBLIC_URL"],
                max_generation_attempts=ATTEMPTS_MAX,
            )
        finally:
            await provider.close()


class _Life:
    """Ends the process at some checkpoint: which one, the seed of this life decides."""

    def __init__(self, life: str) -> None:
        lot = random.Random(life)  # noqa: S311 - to be repeated
        self._left = 0 if life == CALM_LIFE else lot.randint(*CHECKPOINTS_LIVED)

    async def __call__(self, _name: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def _serve(darkroom: Darkroom, settings: Settings) -> None:
    await prepare(darkroom, bundled_catalog())
    application = build_application(darkroom, settings, worker=None)
    await make_server(application, settings).serve()


async def _main(role: str, life: str) -> None:
    configure_logging("json", level=logging.WARNING)
    settings = read_settings()
    async with _opened(settings) as darkroom:
        spare_the_collector()
        with checkpoints_handled_by(_Life(life)):
            if role == "server":
                await _serve(darkroom, settings)
            else:
                await Worker(darkroom).run_forever()


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:3]))
