"""One worker process for a measurement. Run as `python -m bench.worker DSN FOLDER PROVIDER_URL [CALLBACK_URL]`.

The product's own worker and adapters; kie.ai is whoever listens at PROVIDER_URL. Prints a line when it works,
and stops at SIGTERM.
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
from darkroom.core.budget import set_window
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.log import configure_logging
from darkroom.wiring import open_darkroom

NOBODY: Final = "http://127.0.0.1:9"
"""Where callbacks go when nobody listens for them."""


def make_provider(base_url: str, callback_url: str = NOBODY) -> KieProvider:
    """The product's adapter of kie.ai, for the instant one: no limit of requests, and no bucket between."""
    return KieProvider(
        base_url=base_url,
        api_key="bench",
        model="nano-banana-pro",
        callback_base_url=callback_url,
        reference_link=lambda key: f"http://127.0.0.1:9/{key}",
        downloader=Downloader(allow_private=True, hosts_allowed=None),
    )


@asynccontextmanager
async def open_worker(
    dsn: str, folder: Path, base_url: str, callback_url: str = NOBODY
) -> AsyncGenerator[Darkroom]:
    """The parts of one process, with the instant provider as the one that makes photos."""
    settings = process_settings(dsn, folder)
    provider = make_provider(base_url, callback_url)
    async with open_darkroom(settings) as darkroom:
        async with darkroom.database.transaction() as tx:
            await set_window(tx, provider.account, requests=None, seconds=10)
        try:
            yield replace(darkroom, generation={"kie": provider}, new_tasks_go_to="kie")
        finally:
            await provider.close()


async def _main(dsn: str, folder: str, base_url: str, callback_url: str = NOBODY) -> None:
    configure_logging("json", level=logging.ERROR)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        open_worker(dsn, Path(folder), base_url, callback_url) as darkroom,
        Worker(darkroom).running(),
    ):
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(*sys.argv[1:5]))
