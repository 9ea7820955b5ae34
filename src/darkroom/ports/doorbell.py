"""What we ask of a dispatcher: to wake somebody. Nothing rests on it."""

from typing import Protocol


class Doorbell(Protocol):
    """Rings when there is work. A lost ring costs time, a double ring costs nothing."""

    async def ring(self, job_id: int | None = None, *, after_seconds: float = 0) -> None:
        """Tell the workers that something is due, perhaps of this job, now or in a while. Never raises."""
        ...

    async def wait(self, timeout_seconds: float) -> None:
        """Return at the next ring, or after the timeout."""
        ...
