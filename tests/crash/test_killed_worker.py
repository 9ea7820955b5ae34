"""Real processes, SIGKILL: what a dead worker held goes on within the lease, by whoever is alive."""

import asyncio
import signal
import sys
from pathlib import Path

import psycopg
import pytest

from darkroom.db.database import DatabaseUnavailableError
from darkroom.edges.worker import Worker
from darkroom.ports.generation import GenerationRequest, NoAnswer
from tests.shop import Shop, store_folder


async def _die(dsn: str, store: Path, checkpoint: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.killed_worker",
        dsn,
        str(store),
        checkpoint,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("checkpoint", "status_left"),
    [
        ("submit.claimed", "submitting"),
        ("submit.after_call", "submitting"),
        ("poll.after_call", "pending"),
        ("collect.stored", "storing"),
    ],
)
async def test_a_worker_killed_there_is_survived(
    shop: Shop, dsn: str, tmp_path: Path, checkpoint: str, status_left: str
) -> None:
    """bugbook B6: a crash between createTask and its record orphaned a paid task."""
    _, job = await shop.sold()
    assert await _die(dsn, store_folder(tmp_path), checkpoint) == -signal.SIGKILL
    assert status_left in await shop.statuses()
    assert (await shop.job(job.id))["status"] in ("pending", "processing")
    # Nobody else may touch what is leased; when the lease ends, anybody does.
    await shop.advance(shop.darkroom.limits.lease_seconds + 0.1)
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7
    # At most one more provider task for each creation whose answer died with the worker.
    attempts = await shop.value("SELECT max(number) FROM task_attempts")
    assert attempts <= 2


async def test_a_running_worker_takes_over_within_the_lease_without_a_restart(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    """The clock of this one is real: a live worker is there all the time."""
    # Where creating twice costs nothing, as in the studio, no grace is kept after a lost answer.
    shop.provider.create_is_idempotent = True
    _, job = await shop.sold()
    assert await _die(dsn, store_folder(tmp_path), "poll.after_call") == -signal.SIGKILL
    await shop.advance(shop.darkroom.limits.lease_seconds - 1)
    async with asyncio.timeout(shop.darkroom.limits.lease_seconds), Worker(shop.darkroom).running():
        while (await shop.job(job.id))["status"] != "completed":
            await shop.darkroom.doorbell.wait(0.05)


async def test_a_database_that_goes_away_is_waited_for(shop: Shop, server: str) -> None:
    """Manual acceptance script 4: the database cut in the middle; nobody restarts the worker."""
    reached = asyncio.Event()

    async def note(request: GenerationRequest) -> None:
        if request.prompt_index == 3:
            reached.set()

    shop.provider.on_fetch = note
    _, job = await shop.sold(tier="premium")
    name = await shop.value("SELECT current_database()")
    async with Worker(shop.darkroom).running():
        await reached.wait()
        with psycopg.connect(server, autocommit=True) as admin:
            for allowed in ("FALSE", "TRUE"):
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}'.encode())
                if allowed == "FALSE":
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                        [name],
                    )
                    with pytest.raises(DatabaseUnavailableError):
                        await shop.value("SELECT 1")
        async with asyncio.timeout(3 * shop.darkroom.limits.lease_seconds):
            while True:
                try:
                    if (await shop.job(job.id))["status"] == "completed":
                        break
                except DatabaseUnavailableError:
                    pass
                await shop.darkroom.doorbell.wait(0.05)
    assert await shop.value("SELECT count(*) FROM generated_photos") == 23
    # Answers that came while there was nowhere to write them may cost another task each; no photo is lost.
    assert await shop.value("SELECT max(number) FROM task_attempts") <= 2


async def test_a_worker_stops_in_order(shop: Shop) -> None:
    async def slow(_request: GenerationRequest) -> NoAnswer | None:
        return None

    shop.provider.on_create = slow
    _, job = await shop.sold()
    async with Worker(shop.darkroom).running():
        async with asyncio.timeout(20):
            while (await shop.job(job.id))["status"] != "completed":
                await shop.darkroom.doorbell.wait(0.05)
    assert await shop.value("SELECT count(*) FROM kie_tasks WHERE lease_until IS NOT NULL") == 0
