"""The local doorbell: events inside one process. Other processes find the work by polling."""

import asyncio


class LocalDoorbell:
    """Wakes every waiter of this process at once, or those who wait for a step by its name."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[bool], str] = {}
        # Steps that were called while they were at work: they look once more.
        self._called: set[str] = set()
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

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        """Wake who waits for these steps, without one whoever waits. Never raises.

        Of several for later the first stands, for everybody: who wakes looks again.
        """
        if after_seconds <= 0:
            self._wake(steps)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + after_seconds
        if self._later is not None and self._later.when() > loop.time():
            if self._later.when() <= at:
                return
            self._later.cancel()
        self._later = loop.call_at(at, self._wake, ())

    def _wake(self, steps: tuple[str, ...]) -> None:
        self._called.update(steps)
        for waiter, step in list(self._waiting.items()):
            if not waiter.done() and (not steps or step in steps):
                self._called.discard(step)
                waiter.set_result(bool(steps))

    async def wait(self, timeout_seconds: float, step: str = "") -> bool:
        """Return at the next ring, or after the timeout; True: this step was called by its name."""
        if step in self._called:
            self._called.discard(step)
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = step
        try:
            async with asyncio.timeout(timeout_seconds):
                return await waiter
        except TimeoutError:
            return False
        finally:
            del self._waiting[waiter]
