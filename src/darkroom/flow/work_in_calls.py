"""The pipeline without a worker: a call from outside does rounds for a while, and rings for the next call.

For hosting that keeps no process alive. A call may come twice, at once with another, or not at all, and be
killed in the middle: it holds nothing but leases, which lapse, and the next call goes on.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from darkroom.core.due import next_due_seconds
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS, Step
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.log import get_logger

log = get_logger("flow")

ROUND_SECONDS: Final = 25
"""When no new round is begun. A serverless call lives 60 s, and a round in flight may take the 30 s of its
slowest call: it is let finish, because a creation that is cut off may have to be paid twice."""
WAIT_SECONDS: Final = 5
"""What is due sooner is waited for: a message costs about as much as so many idle seconds, and comes later."""
LOOK_AHEAD_SECONDS: Final = 900
"""The longest delay of the next call: as long as a provider is asked about one task. Cron looks more often."""


async def work_rounds(darkroom: Darkroom, *, seconds: float = ROUND_SECONDS) -> Counter[str]:
    """Rounds of every working step until nothing is due or the time is up: how much each step found.

    Nothing in flight is cut off. A crash inside leaves leases, which lapse.
    """
    return await _rounds(darkroom, WORK_STEPS, ends=time.monotonic() + seconds)


async def house_rounds(
    darkroom: Darkroom, *, seconds: float = ROUND_SECONDS, clock: Clock = system_clock
) -> Counter[str]:
    """One round of every house step, while the time lasts: how much each found.

    It begins at another step each minute, so that a slow one never starves those behind it.
    """
    first = int(clock().timestamp() / 60) % len(HOUSE_STEPS)
    done: Counter[str] = Counter()
    await _round(
        darkroom, (*HOUSE_STEPS[first:], *HOUSE_STEPS[:first]), done, time.monotonic() + seconds
    )
    return done


async def work_in_call(darkroom: Darkroom, *, seconds: float = ROUND_SECONDS) -> Counter[str]:
    """As `work_rounds`, waiting for what is due in a moment; then the bell is set for what is due later.

    Killed before the bell is set, the queue's redelivery or the next tick of a clock does the same again.
    """
    done: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while True:
        done += await _rounds(darkroom, WORK_STEPS, ends=ends)
        due_seconds = await _next_due(darkroom)
        if due_seconds is None:
            return done
        pause = max(due_seconds, 0.05)
        if pause > WAIT_SECONDS or time.monotonic() + pause >= ends:
            break
        await asyncio.sleep(pause)
    await checkpoint("call.before_ring")
    await darkroom.doorbell.ring(after_seconds=min(max(due_seconds, 1), LOOK_AHEAD_SECONDS))
    return done


async def _rounds(darkroom: Darkroom, steps: Sequence[Step], *, ends: float) -> Counter[str]:
    done: Counter[str] = Counter()
    while await _round(darkroom, steps, done, ends) and time.monotonic() < ends:
        pass
    return done


async def _round(
    darkroom: Darkroom, steps: Sequence[Step], done: Counter[str], ends: float
) -> bool:
    """Each step once, none begun after `ends`. Whether any found something."""
    moving = False
    for step in steps:
        if time.monotonic() >= ends:
            break
        try:
            found = await step.run(darkroom)
        except (DatabaseUnavailableError, RowBusyError, DatabaseRefusedError):
            # The next step may still move others; what failed is due again.
            log.exception("round failed", step=step.name)
            found = 0
        done[step.name] += found
        moving = moving or found > 0
    return moving


async def _next_due(darkroom: Darkroom) -> float | None:
    """As the rows say; a database that does not answer is looked for again by the next call, soon."""
    try:
        async with darkroom.database.connection() as tx:
            return await next_due_seconds(tx)
    except (DatabaseUnavailableError, RowBusyError, DatabaseRefusedError):
        log.exception("next call not known")
        return WAIT_SECONDS + 1
