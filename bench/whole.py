"""`darkroom run` for a measurement: server, worker and sandbox bank in one process, as a newcomer has them.

Run as `python -m bench.whole DSN FOLDER PROVIDER_URL [CALLBACK_URL]`; prints its port, stops at SIGTERM. kie.ai
is whoever listens at PROVIDER_URL, and calls back here, or to CALLBACK_URL.
"""

import logging
import sys
from pathlib import Path

from bench.server import serve
from bench.worker import open_worker, settings_of
from darkroom.edges.serve import listen_on_free_port
from darkroom.edges.worker import Worker
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop
from darkroom.twin.bank import SandboxBank
from darkroom.wiring import BANK_PATH, bank_url, build_application, sandbox_secret


async def _main(dsn: str, folder: str, base_url: str, callback_url: str = "") -> None:
    configure_logging("json", level=logging.ERROR)
    listening = listen_on_free_port()
    port = listening.getsockname()[1]
    settings = settings_of(dsn, Path(folder), port=port)
    bank = SandboxBank(
        secret=sandbox_secret(settings) or "",
        file=Path(folder) / "sandbox-bank.sqlite",
        public_url=bank_url(settings),
    )
    called_back = callback_url or f"http://127.0.0.1:{port}"
    async with (
        bank.running(),
        open_worker(dsn, Path(folder), base_url, called_back, port=port) as darkroom,
    ):
        application = build_application(
            darkroom, settings, worker=Worker(darkroom), mounts={BANK_PATH: bank.app}
        )
        await serve(application, settings, listening)


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:5]))
