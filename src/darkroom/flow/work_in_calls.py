"""The pipeline without a worker: a call from outside does rounds for a while, and rings for the next call.

For hosting that keeps no process alive. A call may come twice, at once with another, or not at all, and be
killed in the middle: it holds nothing but leases, which lapse, and the next call goes on.
"""

import asyncio
import time
from collections import Counter
from typing import Final

from darkroom.core.budget import model_key
from darkroom.core.due import Way, next_due_seconds
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS, Step
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.log import get_logger

log = get_logger("flow")

ROUND_SECONDS: Final = 25
"""When no new round is begun. A serverless call lives 60 s, and what may not be cut off (below) takes 30 s."""
GRACE_SECONDS: Final = 27
"""Then what is in flight is cut off where that costs nothing (a question, a download of up to 210 s): in time
for the bell to be set within the 60 s. Its rows are due again when their leases lapse."""
NEVER_CUT: Final = frozenset({"submit", "refund"})
"""A creation or a refund that is cut off may be on its way: it would be asked about, or paid twice. Their calls
have limits of their own, which `tests/core/test_times.py` holds against the 60 s."""
HELD_SECONDS: Final = 10
"""A lease, and a second."""
WAIT_SECONDS: Final = 5
"""What is due sooner is waited for: a message costs about as much as so many idle seconds, and comes later."""
LOOK_AHEAD_SECONDS: Final = 900
"""The longest delay of the next call: as long as a provider is asked about one task. What is due later is left
to the clock, which ticks more often: rung for at this limit, each tick began a chain of bells without end."""


async def work_rounds(darkroom: Darkroom, *, seconds: float = ROUND_SECONDS) -> Counter[str]:
    """Rounds of every working step until nothing is due or the time is up: how much each step found.

    The steps of a round run side by side, as a worker's lanes do: one that hangs keeps no other waiting. None
    is begun after the time is up; what is in flight then is let finish, or cut off where that costs nothing.
    A crash inside leaves leases, which lapse.
    """
    done: Counter[str] = Counter()
    await _work(darkroom, done, began=time.monotonic(), seconds=seconds)
    return done


async def work_in_call(darkroom: Darkroom, *, seconds: float = ROUND_SECONDS) -> Counter[str]:
    """As `work_rounds`, waiting for what is due in a moment; then the bell is set for what is due later.

    Killed before the bell is set, the queue's redelivery or the next tick of a clock does the same again.
    """
    done: Counter[str] = Counter()
    began = time.monotonic()
    while True:
        found_all = await _work(darkroom, done, began=began, seconds=seconds)
        due_seconds = await _next_due(darkroom)
        if due_seconds is None:
            return done
        if found_all and due_seconds <= 0:
            # Due, and nobody could take it: a peer holds it. It is not over the sooner for asking at once.
            due_seconds = HELD_SECONDS
        # Long overdue is due now: a call whose time is up must not count on time that has passed.
        pause = max(due_seconds, 0.05)
        if pause > WAIT_SECONDS or time.monotonic() + pause >= began + seconds:
            break
        await asyncio.sleep(pause)
    await checkpoint("call.before_ring")
    if due_seconds <= LOOK_AHEAD_SECONDS:
        await darkroom.doorbell.ring(after_seconds=max(due_seconds, 1))
    return done


async def _work(darkroom: Darkroom, done: Counter[str], *, began: float, seconds: float) -> bool:
    """Rounds until one finds nothing (True) or the time is up (False)."""
    while time.monotonic() < began + seconds:
        found = await asyncio.gather(
            *(
                _step(darkroom, step, done, ends=began + seconds + GRACE_SECONDS)
                for step in WORK_STEPS
            )
        )
        if not any(found):
            return True
    return False


async def house_rounds(
    darkroom: Darkroom, *, seconds: float = ROUND_SECONDS, clock: Clock = system_clock
) -> Counter[str]:
    """One round of every house step, while the time lasts: how much each found.

    It begins at another step each minute, so that a slow one never starves those behind it.
    """
    first = int(clock().timestamp() / 60) % len(HOUSE_STEPS)
    done: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    for step in (*HOUSE_STEPS[first:], *HOUSE_STEPS[:first]):
        if time.monotonic() >= ends:
            break
        await _step(darkroom, step, done, ends=ends + GRACE_SECONDS)
    return done


async def _step(darkroom: Darkroom, step: Step, done: Counter[str], *, ends: float) -> int:
    """One round of a step. One that fails is due again, and keeps no other from its turn."""
    limit = None if step.name in NEVER_CUT else max(ends - time.monotonic(), 0)
    found, time_is_up = 0, asyncio.timeout(limit)
    try:
        async with time_is_up:
            found = await step.run(darkroom)
    except Exception:
        if time_is_up.expired():
            log.warning("round cut off at the end of its call", step=step.name)
        else:
            log.exception("round failed", step=step.name)
    done[step.name] += found
    return found


async def _next_due(darkroom: Darkroom) -> float | None:
    """As the rows say; a database that does not answer is looked for again by the next call, soon."""
    ways = [
        Way(name, one.account, model_key(one.account, one.model or ""), one.price_credits)
        for name, one in darkroom.generation.items()
    ]
    try:
        async with darkroom.database.connection() as tx:
            return await next_due_seconds(
                tx, ways, banks=list(darkroom.payments), sends_mail=darkroom.mailer is not None
            )
    except (DatabaseUnavailableError, RowBusyError, DatabaseRefusedError):
        log.exception("next call not known")
        return WAIT_SECONDS + 1
