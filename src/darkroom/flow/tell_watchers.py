"""Whoever watches a job is woken. A doorbell: nothing rests on it."""

import asyncio
from collections.abc import Iterable
from typing import Final

from darkroom.core.progress import ring_watchers
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.log import get_logger

log = get_logger("flow")

RING_SECONDS: Final = 1
"""Half of the pause after which watchers look by themselves: waiting longer gains nobody anything."""


async def tell_watchers(darkroom: Darkroom, job_ids: Iterable[int]) -> None:
    """Ring for jobs, after the commit that changed them. Never raises; a lost ring costs a moment."""
    told = sorted(set(job_ids))
    try:
        async with asyncio.timeout(RING_SECONDS), darkroom.database.connection() as tx:
            await ring_watchers(tx, told)
    except (DatabaseUnavailableError, DatabaseRefusedError, RowBusyError, TimeoutError) as error:
        log.info("watchers not told", job_ids=told, error=type(error).__name__)
