"""What a person should know about the providers before photos are late: as metrics, and as alarms."""

from typing import Final

from prometheus_client import Gauge

from darkroom.core.budget import view_budgets
from darkroom.core.tasks import alarm_dying_links, count_dying_links
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

PAUSED: Final = Gauge(
    "darkroom_provider_paused_seconds",
    "For how long nothing will be created there, and why.",
    ["provider", "reason"],
)
DAY_CREDITS: Final = Gauge(
    "darkroom_provider_day_credits",
    "Credits of this UTC day, where a day has a limit.",
    ["provider"],
)
DAY_CAPPED: Final = Gauge(
    "darkroom_provider_day_capped_photos",
    "Photos that wait because the day's credits are spent.",
    ["provider"],
)
LINKS_DYING: Final = Gauge(
    "darkroom_result_links_dying",
    "Results that are not stored and whose link dies within six hours.",
)


async def watch_providers(darkroom: Darkroom) -> int:
    """One bounded round: refresh the metrics, and tell a person once of each link that is about to die.

    Returns how many links it told of. Reads everything else; a crash before the commit tells again.
    """
    await _watch_budgets(darkroom)
    within = darkroom.limits.links_alarm_seconds
    async with darkroom.database.transaction() as tx:
        LINKS_DYING.set(await count_dying_links(tx, within_seconds=within))
        told = await alarm_dying_links(tx, within_seconds=within, limit=darkroom.limits.sweep_batch)
        await checkpoint("links.before_commit")
    for task_id, left_seconds in told:
        log.error("a result's link dies soon", task_id=task_id, seconds_left=round(left_seconds))
    return len(told)


async def _watch_budgets(darkroom: Darkroom) -> None:
    async with darkroom.database.connection() as tx:
        budgets = await view_budgets(tx)
    PAUSED.clear()
    prices = {
        one.account: one.price_credits
        for one in darkroom.generation.values()
        if one.price_credits is not None
    }
    for budget in budgets:
        if budget.paused_seconds > 0:
            PAUSED.labels(budget.provider, budget.pause_reason or "").set(budget.paused_seconds)
        if budget.day_credits is None or budget.day_credits_max is None:
            continue
        DAY_CREDITS.labels(budget.provider).set(budget.day_credits)
        room = budget.day_credits_max - budget.day_credits
        capped = budget.queued if room < prices.get(budget.provider, 0) else 0
        DAY_CAPPED.labels(budget.provider).set(capped)
        if capped:
            log.error(
                "the day's credits are spent",
                provider=budget.provider,
                credits=budget.day_credits,
                limit=budget.day_credits_max,
                waiting=capped,
            )
