"""A provider that is shut for long hands its queue to the next one. What may be somewhere already stays."""

from typing import Final

from darkroom.core.budget import list_shut, model_key, move_queue
from darkroom.flow.darkroom import Darkroom, fallback_of
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

ROUND_MAX: Final = 1000
"""Photos of one round: one statement of some ten milliseconds; the rest goes in the next."""


async def fall_back(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many photos were handed on.

    Only `queued` ones move: a photo that is offered, unknown or at its provider may come from there. One
    guarded statement for each shut provider; a crash leaves the rest for the next round.
    """
    if not darkroom.generation_fallback:
        return 0
    async with darkroom.database.connection() as tx:
        rows = await list_shut(tx, for_seconds=darkroom.limits.fallback_after_seconds)
    shut: dict[str, str] = {}
    for name, one in darkroom.generation.items():
        keys = rows & {one.account, model_key(one.account, one.model)}
        if keys:
            shut[name] = min(keys)
    moved = 0
    for name, key in shut.items():
        target = fallback_of(darkroom, name, shut=frozenset(shut))
        if target is None:
            continue
        async with darkroom.database.transaction() as tx:
            found = await move_queue(tx, source=name, target=target, shut=key, limit=ROUND_MAX)
            await checkpoint("fallback.before_commit")
        if found:
            log.error("queue goes to the fallback", provider=target, instead_of=name, photos=found)
        moved += found
    if moved:
        await darkroom.doorbell.ring()
    return moved
