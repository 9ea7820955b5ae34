"""One bounded round of a leased step: what the worker loop and the cron endpoints both call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from prometheus_client import Counter

from darkroom.core.leases import LeaseKind
from darkroom.db.database import DatabaseUnavailableError, RowBusyError
from darkroom.flow.leases import LeaseKeeper, LeaseLostError
from darkroom.kit.log import get_logger

log = get_logger("flow")

STEP_ERRORS = Counter("darkroom_step_errors_total", "Rows whose step raised.", ["step", "error"])


class Claimed(Protocol):
    """A leased row."""

    @property
    def id(self) -> int:
        """The row."""
        ...

    @property
    def claim(self) -> int:
        """The fence."""
        ...


Row = TypeVar("Row", bound=Claimed)


async def work_on_each(
    step: str,
    leases: LeaseKeeper,
    kind: LeaseKind,
    rows: Sequence[Row],
    work: Callable[[Row], Awaitable[None]],
) -> None:
    """Work on every claimed row at once, each under its lease. One row's error stops only that row.

    A row whose work raised keeps its lease until it lapses: that is its pause, and then it is due again.
    The number of rows is bounded by the claim's limit.
    """

    async def one(row: Row) -> None:
        try:
            async with leases.holding((kind, row.id, row.claim)):
                await work(row)
        except LeaseLostError:
            log.warning("lease lost, work stopped", step=step, kind=kind, row_id=row.id)
            STEP_ERRORS.labels(step, "LeaseLost").inc()
        except (DatabaseUnavailableError, RowBusyError) as error:
            log.warning(
                "database not there, the lease decides", step=step, kind=kind, row_id=row.id
            )
            STEP_ERRORS.labels(step, type(error).__name__).inc()
        except Exception as error:
            log.exception("step failed", step=step, kind=kind, row_id=row.id)
            STEP_ERRORS.labels(step, type(error).__name__).inc()

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(one(row))
