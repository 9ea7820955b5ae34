"""One worker process for a measurement: the product's own worker and adapters.

Run as `python -m bench.worker DSN FOLDER PROVIDER_URL [CALLBACK_URL [REQUESTS SECONDS]]`. kie.ai is whoever
listens at PROVIDER_URL; with REQUESTS it takes so many creations in SECONDS. Prints a line when it works, and
stops at SIGTERM.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.places import process_settings
from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.config import Settings
from darkroom.core.budget import set_window
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop, spare_the_collector
from darkroom.wiring import open_darkroom

NOBODY: Final = "http://127.0.0.1:9"
"""Where callbacks go when nobody listens for them."""


def make_provider(base_url: str, callback_url: str = NOBODY, *, eager: bool = False) -> KieProvider:
    """The product's adapter of kie.ai, for the instant one: no limit of requests, and no bucket between.

    Args:
        base_url: the instant provider's address.
        callback_url: where it calls back.
        eager: it is asked at once. Where a task is done when it is created and nobody is called back, the 2.5 s
            of politeness are no work that could be measured.
    """
    provider = KieProvider(
        base_url=base_url,
        api_key="bench",
        model="nano-banana-pro",
        callback_base_url=callback_url,
        reference_link=lambda key: f"http://127.0.0.1:9/{key}",
        downloader=Downloader(allow_private=True, hosts_allowed=None),
    )
    if eager:
        provider.first_ask_seconds = 0
    return provider


@asynccontextmanager
async def open_worker(
    settings: Settings,
    base_url: str,
    callback_url: str = NOBODY,
    *,
    window: tuple[int, float] | None = None,
    eager: bool = False,
) -> AsyncGenerator[Darkroom]:
    """The parts of one process, with the instant provider as the one that makes photos.

    Args:
        settings: of the process.
        base_url: the provider's address.
        callback_url: where it calls back.
        window: creations the provider takes, and in how many seconds; None: any number.
        eager: as of `make_provider`, where nobody is called back.
    """
    provider = make_provider(base_url, callback_url, eager=eager and callback_url == NOBODY)
    async with open_darkroom(settings) as darkroom:
        requests, seconds = window or (None, 10)
        provider.window_requests = requests
        async with darkroom.database.transaction() as tx:
            await set_window(tx, provider.account, requests=requests, seconds=seconds)
        try:
            yield replace(
                darkroom,
                generation={"kie": provider},
                new_tasks_go_to="kie",
                base_url=f"http://127.0.0.1:{settings.port}",
            )
        finally:
            await provider.close()


async def _main(dsn: str, folder: str, base_url: str, *more: str) -> None:
    configure_logging("json", level=logging.ERROR)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    callback_url, *limit = more or (NOBODY,)
    window = (int(limit[0]), float(limit[1])) if limit else None
    async with (
        open_worker(
            process_settings(dsn, Path(folder)),
            base_url,
            callback_url or NOBODY,
            window=window,
            eager=True,
        ) as darkroom,
        Worker(darkroom).running(),
    ):
        spare_the_collector()
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:]))
