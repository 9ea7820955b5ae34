"""What is under way to a bucket at once: as much as the line carries within one request's time, and no more.

Twenty photos that share a line all time out together where two after two would all have been kept, and what was
sent of each is sent again. So whoever brings bytes waits in line before the request's clock starts.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from darkroom.kit.log import get_logger
from darkroom.kit.outside import assert_no_transaction

log = get_logger("adapters")

BYTES_PER_SECOND: Final = 2_000_000
"""What `storage_s3.REQUEST_SECONDS` are made for."""
FIRST_SHARE: Final = 2 / 3
"""Of a request's time, for all that is under way together: 16 MB in 8 of 12 s. The rest is for the answer."""
MOST_TIMES: Final = 2
"""Of that, 32 MB: a gigabit a second with a tenth of a second to the store and back is full with 12.5 MB under
way. Not more: when such a line becomes one of 2 MB/s, one halving is enough."""
LEAST_SHARE: Final = 1 / 16
"""Of that, 1 MB: what one request carries at 85 KB/s, a line on which a photo hardly passes by itself."""
SMALL_BYTES: Final = 65_536
"""A thumbnail, a mark: a thirtieth of a second at 2 MB/s. It waits for nobody, and nobody for it."""
WAIT_SECONDS: Final = 30
"""As long as the call itself may take: a put is over within a minute, the time of a serverless call."""
QUICK_SHARE: Final = 4
"""Over within a quarter of a request's time: the line carries more than what was under way."""
GROW_SHARE: Final = 8
"""Quick ones of eight times what may be under way double it."""


class LineFullError(Exception):
    """No room came in time: nothing was sent."""


class Line:
    """The way to one bucket, shared by all who put something there. Of one process and one loop.

    What may be under way is halved when a request takes longer than it may, once for all that were under way
    together, and grows while there are some that wait and those before them are quick. One request always goes,
    whatever its size.

    Args:
        request_seconds: the longest time of a request; whoever took longer was cut off, or began again.
        wait_seconds: the longest stay in line.
        clock: seconds from anywhere.
    """

    def __init__(
        self,
        *,
        request_seconds: float,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        first = BYTES_PER_SECOND * request_seconds * FIRST_SHARE
        self.room_bytes = int(first)
        self._most_bytes, self._least_bytes = int(first * MOST_TIMES), int(first * LEAST_SHARE)
        self._request_seconds = request_seconds
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._used = 0
        self._narrowed = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size_bytes: int, call: str, *, rounds: int = 1) -> AsyncGenerator[None]:
        """Run the block when there is room for so many bytes; first come, first served.

        Args:
            size_bytes: under way at once, of this request.
            call: its name, which is refused inside a transaction before it waits.
            rounds: requests of so many bytes that the block makes one after the other.

        Raises:
            LineFullError: there was none within `wait_seconds`.
            TransactionOpenError: a transaction is open.
        """
        assert_no_transaction(call)
        if size_bytes <= SMALL_BYTES:
            yield
            return
        await self._enter(size_bytes)
        began, narrowed = self._clock(), self._narrowed
        failed = True
        try:
            yield
            failed = False
        finally:
            self._used -= size_bytes
            took = (self._clock() - began) / rounds
            self._learn(size_bytes, took, failed=failed, narrowed=narrowed)
            self._let_in()

    async def _enter(self, size_bytes: int) -> None:
        if not self._waiting and self._fits(size_bytes):
            self._used += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = (size_bytes, turn)
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._used -= size_bytes  # it was let in and left in the same moment
            else:
                with contextlib.suppress(ValueError):  # passed over already, as one who left
                    self._waiting.remove(mine)
            self._let_in()
            if isinstance(error, TimeoutError):
                raise LineFullError(f"no room within {self._wait_seconds} s") from None
            raise

    def _fits(self, size_bytes: int) -> bool:
        return self._used == 0 or self._used + size_bytes <= self.room_bytes

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size_bytes, turn = self._waiting.popleft()
            if not turn.done():
                self._used += size_bytes
                turn.set_result(None)

    def _learn(self, size_bytes: int, took: float, *, failed: bool, narrowed: int) -> None:
        if took >= self._request_seconds:
            if narrowed == self._narrowed:
                self._narrowed += 1
                self.room_bytes = max(self.room_bytes // 2, self._least_bytes)
                log.warning("the line to the bucket is slow", room_bytes=self.room_bytes)
        elif not failed and self._waiting and took <= self._request_seconds / QUICK_SHARE:
            self.room_bytes = min(self.room_bytes + size_bytes // GROW_SHARE, self._most_bytes)
