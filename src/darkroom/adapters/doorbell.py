"""The local doorbell: events inside one process. Other processes find the work by polling."""

import asyncio


class LocalDoorbell:
    """Wakes every waiter of this process at once, or one of those who wait for a step by its name.

    One, since what is due is taken in batches: a second look beside the first would find nothing and take its
    time. A step whose batch was full calls itself.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[bool], str] = {}
        # Steps that were called while they were at work: they look once more.
        self._called: set[str] = set()
        self._later: asyncio.TimerHandle | None = None

    async def ring(
        self,
        job_id: int | None = None,  # noqa: ARG002 - the port's word
        *,
        step: str = "",
        after_seconds: float = 0,
    ) -> None:
        """Wake who waits for the step, or everybody. A ring for later is dropped: waiters look every second."""
        if after_seconds <= 0:
            await self.wake(*([step] if step else []))

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        """Wake one of those who wait for each of these steps, without one whoever waits. Never raises.

        Of several for later the first stands, for everybody: who wakes looks again.
        """
        if after_seconds <= 0:
            self._wake(steps)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + after_seconds
        if self._later is not None:
            if self._later.when() <= at:
                return
            self._later.cancel()
        self._later = loop.call_at(at, self._wake_now)

    def _wake_now(self) -> None:
        # Its time says nothing of it any more: uvloop counts in milliseconds and may be one early.
        self._later = None
        self._wake(())

    def _wake(self, steps: tuple[str, ...]) -> None:
        waiting = [(waiter, step) for waiter, step in self._waiting.items() if not waiter.done()]
        if not steps:
            for waiter, _ in waiting:
                waiter.set_result(False)
        for called in steps:
            first = next((waiter for waiter, step in waiting if step == called), None)
            if first is None or first.done():
                self._called.add(called)
            else:
                first.set_result(True)

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
