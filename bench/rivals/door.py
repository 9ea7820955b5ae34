"""Darkroom's HTTP door with kie.ai's callbacks. Run as `python -m bench.rivals.door DSN FOLDER PROVIDER_URL`.

`bench.server` knows no provider but the studio. This one knows the instant one, and outlives killed workers.
Prints its port.
"""

import logging
import sys
from pathlib import Path

from bench.places import process_settings
from bench.server import serve
from bench.worker import open_worker
from darkroom.edges.serve import listen_on_free_port
from darkroom.kit.log import configure_logging
from darkroom.wiring import build_application


async def _main(dsn: str, folder: str, base_url: str) -> None:
    configure_logging("json", level=logging.ERROR)
    listening = listen_on_free_port()
    settings = process_settings(dsn, Path(folder))
    async with open_worker(settings, base_url) as darkroom:
        await serve(build_application(darkroom, settings, worker=None), settings, listening)


if __name__ == "__main__":
    from darkroom.kit.process import run_loop

    run_loop(_main(*sys.argv[1:4]))
