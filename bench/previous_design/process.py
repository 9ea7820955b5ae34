"""One process of the older design, run as `python -m bench.previous_design.process ROLE SETTINGS`."""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from typing import Final

import uvicorn

from bench.previous_design.database import Settings
from bench.previous_design.server import PreviousServer
from bench.previous_design.worker import PreviousWorker
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.kit.log import configure_logging

LIVED_SECONDS: Final = (20, 130)
"""A process dies by itself in mid-step, about as often as one of Darkroom's does on the same torture."""


class _Life:
    """Ends the process at the first checkpoint after a time that the seed of this life decides."""

    def __init__(self, life: str) -> None:
        lot = random.Random(life)  # noqa: S311 - to be repeated
        self._ends_at = time.monotonic() + lot.uniform(*LIVED_SECONDS)

    async def __call__(self, _name: str) -> None:
        if time.monotonic() >= self._ends_at:
            os.kill(os.getpid(), signal.SIGKILL)


async def _serve(settings: Settings) -> None:
    server = PreviousServer(settings)
    await uvicorn.Server(
        uvicorn.Config(
            server.app,
            host="127.0.0.1",
            port=settings.server_port,
            log_config=None,
            access_log=False,
        )
    ).serve()


async def _main(role: str, settings: Settings) -> None:
    configure_logging("json", level=logging.WARNING)
    with checkpoints_handled_by(_Life(settings.life)):
        if role == "server":
            await _serve(settings)
        else:
            await PreviousWorker(settings).run_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Settings(**json.loads(sys.argv[2]))))
