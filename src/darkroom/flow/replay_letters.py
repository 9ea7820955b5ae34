"""An operator gives failed photos another try, perhaps with another provider."""

from dataclasses import dataclass
from typing import Final

from darkroom.core.dead_letters import DeadLetter, list_dead_letters, replay_dead_letter
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError
from darkroom.kit.checkpoint import checkpoint

MOVES_MADE: Final = (
    "task: failed -> queued",
    "job: partial -> processing",
    "job: failed -> processing",
)
LIST_MAX: Final = 500
"""A page a person still reads; replaying all goes through pages of it."""


@dataclass(frozen=True, slots=True)
class Replays:
    """What became of a replay."""

    replayed: int
    kept: int


async def read_dead_letters(darkroom: Darkroom) -> list[DeadLetter]:
    """Open dead letters, oldest of those first that can be replayed. More than LIST_MAX: there are more."""
    async with darkroom.database.connection() as tx:
        return await list_dead_letters(tx, limit=LIST_MAX + 1)


async def replay_letters(
    darkroom: Darkroom, letter_id: int | None, *, provider: str | None
) -> Replays:
    """Replay one letter, or all of them. Some are kept: their money, selfies, or customers are gone.

    Each letter is a transaction of its own; a crash leaves the rest as they were.

    Raises:
        RequestRefusedError: no such provider is configured.
    """
    if provider is not None and provider not in darkroom.generation:
        raise RequestRefusedError(400, "UNKNOWN_PROVIDER", f"provider {provider} is not configured")
    if letter_id is None:
        ids = [letter.id for letter in await read_dead_letters(darkroom) if letter.replayable]
    else:
        ids = [letter_id]
    replayed: list[int] = []
    for one in ids:
        async with darkroom.database.transaction() as tx:
            job_id = await replay_dead_letter(tx, one, provider=provider)
            await checkpoint("replay.before_commit")
        if job_id is not None:
            replayed.append(job_id)
    if replayed:
        # Of one job by its name; of many once, for whatever is due.
        await darkroom.doorbell.ring(replayed[0] if len(set(replayed)) == 1 else None)
    return Replays(len(replayed), len(ids) - len(replayed))
