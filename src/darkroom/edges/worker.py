"""The worker: every step in its lanes, for as long as the process lives.

It decides nothing. Killed at any point, what it held lapses with its leases; a database that went away
is looked for again, without a restart.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Gauge

from darkroom.core.audit import run_audit
from darkroom.db.database import DatabaseUnavailableError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.steps import CHORES, ENTRANCES, HOUSE_STEPS, WORK_STEPS, Step
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.log import get_logger
from darkroom.limits import Limits

log = get_logger("edges")

AUDIT_FINDINGS: Final = Gauge(
    "darkroom_audit_findings", "Rows that break a promise, at the last audit.", ["question"]
)
AUDIT_LAST: Final = Gauge(
    "darkroom_audit_last_success_seconds", "When the audit last ran to its end (unix time)."
)
FAILURE_CAP_SECONDS: Final = 2
"""The longest pause between two looks for a database that is down: recovery stays within the lease."""
BEHIND_SECONDS: Final = 0.05
"""How long the other steps let the entrances go first: what came has been taken in by then, as a rule."""
CHORE_LOOK_SECONDS: Final = 1
"""Between two looks for a chore that is due; none of them is due more often than every minute."""
AUDIT_SHARE: Final = 0.05
"""Of a worker's time, and of the database's, that goes into asking whether all promises are kept."""
AUDIT_PAUSE_MAX_SECONDS: Final = 4 * 3600
"""A broken promise is known the same day, however large the shop."""
STOP_SECONDS: Final = 10
"""How long a stopping worker lets rounds in flight finish: one lease, after which others have them anyway."""


def audit_pause_seconds(limits: Limits, took_seconds: float) -> float:
    """Until the next audit: the usual pause, or so much longer that reading all is a twentieth of the time.

    A million photos took 19 s, ten million 262 (`make bench-scale`).
    """
    share_seconds = took_seconds * (1 / AUDIT_SHARE - 1)
    return max(limits.audit_seconds, min(share_seconds, AUDIT_PAUSE_MAX_SECONDS))


class Worker:
    """Runs the steps until it is told to stop."""

    def __init__(self, darkroom: Darkroom) -> None:
        self._darkroom = darkroom
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Work in the background while the block runs, then stop in order."""
        lanes = [
            asyncio.create_task(self._lane(step), name=f"{step.name}-{number}")
            for step in (*WORK_STEPS, *HOUSE_STEPS)
            if step not in CHORES
            for number in range(step.lanes)
        ]
        lanes.append(asyncio.create_task(self._chores_lane(), name="chores"))
        lanes.append(asyncio.create_task(self._audit_lane(), name="audit"))
        try:
            yield
        finally:
            self._stopping.set()
            await self._darkroom.doorbell.wake()
            _, late = await asyncio.wait(lanes, timeout=STOP_SECONDS)
            for lane in late:
                lane.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._darkroom.leases.close()

    async def run_forever(self) -> None:
        """Work until cancelled."""
        async with self.running():
            await asyncio.Event().wait()

    async def _round(self, step: Step) -> int | None:
        """How much was found; None: the round failed, which is no reason to stop."""
        try:
            return await step.run(self._darkroom)
        except (DatabaseUnavailableError, RowBusyError):
            log.warning("database not there, looking again", step=step.name)
        except Exception:
            log.exception("round failed", step=step.name)
        return None

    async def _chores_lane(self) -> None:
        """Each chore at its own pace; one that found a whole batch comes again at once, after the others."""
        due_at = dict.fromkeys((step.name for step in CHORES), time.monotonic())
        while not self._stopping.is_set():
            for step in CHORES:
                if self._stopping.is_set() or time.monotonic() < due_at[step.name]:
                    continue
                found = await self._round(step)
                pause = FAILURE_CAP_SECONDS if found is None else 0 if found else step.idle_seconds
                due_at[step.name] = time.monotonic() + pause
            await self._pause(CHORE_LOOK_SECONDS)

    async def _lane(self, step: Step) -> None:
        failures = 0
        while not self._stopping.is_set():
            found = await self._round(step)
            failures = failures + 1 if found is None else 0
            if failures:
                await self._pause(
                    backoff_seconds(failures, base_seconds=0.1, cap_seconds=FAILURE_CAP_SECONDS)
                )
            elif self._stopping.is_set():
                return  # the ring that came with it may have sounded while this round ran
            elif not found:
                await self._wait_for_work(step)
            elif step.leads_to:
                # Something moved: the next step of the same order may be due now.
                await self._darkroom.doorbell.wake(*step.leads_to)

    async def _wait_for_work(self, step: Step) -> None:
        """Until this step is called, anything rings, or its pause is over.

        A ring that names nobody is one from outside, and that begins at an entrance: were all to look at once,
        ten steps that find nothing would keep the one that has work from the processor.
        """
        bell = self._darkroom.doorbell
        if not await bell.wait(step.idle_seconds, step.name) and step.name not in ENTRANCES:
            await bell.wait(BEHIND_SECONDS, step.name)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _audit_lane(self) -> None:
        took_seconds = 0.0
        while not self._stopping.is_set():
            await self._pause(audit_pause_seconds(self._darkroom.limits, took_seconds))
            if self._stopping.is_set():
                return
            began, took_seconds = time.monotonic(), 0.0
            try:
                report = await run_audit(self._darkroom.database)
            except Exception:
                # The alarm itself must not fall silent: the age of the last audit tells.
                log.exception("audit failed")
                continue
            took_seconds = time.monotonic() - began
            AUDIT_LAST.set_to_current_time()
            AUDIT_FINDINGS.clear()
            for finding in report.findings:
                AUDIT_FINDINGS.labels(finding.name).set(finding.count)
                log.error(
                    "audit finding", question=finding.name, count=finding.count, rows=finding.rows
                )
