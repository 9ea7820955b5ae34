"""A provider's budget: one window of creations, one pause, shared by every process.

The window is counted over the attempts themselves, which are committed before each call: there is no
second number that could disagree with them.
"""

from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row

from darkroom.db.database import Connection

BREAKER_AFTER: Final = 5
"""Creations in a row without an answer before the breaker opens: one bad minute is not an outage, and five
unknowns are already five photos that wait for their grace."""
BREAKER_CAP_SECONDS: Final = 60
"""The longest pause of the breaker: an outage that ends is noticed within a minute."""

LOCK_BUDGET: Final = "SELECT FROM provider_budgets WHERE provider = %s FOR NO KEY UPDATE"
"""Two processes never count the same window."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be created now, read behind the budget's lock."""

    granted: int


async def set_window(
    tx: Connection, provider: str, *, requests: int | None, seconds: float
) -> None:
    """What the provider allows; None: no limit. Keeps a pause that is under way."""
    await tx.execute(
        "INSERT INTO provider_budgets (provider, window_requests, window_seconds) VALUES (%s, %s, %s) "
        "ON CONFLICT (provider) DO UPDATE SET window_requests = EXCLUDED.window_requests, "
        "window_seconds = EXCLUDED.window_seconds, updated_at = darkroom_now() "
        "WHERE (provider_budgets.window_requests, provider_budgets.window_seconds) "
        "IS DISTINCT FROM (EXCLUDED.window_requests, EXCLUDED.window_seconds)",
        [provider, requests, seconds],
    )


async def take_budget(tx: Connection, provider: str, *, wanted: int) -> int:
    """How many creations may be claimed in this transaction, at most `wanted`.

    Locks the provider's row until the commit, so that two processes never count the same window. A
    provider without a limit and without a pause takes no lock. A breaker that has just let go grants one:
    its answer closes or opens it again.
    """
    async with tx.cursor(row_factory=class_row(Budget)) as cursor:
        await cursor.execute(
            "SELECT %(wanted)s AS granted FROM provider_budgets WHERE provider = %(provider)s "
            "AND window_requests IS NULL AND silent_in_a_row = 0 AND paused_until <= darkroom_now()",
            {"provider": provider, "wanted": wanted},
        )
        free = await cursor.fetchone()
        if free is not None:
            return free.granted
        await cursor.execute(LOCK_BUDGET, [provider])
        # A statement of its own: it must see the attempts that the holder before us committed.
        await cursor.execute(
            """
            SELECT CASE
                WHEN b.paused_until > darkroom_now() THEN 0
                WHEN b.silent_in_a_row >= %(breaker)s THEN least(1, room.places)
                ELSE room.places END AS granted
            FROM provider_budgets b
            CROSS JOIN LATERAL (
                SELECT greatest(0, least(%(wanted)s, CASE
                    WHEN b.window_requests IS NULL THEN %(wanted)s
                    ELSE b.window_requests - (
                        SELECT count(*) FROM task_attempts a
                        WHERE a.provider = b.provider
                          AND a.created_at > (SELECT darkroom_now())
                                             - make_interval(secs => b.window_seconds))
                    END))::INTEGER AS places
            ) room
            WHERE b.provider = %(provider)s
            """,
            {"provider": provider, "wanted": wanted, "breaker": BREAKER_AFTER},
        )
        budget = await cursor.fetchone()
        return wanted if budget is None else budget.granted


async def pause_provider(tx: Connection, provider: str, *, seconds: float, reason: str) -> None:
    """Let nobody create anything there for a while. The longer pause wins."""
    await tx.execute(
        "INSERT INTO provider_budgets (provider, paused_until, pause_reason) "
        "VALUES (%(provider)s, darkroom_now() + make_interval(secs => %(seconds)s), %(reason)s) "
        "ON CONFLICT (provider) DO UPDATE SET pause_reason = EXCLUDED.pause_reason, "
        "paused_until = greatest(provider_budgets.paused_until, EXCLUDED.paused_until), "
        "updated_at = darkroom_now()",
        {"provider": provider, "seconds": seconds, "reason": reason},
    )


async def note_silence(tx: Connection, provider: str) -> None:
    """A creation got no answer. From the fifth in a row on, the provider rests, longer each time."""
    await tx.execute(
        """
        INSERT INTO provider_budgets (provider, silent_in_a_row) VALUES (%(provider)s, 1)
        ON CONFLICT (provider) DO UPDATE
        SET silent_in_a_row = provider_budgets.silent_in_a_row + 1,
            updated_at = darkroom_now(),
            pause_reason = CASE WHEN provider_budgets.silent_in_a_row + 1 >= %(breaker)s
                                THEN 'NO_ANSWER' ELSE provider_budgets.pause_reason END,
            paused_until = CASE WHEN provider_budgets.silent_in_a_row + 1 >= %(breaker)s
                THEN darkroom_now() + make_interval(secs => least(%(cap)s,
                    power(2, least(10, provider_budgets.silent_in_a_row + 1 - %(breaker)s))))
                ELSE provider_budgets.paused_until END
        """,
        {"provider": provider, "breaker": BREAKER_AFTER, "cap": BREAKER_CAP_SECONDS},
    )


async def note_answer(tx: Connection, provider: str) -> None:
    """A creation was answered: the breaker closes. Writes only where there is something to forget."""
    await tx.execute(
        "UPDATE provider_budgets SET silent_in_a_row = 0, updated_at = darkroom_now() "
        "WHERE provider = %s AND silent_in_a_row > 0",
        [provider],
    )


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A provider's state for operators."""

    provider: str
    window_requests: int | None
    window_seconds: float
    used: int
    paused_seconds: float
    pause_reason: str | None
    silent_in_a_row: int
    queued: int


async def view_budgets(tx: Connection) -> list[BudgetView]:
    """Every provider: its window, its pause, what waits for it."""
    async with tx.cursor(row_factory=class_row(BudgetView)) as cursor:
        await cursor.execute(
            """
            SELECT b.provider, b.window_requests, b.window_seconds, b.pause_reason, b.silent_in_a_row,
                   (SELECT count(*) FROM task_attempts a WHERE a.provider = b.provider
                    AND a.created_at > (SELECT darkroom_now())
                                       - make_interval(secs => b.window_seconds)) AS used,
                   greatest(0, extract(epoch FROM CASE WHEN isfinite(b.paused_until)
                       THEN b.paused_until - darkroom_now() END))::FLOAT8 AS paused_seconds,
                   (SELECT count(*) FROM kie_tasks t
                    WHERE t.provider = b.provider AND t.status = 'queued') AS queued
            FROM provider_budgets b ORDER BY b.provider
            """
        )
        return await cursor.fetchall()


async def providers_waited_for(tx: Connection) -> list[str]:
    """Every provider that a queued task names: one that is not configured is an alarm."""
    async with tx.cursor() as cursor:
        await cursor.execute("SELECT DISTINCT provider FROM kie_tasks WHERE status = 'queued'")
        return [str(provider) for (provider,) in await cursor.fetchall()]
