"""PgBouncer in transaction mode as a door to the database: with the setting that poolers need."""

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.places import PREPARE
from darkroom.db.embedded import server_owner
from darkroom.twin.pgbouncer import pgbouncer

SERVERS_MAX: Final = 20
"""Connections to the server, for however many processes: fewer than one process alone would open."""


@asynccontextmanager
async def pooler_between(dsn: str) -> AsyncGenerator[str]:
    """A `bench.places.Door`: processes that are started inside go through it, without prepared statements."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-"))
    try:
        async with pgbouncer(dsn, folder, owner=server_owner(), servers_max=SERVERS_MAX) as pooled:
            os.environ[PREPARE] = "false"
            try:
                yield pooled
            finally:
                del os.environ[PREPARE]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
