"""What the providers took: balances held against the ledger, and costs that nobody had read asked for once."""

from collections import Counter
from typing import Final

from prometheus_client import Gauge

from darkroom.core.attempts import close_abandoned
from darkroom.core.credits import (
    Reading,
    begin_reading,
    forget_readings,
    last_readings,
    store_reading,
    unexplained_credits,
)
from darkroom.core.spend import SpendLine, list_unread_costs, read_spend, record_cost
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.generation import CreditMeter, ProviderUnavailableError

log = get_logger("flow")

CREDITS_LEFT: Final = Gauge(
    "darkroom_provider_credits", "Credits left at a provider, when last read.", ["provider"]
)
UNEXPLAINED: Final = Gauge(
    "darkroom_credits_unexplained",
    "Credits that a provider took in the last day and no attempt explains.",
    ["provider"],
)
READINGS_DAYS: Final = 90
"""A quarter's bill can still be held against them; 144 rows a day."""
MISSES_IN_A_ROW: Final = 3
"""One task's record may be broken there; three in a row mean that the provider is away."""


def _meters(darkroom: Darkroom) -> dict[str, CreditMeter]:
    """One meter for each account that takes credits."""
    return {
        one.account: one for one in darkroom.generation.values() if isinstance(one, CreditMeter)
    }


async def read_balances(darkroom: Darkroom) -> int:
    """One bounded round: read each balance whose time has come, and hold it against the ledger.

    Returns how many were read. A crash, or two processes at once, leave one reading or none.
    """
    limits = darkroom.limits
    done = 0
    for account, meter in _meters(darkroom).items():
        async with darkroom.database.connection() as tx:
            read_at = await begin_reading(tx, account, every_seconds=limits.credits_every_seconds)
        if read_at is None:
            continue
        await checkpoint("balance.before_call")
        try:
            left = await meter.read_credits()
        except ProviderUnavailableError as error:
            log.warning("balance not read", provider=account, error=str(error))
            continue
        async with darkroom.database.transaction() as tx:
            reading = await store_reading(
                tx,
                account,
                read_at=read_at,
                credits_left=left,
                every_seconds=limits.credits_every_seconds,
            )
            await forget_readings(tx, older_than_days=READINGS_DAYS, limit=limits.sweep_batch)
            await checkpoint("balance.before_commit")
        done += 1
        _alarm(meter, left, reading)
    # Each process says what the last reading said, whoever took it.
    meters = _meters(darkroom)
    for reading, unexplained in await read_last_balances(darkroom):
        if reading.account not in meters:
            continue  # of a provider that was taken away: nobody reads it any more
        CREDITS_LEFT.labels(reading.account).set(reading.credits_left)
        UNEXPLAINED.labels(reading.account).set(unexplained)
    return done


def _alarm(meter: CreditMeter, left: float, reading: Reading | None) -> None:
    if left < meter.credits_low:
        log.error("credits are low", provider=meter.account, credits_left=left)
    if reading is None:
        return
    if reading.topped_up_credits > 0:
        log.info("credits topped up", provider=meter.account, credits=reading.topped_up_credits)
    if reading.unexplained_credits > 0:
        log.error(
            "credits unexplained",
            provider=meter.account,
            unexplained=reading.unexplained_credits,
            dropped=reading.dropped_credits,
            explained=reading.explained_credits,
        )


async def read_costs(darkroom: Darkroom) -> int:
    """One bounded round: end attempts that nobody waits for, and ask what those took whose cost is not known.

    Returns how many attempts it ended or got an answer about. Asking is harmless; a crash leaves a cost to be
    asked for again. One that cannot be read counts as asked for: it comes after all others from then on. An
    account that gives no answer three times in a row is left alone for this round.
    """
    limits = darkroom.limits
    meters = _meters(darkroom)
    async with darkroom.database.connection() as tx:
        closed = await close_abandoned(tx, limit=limits.sweep_batch)
        unread = await list_unread_costs(
            tx,
            accounts=list(meters),
            settled_seconds=limits.pending_give_up_seconds,
            limit=limits.batch,
        )
    answered, misses = 0, Counter[str]()
    for attempt in unread:
        if misses[attempt.account] >= MISSES_IN_A_ROW:
            continue
        await checkpoint("costs.before_call")
        cost: float | None = None
        try:
            cost = await meters[attempt.account].read_cost(attempt.provider_task_id)
        except ProviderUnavailableError as error:
            log.warning("cost not read", attempt_id=attempt.attempt_id, error=str(error))
            misses[attempt.account] += 1
        else:
            answered += 1
            misses[attempt.account] = 0
        async with darkroom.database.connection() as tx:
            await record_cost(tx, attempt.attempt_id, cost)
    return closed + answered


async def read_ledger(darkroom: Darkroom, *, days: int) -> list[SpendLine]:
    """The spend ledger for operators: the last `days` UTC days, today's included."""
    async with darkroom.database.connection() as tx:
        return await read_spend(tx, days=days)


async def read_last_balances(darkroom: Darkroom) -> list[tuple[Reading, float]]:
    """Each account's newest reading, and what of the last day nobody can explain."""
    async with darkroom.database.connection() as tx:
        return [
            (reading, await unexplained_credits(tx, reading.account))
            for reading in await last_readings(tx)
        ]
