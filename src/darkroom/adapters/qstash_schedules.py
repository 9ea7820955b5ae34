"""QStash's schedules: the clock of hosting that has none. Facts: external-apis.md, section 2.2."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import httpx
from qstash.asyncio.schedule import AsyncScheduleApi
from qstash.errors import QStashError

from darkroom.adapters.qstash_doorbell import DELIVERY_SECONDS, LABEL
from darkroom.adapters.qstash_http import BoundedHttp
from darkroom.kit.outside import outside_call
from darkroom.ports.schedules import Schedule, SchedulesUnavailableError

CALL_SECONDS: Final = 15
"""A person waits for it."""
_MISSING: Final = re.compile(r"Request failed with status: 404\b")
TEXT_MAX: Final = 300


class QStashSchedules:
    """The schedules of one QStash account.

    Args:
        token: of QStash.
        base_url: QStash's address in the token's region.
        public_url: how QStash reaches us, without a slash at its end.
        call_seconds: the limit of one call.
    """

    def __init__(
        self, *, token: str, base_url: str, public_url: str, call_seconds: float = CALL_SECONDS
    ) -> None:
        self._http = BoundedHttp(token, base_url=base_url, timeout_seconds=call_seconds)
        self._schedules = AsyncScheduleApi(self._http)
        self._public_url = public_url
        self._call_seconds = call_seconds

    async def install(self, schedule_id: str, *, path: str, cron: str) -> None:
        """Make it or overwrite it.

        Never repeated by QStash: the next one comes by itself.

        Raises:
            SchedulesUnavailableError: what was asked for may have been done.
        """
        async with self._call():
            await self._schedules.create(
                destination=f"{self._public_url}{path}",
                cron=cron,
                schedule_id=schedule_id,
                method="POST",
                retries=0,
                timeout=DELIVERY_SECONDS,
                label=LABEL,
            )

    async def list(self) -> list[Schedule]:
        """All of the account. Raises SchedulesUnavailableError."""
        async with self._call():
            found = await self._schedules.list()
            return [
                Schedule(
                    id=one.schedule_id,
                    url=one.destination,
                    cron=one.cron,
                    is_paused=one.paused,
                    next_at=None
                    if one.next_schedule_time is None
                    else datetime.fromtimestamp(one.next_schedule_time / 1000, UTC),
                )
                for one in found
            ]

    async def remove(self, schedule_id: str) -> bool:
        """Delete it. False: there was none. Raises SchedulesUnavailableError."""
        try:
            async with self._call():
                await self._schedules.delete(schedule_id)
        except SchedulesUnavailableError as error:
            if _MISSING.match(str(error)):
                return False
            raise
        return True

    async def close(self) -> None:
        """Close what is open."""
        await self._http.close()

    @asynccontextmanager
    async def _call(self) -> AsyncGenerator[None]:
        try:
            async with outside_call("qstash.schedules", timeout_seconds=self._call_seconds):
                yield
        except (
            *(QStashError, httpx.HTTPError, TimeoutError),
            # What the SDK makes of an answer that is none.
            *(ValueError, KeyError, TypeError, AttributeError),
        ) as error:
            text = str(error)[:TEXT_MAX] or type(error).__name__
            raise SchedulesUnavailableError(text) from error
