"""The local doorbell: an event inside one process. Other processes find the work by polling."""

import asyncio


class LocalDoorbell:
    """Wakes every waiter of this process at once."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None

    async def ring(
        self,
        job_id: int | None = None,  # noqa: ARG002 - the port's word
        *,
        after_seconds: float = 0,
    ) -> None:
        """Wake whoever waits. A ring for later is dropped: waiters look by themselves every second."""
        if after_seconds <= 0:
            await self.wake()

    async def wake(self, *, after_seconds: float = 0) -> None:
        """Wake whoever waits. Never raises. Of several for later the first stands: who wakes looks again."""
        if after_seconds <= 0:
            self._wake()
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + after_seconds
        if self._later is not None and self._later.when() > loop.time():
            if self._later.when() <= at:
                return
            self._later.cancel()
        self._later = loop.call_at(at, self._wake)

    def _wake(self) -> None:
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def wait(self, timeout_seconds: float) -> None:
        """Return at the next ring, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return
