"""A real worker process over a test's database, which kills itself at a named checkpoint.

Run by the tests as `python -m tests.crash.killed_worker DSN STORE CHECKPOINT [GRACE_SECONDS]`. The store is the
folder that the test's own shop keeps objects in: one database, one store.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from darkroom.adapters.storage import open_storage
from darkroom.db.database import Database
from darkroom.edges.worker import Worker
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.kit.process import run_loop
from darkroom.limits import Limits
from tests.scripted import ScriptedProvider
from tests.shop import open_shop


async def _main(dsn: str, store: str, name: str, grace_seconds: str = "90") -> None:
    async def at(passed: str) -> None:
        if passed == name:
            # What the provider would bill is known to the test by this file, whoever dies.
            os.kill(os.getpid(), signal.SIGKILL)

    database = Database(dsn)
    await database.open()
    provider = ScriptedProvider(ids=f"task-of-{os.getpid()}")
    limits = Limits(unknown_grace_seconds=float(grace_seconds))
    async with open_shop(
        database, Path(store).parent / "other", limits=limits, provider=provider
    ) as shop:
        darkroom = replace(shop.darkroom, store=open_storage(None, Path(store)))
        sys.stdout.write("working\n")
        sys.stdout.flush()
        with checkpoints_handled_by(at):
            await Worker(darkroom).run_forever()


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:5]))
