"""Serving and working until told to stop."""

import asyncio
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from darkroom.config import Settings, SettingsError
from darkroom.db.migrate import migrate
from darkroom.edges.terminal import Wires, console
from darkroom.edges.worker import Worker
from darkroom.flow.prepare import prepare
from darkroom.flow.watch_jobs import JobWatch
from darkroom.kit.log import configure_logging
from darkroom.kit.process import spare_the_collector

SHUTDOWN_SECONDS: Final = 10
"""How long open requests may finish after SIGTERM."""


class Server(uvicorn.Server):
    """uvicorn that leaves signals to the command around it, which has more to close."""

    def __init__(self, config: uvicorn.Config, watch: JobWatch) -> None:
        super().__init__(config)
        self._watch = watch

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams first: uvicorn waits for open answers, and these would never end by themselves."""
        await self._watch.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


def make_server(application: FastAPI, settings: Settings) -> Server:
    """An HTTP server for the application at the configured address."""
    return Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ),
        application.state.job_watch,
    )


@contextmanager
def metrics_shown(settings: Settings) -> Generator[int | None]:
    """This process's metrics on a port of their own, if there is one, while the block runs. Yields its number.

    What a worker alone knows (audits, the bucket, the providers) stands in its own process.

    Raises:
        SettingsError: the port is taken.
    """
    if settings.metrics_port is None:
        yield None
        return
    try:
        server, thread = start_http_server(settings.metrics_port, addr=settings.host)
    except OSError as error:
        raise SettingsError(f"DARKROOM_METRICS_PORT cannot be listened on: {error}") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def serve(wires: Wires, settings: Settings, *, with_worker: bool) -> None:
    """Migrate, stock an empty catalog, and answer requests until SIGTERM or Ctrl-C."""
    configure_logging(settings.log_shape)
    with metrics_shown(settings):
        await _serve(wires, settings, with_worker=with_worker)


async def _serve(wires: Wires, settings: Settings, *, with_worker: bool) -> None:
    async with wires.open_darkroom(settings) as darkroom, wires.open_mounts(settings) as mounts:
        await migrate(darkroom.database, console.print)
        await prepare(darkroom, wires.bundled_catalog())
        worker = Worker(darkroom) if with_worker else None
        application = wires.build_application(darkroom, settings, worker=worker, mounts=mounts)
        server = make_server(application, settings)
        warming = asyncio.create_task(darkroom.intake.warm(), name="warm-intake")
        for stop in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(
                stop, lambda: setattr(server, "should_exit", True)
            )
        console.print(f"Darkroom on [bold]http://{settings.host}:{settings.port}[/bold]")
        spare_the_collector()
        try:
            await server.serve()
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)


async def work(wires: Wires, settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C."""
    configure_logging(settings.log_shape)
    with metrics_shown(settings):
        async with wires.open_darkroom(settings) as darkroom:
            await migrate(darkroom.database, console.print)
            await prepare(darkroom, wires.bundled_catalog())
            worker = Worker(darkroom)
            spare_the_collector()
            await worker.run_forever()


def listen_on_free_port() -> socket.socket:
    """A socket on loopback whose number nobody else can take."""
    # With its protocol named: asyncio turns Nagle off only for such a socket, and answers come 40 ms sooner.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening
