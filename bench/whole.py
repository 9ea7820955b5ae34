"""Server and worker in one process for a measurement: `darkroom run` with its bank elsewhere.

Run as `python -m bench.whole DSN FOLDER PROVIDER_URL SECRET@BANK_URL [CALLBACK_URL]`; prints its port, stops at
SIGTERM. kie.ai is whoever listens at PROVIDER_URL, and calls back here, or to CALLBACK_URL.
"""

import logging
import sys
from pathlib import Path
from typing import Final

from bench.places import process_settings
from bench.server import serve
from bench.worker import open_worker
from darkroom.edges.serve import listen_on_free_port
from darkroom.edges.worker import Worker
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop
from darkroom.wiring import build_application

WINDOW: Final = (100_000, 10.0)
"""Of creations, as kie.ai's: each claim counts what was created in it. Never full: that wait is not ours."""


async def _main(dsn: str, folder: str, base_url: str, bank: str, callback_url: str = "") -> None:
    configure_logging("json", level=logging.ERROR)
    listening = listen_on_free_port()
    port = listening.getsockname()[1]
    secret, _, bank_url = bank.partition("@")
    settings = process_settings(dsn, Path(folder), port=port, bank=(bank_url, secret))
    called_back = callback_url or f"http://127.0.0.1:{port}"
    async with open_worker(settings, base_url, called_back, window=WINDOW) as darkroom:
        await serve(
            build_application(darkroom, settings, worker=Worker(darkroom)), settings, listening
        )


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:]))
