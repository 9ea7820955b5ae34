"""The doorbell that rings by QStash, so that hosting without workers is woken, too.

What is published says nothing but a job's id. A publish that fails costs time and nothing else: whoever
looks by itself (a worker, a cron round) finds the work without it. Facts: external-apis.md, section 2.
"""

import asyncio
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal
from uuid import uuid4

from prometheus_client import Counter, Gauge
from qstash.asyncio.message import AsyncMessageApi
from qstash.errors import DailyMessageLimitExceededError, QStashError, RateLimitExceededError
from qstash.message import PublishResponse

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.adapters.qstash_http import BoundedHttp
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError, assert_no_transaction, outside_call

log = get_logger("adapters")

CALL_SECONDS: Final = 4.0
"""What a ring may cost the request it belongs to. An answer takes a tenth of a second."""
TRIES: Final = 2
"""A second one for a connection that was just dying; both fit into CALL_SECONDS with the pause between."""
TRY_AGAIN_SECONDS: Final = 0.25
PAUSE_FIRST_SECONDS: Final = 10.0
PAUSE_CAP_SECONDS: Final = 300.0
"""After a failure nothing is published for 10, 20, 40 ... 300 s, then one ring tries: a dead QStash costs one
request in five minutes its four seconds, and is heard of again within five."""
WINDOW_SECONDS: Final = 10.0
"""Rings of one job, or of nothing in particular, are published once now and once at the window's end: a set's
23 callbacks are a handful of messages. Shorter than the 15 s that a waiting task looks by itself after."""
SLOT_SECONDS: Final = 5.0
"""Delayed rings of nothing in particular come at the end of such a slot, and those of one slot are one message:
hosting without memory sets the same bell from many calls at once."""
KEYS_MAX: Final = 1000
"""Jobs whose last ring is remembered. One that is forgotten is rung once more."""
DELIVERY_SECONDS: Final = 60
"""How long QStash waits for our answer: as long as a serverless call lives."""
PARALLEL_MAX: Final = 10
"""Deliveries under way at once: half of a process's connections to the database."""
LABEL: Final = "darkroom"
PROCESS_PATH: Final = "/api/jobs/process"
FAILED_PATH: Final = "/api/jobs/failed"
TEXT_MAX: Final = 200

_REFUSED: Final = re.compile(r"Request failed with status: 4[0-9]{2}\b")
Result = Literal["published", "deduplicated", "covered", "failed", "paused"]

PUBLISHES = Counter(
    "darkroom_queue_publishes_total",
    "Rings by what became of them: published, deduplicated, covered by another, failed, paused.",
    ["result"],
)
FAILING = Gauge("darkroom_queue_publish_failing", "1 while QStash takes no messages from us.")


