"""What we ask of a dispatcher: to wake somebody. Nothing rests on it."""

from typing import Protocol


class Doorbell(Protocol):
    """Rings when there is work. A lost ring costs time, a double ring costs nothing."""

    async def ring(
        self, job_id: int | None = None, *, step: str = "", after_seconds: float = 0
    ) -> None:
        """Tell the workers that something is due, perhaps of this job, now or in a while. Never raises.

        With a step's name this process begins with that step, otherwise with its entrances. For what came from
        outside, or from people: it may be told to another machine, which takes a moment. Not inside a
        transaction.
        """
        ...

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        """Wake who waits in this process, now or in a while, and tell nobody else. Never raises.

        With steps' names only one of those who wait for each; without, everybody.

        For whoever is at work already, and for a ring that came in from outside: told on, it would come back
        for ever.
        """
        ...

    async def wait(self, timeout_seconds: float, step: str = "") -> bool:
        """Return at the next ring, or after the timeout; True: this step was called by its name."""
        ...
