"""Keeping leases while work is under way, and stopping work whose lease is lost."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from darkroom.core.leases import Lease, renew_leases
from darkroom.db.database import Database
from darkroom.kit.log import get_logger

log = get_logger("flow")


WATCH_SECONDS: Final = 0.5
"""How late work may be cancelled after its lease has lapsed."""


class LeaseLostError(Exception):
    """Somebody else may have the row by now. Stop; what was heard outside is still a fact."""


class _Held:
    def __init__(self, task: asyncio.Task[object], renewed: float) -> None:
        self.task = task
        self.renewed = renewed
        self.lost = False


class LeaseKeeper:
    """Renews everything this process holds in one statement, every few seconds.

    When a renewal finds a lease gone, or the database could not be reached for a whole lease, the work
    is cancelled. Fencing makes a stale write harmless; cancelling saves the outside a second call.
    """

    def __init__(self, database: Database, *, lease_seconds: float, renew_seconds: float) -> None:
        self._database = database
        self.lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._held: dict[Lease, _Held] = {}
        self._loop: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def holding(self, lease: Lease) -> AsyncGenerator[None]:
        """Keep one lease while the block runs.

        Raises:
            LeaseLostError: the lease was lost; the block was cancelled where it stood.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("leases are held by tasks")
        held = _Held(task, time.monotonic())
        self._held[lease] = held
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._renew_until_empty(), name="lease-keeper")
        try:
            yield
        except asyncio.CancelledError:
            if held.lost and task.uncancel() == 0:
                raise LeaseLostError from None
            raise
        finally:
            del self._held[lease]

    async def _renew_until_empty(self) -> None:
        next_renewal = time.monotonic() + self._renew_seconds
        renewing: asyncio.Task[None] | None = None
        try:
            # A renewal under way is waited for here: until it ends somebody may come, who counts on this loop.
            while self._held or (renewing is not None and not renewing.done()):
                await asyncio.sleep(min(self._renew_seconds, WATCH_SECONDS))
                self._cancel_overdue()
                idle = renewing is None or renewing.done()
                if self._held and idle and time.monotonic() >= next_renewal:
                    next_renewal = time.monotonic() + self._renew_seconds
                    # Beside the watch: a database that hangs must not hold up the cancelling.
                    renewing = asyncio.create_task(self.renew(), name="lease-renewal")
        finally:
            if renewing is not None:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)

    def _cancel_overdue(self) -> None:
        """Nobody knows whether these are still ours: a whole lease went by without a renewal."""
        now = time.monotonic()
        for lease, held in list(self._held.items()):
            if now - held.renewed > self.lease_seconds:
                log.warning("lease not renewed in time", kind=lease[0], row_id=lease[1])
                held.lost = True
                held.task.cancel()

    async def renew(self) -> None:
        """Renew now. Public for tests, which do not sleep."""
        leases = list(self._held)
        if not leases:
            return
        began = time.monotonic()
        try:
            async with self._database.connection(timeout_seconds=self._renew_seconds) as tx:
                renewal = await renew_leases(tx, leases, lease_seconds=self.lease_seconds)
        except Exception as error:  # noqa: BLE001 - a renewal that fails must not end the renewing
            log.warning("leases not renewed", leases=len(leases), error=type(error).__name__)
            return
        for lease in leases:
            held = self._held.get(lease)
            if held is None:
                continue
            if lease in renewal.prolonged:
                held.renewed = began
            elif lease not in renewal.ours:
                held.lost = True
                held.task.cancel()

    async def close(self) -> None:
        """Stop renewing. What is held lapses by itself."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