class QStashDoorbell:
    """Wakes the waiters of this process, and has QStash call `/api/jobs/process`.

    Args:
        token: of QStash.
        base_url: QStash's address in the token's region.
        public_url: how QStash reaches us, without a slash at its end.
        retries: how often a delivery is repeated before QStash gives up on it.
        call_seconds: the limit of one ring.
        clock: seconds that only grow.
        wall_clock: unix seconds, about the same for every process.
    """

    def __init__(
        self,
        *,
        token: str,
        base_url: str,
        public_url: str,
        retries: int,
        call_seconds: float = CALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._local = LocalDoorbell()
        self._http = BoundedHttp(
            # A little less than its share: the second try ends by its own limit, not by the ring's.
            token,
            base_url=base_url,
            timeout_seconds=0.9 * (call_seconds - TRY_AGAIN_SECONDS) / TRIES,
        )
        self._messages = AsyncMessageApi(self._http)
        self._public_url = public_url
        self._retries = retries
        self._call_seconds = call_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._delivered_at: OrderedDict[int | None, float] = OrderedDict()
        self._failures = 0
        self._paused_until = -math.inf

    async def ring(
        self, job_id: int | None = None, *, step: str = "", after_seconds: float = 0
    ) -> None:
        """Wake this process, and publish one message unless another on its way says the same.

        Never raises, and takes `call_seconds` at most. Whether it was published, nobody needs to know.

        Raises:
            TransactionOpenError: our own mistake.
        """
        assert_no_transaction("qstash.publish")
        await self._local.ring(job_id, step=step, after_seconds=after_seconds)
        now = self._clock()
        delay_seconds = self._delay_until_due(job_id, now, max(after_seconds, 0))
        if delay_seconds is None:
            PUBLISHES.labels("covered").inc()
        elif now < self._paused_until:
            PUBLISHES.labels("paused").inc()
        else:
            await self._publish(job_id, now, delay_seconds)

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        """Wake who waits in this process, now or in a while."""
        await self._local.wake(*steps, after_seconds=after_seconds)

    async def wait(self, timeout_seconds: float, step: str = "") -> bool:
        """Return at the next ring, or after the timeout; True: this step was called by its name."""
        return await self._local.wait(timeout_seconds, step)

    async def close(self) -> None:
        """Close what is open."""
        await self._http.close()

    def _delay_until_due(self, job_id: int | None, now: float, after_seconds: float) -> int | None:
        """Whole seconds until this ring is to be delivered; None where a message on its way covers it."""
        due_at = now + after_seconds
        last_at = self._delivered_at.get(job_id, -math.inf)
        if due_at < last_at <= due_at + WINDOW_SECONDS:
            return None
        if last_at <= due_at < last_at + WINDOW_SECONDS:
            due_at = last_at + WINDOW_SECONDS
        return math.ceil(due_at - now)

    async def _publish(self, job_id: int | None, now: float, delay_seconds: int) -> None:
        if self._failures:
            # One ring tries; those beside it do not wait for the same silence.
            self._paused_until = now + self._call_seconds
        before = self._delivered_at.pop(job_id, None)
        # Noted before the call: rings that come while it is under way are covered by the next window.
        self._delivered_at[job_id] = now + delay_seconds
        while len(self._delivered_at) > KEYS_MAX:
            self._delivered_at.popitem(last=False)
        try:
            async with outside_call("qstash.publish", timeout_seconds=self._call_seconds):
                answer = await self._tried(job_id, delay_seconds)
        except TransactionOpenError:
            raise
        except Exception as error:  # noqa: BLE001 - a doorbell never raises: the SDK lets every type through
            self._forget(job_id, before)
            self._failed(error)
        except BaseException:
            self._forget(job_id, before)
            raise
        else:
            self._worked(deduplicated=answer.deduplicated)

    async def _tried(self, job_id: int | None, delay_seconds: int) -> PublishResponse:
        """Publish, with one more try under the same deduplication id: a lost answer is not a second message.

        The id is new for each ring: the window of ten minutes must not swallow the next one. What is to come
        later, and for nobody in particular, is put off to its slot's end and named after the slot: a message
        of that name has not been delivered yet, so the ring that it swallows comes with it.
        """
        ring_id = uuid4().hex
        if delay_seconds and job_id is None:
            now = self._wall_clock()
            slot = math.ceil((now + delay_seconds) / SLOT_SECONDS)
            ring_id = f"{LABEL}-{slot}"
            delay_seconds = math.ceil(slot * SLOT_SECONDS - now)
        for tries_left in reversed(range(TRIES)):
            try:
                answer = await self._messages.publish_json(
                    url=f"{self._public_url}{PROCESS_PATH}",
                    body={"jobId": job_id},
                    retries=self._retries,
                    failure_callback=f"{self._public_url}{FAILED_PATH}",
                    delay=delay_seconds or None,
                    deduplication_id=ring_id,
                    timeout=DELIVERY_SECONDS,
                    flow_control={"key": LABEL, "parallelism": PARALLEL_MAX},
                    label=LABEL,
                )
            except Exception as error:
                if not tries_left or _is_refusal(error):
                    raise
                await asyncio.sleep(TRY_AGAIN_SECONDS)
                continue
            if isinstance(answer, list):
                raise TypeError("an answer for a group of addresses")
            return answer
        raise AssertionError("unreachable")

    def _forget(self, job_id: int | None, before: float | None) -> None:
        if before is None:
            self._delivered_at.pop(job_id, None)
        else:
            self._delivered_at[job_id] = before

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        pause = min(PAUSE_CAP_SECONDS, PAUSE_FIRST_SECONDS * 2 ** min(self._failures - 1, 10))
        self._paused_until = self._clock() + pause
        PUBLISHES.labels("failed").inc()
        FAILING.set(1)
        if self._failures == 1:
            log.error(
                "queue takes no messages, work is found by looking",
                error=type(error).__name__,
                text=str(error)[:TEXT_MAX],
            )

    def _worked(self, *, deduplicated: bool) -> None:
        PUBLISHES.labels("deduplicated" if deduplicated else "published").inc()
        FAILING.set(0)
        if self._failures:
            log.info("queue takes messages again", failures=self._failures)
        self._failures = 0
        self._paused_until = -math.inf


def _is_refusal(error: Exception) -> bool:
    """Whether the same request would be refused again at once."""
    if isinstance(error, RateLimitExceededError | DailyMessageLimitExceededError):
        return True
    return isinstance(error, QStashError) and _REFUSED.match(str(error)) is not None
