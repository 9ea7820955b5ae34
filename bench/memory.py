"""`make bench-memory`: one worker under steady load on loopback; its memory as a slope per hour.

It stops by itself. Some sets a second are started, made by the instant provider and stored; the worker's
resident memory is read every ten seconds. What counts is the slope of a straight line through the readings
after the warm-up: a worker that keeps something of each photo grows with the photos, another one is flat.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.photos import PHOTOS_A_SET, READY_SECONDS, running, start_sets
from bench.places import CUSTOMERS, FIRST_TELEGRAM, open_database, open_server
from bench.table import machine

SAMPLE_SECONDS: Final = 10
WARM_UP_SHARE: Final = 0.2
"""Of the readings, at the beginning: caches fill, and every chore comes by once."""
SETS_AT_A_TIME: Final = 20
"""Started together, every ten seconds: 14 photos a second, a quarter of what a worker can."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

console: Final = Console()


def resident_bytes(pid: int) -> int:
    """A process's resident memory. Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def slope_per_hour(readings: list[tuple[float, int]]) -> float:
    """Bytes per hour of a straight line through (seconds, bytes)."""
    line = statistics.linear_regression(
        [seconds for seconds, _ in readings], [float(size) for _, size in readings]
    )
    return line.slope * 3600


@asynccontextmanager
async def _worker(dsn: str, folder: str, provider_port: str) -> AsyncGenerator[int]:
    """The worker's process id, once it works."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-m", "bench.worker", dsn, folder,
        f"http://127.0.0.1:{provider_port}", stdout=subprocess.PIPE,
    )  # fmt: skip
    if process.stdout is None:
        raise AssertionError("no output to read from")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await process.stdout.readline()
        yield process.pid
        if process.returncode is not None:
            raise AssertionError("the worker ended")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _watch(
    dsn: str, seconds: float, progress: Progress
) -> tuple[list[tuple[float, int]], int]:
    """The readings, and how many photos were stored meanwhile."""
    bar = progress.add_task("a worker under load", total=seconds)
    readings: list[tuple[float, int]] = []
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder,
        psycopg.connect(dsn, autocommit=True) as one,
    ):
        async with (
            running("bench.provider") as port,
            _worker(dsn, folder, port) as pid,
        ):
            began = time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                readings.append((passed, resident_bytes(pid)))
                first = FIRST_TELEGRAM * 2 + len(readings) * SETS_AT_A_TIME
                one.execute(CUSTOMERS, {"first": first, "count": SETS_AT_A_TIME})
                start_sets(dsn)
                progress.update(
                    bar, completed=passed, description=f"{readings[-1][1] / 2**20:.0f} MiB"
                )
                await asyncio.sleep(SAMPLE_SECONDS)
        stored = one.execute("SELECT count(*) FROM generated_photos").fetchone()
    return readings, 0 if stored is None else int(stored[0])


def bench_memory(
    minutes: Annotated[float, typer.Option(min=0.5, max=600, help="of steady load")] = 60,
) -> None:
    """Measure and print."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console.print(f"[bold]{machine()}[/bold]; one worker, {minutes:g} minutes")
    with (
        open_server() as server,
        open_database(server, customers=SETS_AT_A_TIME) as dsn,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        readings, stored = asyncio.run(_watch(dsn, minutes * 60, progress))
    warm = readings[int(len(readings) * WARM_UP_SHARE) :]
    if len(warm) < 3 or stored == 0:  # noqa: PLR2004 - a line needs some points
        console.print("[red]too short to say anything[/red]: more --minutes")
        raise typer.Exit(2)
    sizes = [size / 2**20 for _, size in warm]
    begun = SETS_AT_A_TIME * PHOTOS_A_SET / SAMPLE_SECONDS
    console.print(
        f"{stored:,} photos stored, {stored / (minutes * 60):.1f} a second of {begun:.0f} begun\n"
        f"memory after the warm-up: {sizes[0]:.0f} MiB at first, {sizes[-1]:.0f} at last, "
        f"{min(sizes):.0f} to {max(sizes):.0f}\n"
        f"[bold]{slope_per_hour(warm) / 2**20:+.1f} MiB an hour[/bold]"
    )


if __name__ == "__main__":
    typer.run(bench_memory)
