"""One server process for a measurement. Run as `python -m bench.server DSN FOLDER`; prints its port."""

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

from fastapi import FastAPI

from bench.places import process_settings
from darkroom.config import Settings
from darkroom.edges.serve import listen_on_free_port, make_server
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop, spare_the_collector
from darkroom.wiring import build_application, open_darkroom


async def serve(application: FastAPI, settings: Settings, listening: socket.socket) -> None:
    """Say the port and serve until SIGTERM."""
    server = make_server(application, settings)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: setattr(server, "should_exit", True)
    )
    # Whoever reads the port may come before the loop does.
    listening.listen(128)
    spare_the_collector()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve(sockets=[listening])


async def _main(dsn: str, folder: str) -> None:
    configure_logging("json", level=logging.ERROR)
    listening = listen_on_free_port()
    settings = process_settings(dsn, Path(folder))
    async with open_darkroom(settings) as darkroom:
        await serve(build_application(darkroom, settings, worker=None), settings, listening)


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:3]))
