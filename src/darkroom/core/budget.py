"""A provider's budget: one window of creations, one pause, shared by every process.

The window is counted over the attempts themselves, which are committed before each call: there is no
second number that could disagree with them.
"""

from dataclasses import dataclass
from typing import Final, LiteralString

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

BREAKER_AFTER: Final = 5
"""Creations in a row without an answer before the breaker opens: one bad minute is not an outage, and five
unknowns are already five photos that wait for their grace."""
BREAKER_CAP_SECONDS: Final = 60
"""The longest pause of the breaker: an outage that ends is noticed within a minute."""

SHUT_GAP_SECONDS: Final = 180
"""While photos wait, the next try follows a pause within 60 s (the retry cap), and one without an answer within
its 90 s of grace. A pause that ended longer ago belongs to another outage."""

LOCK_BUDGET: Final = "SELECT FROM provider_budgets WHERE provider = %s FOR NO KEY UPDATE"
"""Two processes never count the same window, nor the same day's credits."""

DAY_CREDITS: Final = """
    SELECT coalesce(sum(CASE WHEN a.end_state = 'failed' THEN coalesce(a.credits, 0)
                             ELSE coalesce(a.credits, a.expected_credits, 0) END), 0)
    FROM task_attempts a
    WHERE split_part(a.provider, ':', 1) = b.provider AND a.refusal_code IS NULL
      AND a.created_at >= (SELECT date_trunc('day', darkroom_now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
"""
"""What the attempts of this UTC day took of account `b`; each whose cost is not known counts as expected, the
open ones too. An attempt belongs to the day it was made on, so none is counted on two days."""

_SHUT_SINCE: Final = """
    CASE WHEN provider_budgets.shut_since IS NULL
              OR greatest(provider_budgets.paused_until, provider_budgets.updated_at)
                 < darkroom_now() - make_interval(secs => %(gap)s)
         THEN darkroom_now() ELSE provider_budgets.shut_since END
"""


def model_key(account: str, model: str) -> str:
    """The row of one model of an account: its pauses are the model's alone."""
    return f"{account}:{model}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be created now, read behind the budget's lock.

    Attributes:
        is_probe: the breaker has just let go, and one creation says whether the account answers again.
    """

    granted: int
    is_probe: bool


async def set_window(
    tx: Connection,
    account: str,
    *,
    requests: int | None,
    seconds: float,
    day_credits_max: float | None = None,
) -> None:
    """What the account allows and what we allow ourselves; None: no limit. Keeps a pause that is under way."""
    await tx.execute(
        "INSERT INTO provider_budgets (provider, window_requests, window_seconds, day_credits_max) "
        "VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (provider) DO UPDATE SET window_requests = EXCLUDED.window_requests, "
        "window_seconds = EXCLUDED.window_seconds, day_credits_max = EXCLUDED.day_credits_max "
        "WHERE (provider_budgets.window_requests, provider_budgets.window_seconds, "
        "provider_budgets.day_credits_max) "
        "IS DISTINCT FROM (EXCLUDED.window_requests, EXCLUDED.window_seconds, "
        "EXCLUDED.day_credits_max)",
        [account, requests, seconds, day_credits_max],
    )


FREE: Final[LiteralString] = """EXISTS (
    SELECT FROM provider_budgets WHERE provider = %(account)s
      AND window_requests IS NULL AND day_credits_max IS NULL AND silent_in_a_row = 0
      AND paused_until <= darkroom_now() AND NOT EXISTS (
        SELECT FROM provider_budgets m WHERE m.provider = %(model_key)s AND m.paused_until > darkroom_now()))"""
"""Nothing is to be counted: no limits, no pause, and the account's last creation was answered. In the statement
that claims: what others pause a moment later comes too late for it."""


async def is_free(tx: Connection, account: str, *, model: str | None = None) -> bool:
    """Whether nothing is to be counted (FREE), asked by itself."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT " + FREE, {"account": account, "model_key": model_key(account, model or "")}
        )
        return bool(await cursor.fetchone())


async def take_budget(
    tx: Connection,
    account: str,
    *,
    wanted: int,
    model: str | None = None,
    price_credits: float | None = None,
) -> Budget:
    """How many creations may be claimed in this transaction, at most `wanted`.

    Locks the account's row until the commit, so that two processes never count the same window or the same
    credits, with whichever of the account's models. A breaker that has just let go grants one: its answer
    closes or opens it again.
    """
    values = {
        "wanted": wanted,
        "account": account,
        "model": model_key(account, model or ""),
        "price": price_credits,
        "breaker": BREAKER_AFTER,
    }
    async with tx.cursor(row_factory=class_row(Budget)) as cursor:
        await cursor.execute(LOCK_BUDGET, [account])
        # A statement of its own: it must see the attempts that the holder before us committed.
        await cursor.execute(
            """
            SELECT CASE
                WHEN b.paused_until > darkroom_now() OR m.paused_until > darkroom_now() THEN 0
                WHEN b.silent_in_a_row >= %(breaker)s THEN least(1, room.places)
                ELSE room.places END AS granted, b.silent_in_a_row >= %(breaker)s AS is_probe
            FROM provider_budgets b
            LEFT JOIN provider_budgets m ON m.provider = %(model)s
            CROSS JOIN LATERAL (
                SELECT greatest(0, least(%(wanted)s, CASE
                    WHEN b.window_requests IS NULL THEN %(wanted)s
                    ELSE b.window_requests - (
                        SELECT count(*) FROM task_attempts a
                        WHERE split_part(a.provider, ':', 1) = b.provider
                          AND a.created_at > (SELECT darkroom_now())
                                             - make_interval(secs => b.window_seconds))
                    END, CASE
                    WHEN b.day_credits_max IS NULL OR %(price)s::NUMERIC IS NULL THEN %(wanted)s
                    ELSE floor((b.day_credits_max - ("""
            + DAY_CREDITS
            + """)) / greatest(%(price)s::NUMERIC, 0.01))
                    END))::INTEGER AS places
            ) room
            WHERE b.provider = %(account)s
            """,
            values,
        )
        budget = await cursor.fetchone()
        return Budget(wanted, is_probe=False) if budget is None else budget


async def next_place_seconds(tx: Connection, account: str) -> float | None:
    """In how many seconds a full window has a place again; None: it is not full, or something else is shut.

    A place comes free when the oldest creation that fills the window leaves it.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT extract(epoch FROM oldest.created_at + make_interval(secs => b.window_seconds)
                                      - darkroom_now())::FLOAT8
            FROM provider_budgets b CROSS JOIN LATERAL (
                SELECT a.created_at FROM task_attempts a
                WHERE split_part(a.provider, ':', 1) = b.provider
                  AND a.created_at > (SELECT darkroom_now()) - make_interval(secs => b.window_seconds)
                ORDER BY a.created_at DESC OFFSET greatest(b.window_requests - 1, 0) LIMIT 1
            ) oldest
            WHERE b.provider = %s AND b.window_requests IS NOT NULL
              AND b.paused_until <= darkroom_now()
            """,
            [account],
        )
        found: float | None = await cursor.fetchone()
        return None if found is None else max(found, 0.0)


async def pause_provider(
    tx: Connection, account: str, *, seconds: float, reason: str, model: str | None = None
) -> None:
    """Let nobody create anything there for a while. The longer pause wins. With a model: of that one alone."""
    if model is not None:
        # The account's row is where a claim begins to look.
        await tx.execute(
            "INSERT INTO provider_budgets (provider) VALUES (%s) ON CONFLICT DO NOTHING", [account]
        )
    await tx.execute(
        "INSERT INTO provider_budgets (provider, paused_until, pause_reason, shut_since) "
        "VALUES (%(provider)s, darkroom_now() + make_interval(secs => %(seconds)s), %(reason)s, "
        "darkroom_now()) "
        "ON CONFLICT (provider) DO UPDATE SET pause_reason = EXCLUDED.pause_reason, "
        "shut_since = "
        + _SHUT_SINCE
        + ", paused_until = greatest(provider_budgets.paused_until, EXCLUDED.paused_until), "
        "updated_at = darkroom_now()",
        {
            "provider": account if model is None else model_key(account, model),
            "seconds": seconds,
            "reason": reason,
            "gap": SHUT_GAP_SECONDS,
        },
    )


async def note_silence(tx: Connection, account: str) -> None:
    """A creation got no answer. From the fifth in a row on, the account rests, longer each time."""
    await tx.execute(
        """
        INSERT INTO provider_budgets (provider, silent_in_a_row, shut_since)
        VALUES (%(provider)s, 1, darkroom_now())
        ON CONFLICT (provider) DO UPDATE
        SET silent_in_a_row = provider_budgets.silent_in_a_row + 1,
            updated_at = darkroom_now(),
            shut_since = """
        + _SHUT_SINCE
        + """,
            pause_reason = CASE WHEN provider_budgets.silent_in_a_row + 1 >= %(breaker)s
                                THEN 'NO_ANSWER' ELSE provider_budgets.pause_reason END,
            paused_until = CASE WHEN provider_budgets.silent_in_a_row + 1 >= %(breaker)s
                -- The longer pause wins, as everywhere: it may have said when it is back.
                THEN greatest(provider_budgets.paused_until,
                    darkroom_now() + make_interval(secs => least(%(cap)s,
                        power(2, least(10, provider_budgets.silent_in_a_row + 1 - %(breaker)s)))))
                ELSE provider_budgets.paused_until END
        """,
        {
            "provider": account,
            "breaker": BREAKER_AFTER,
            "cap": BREAKER_CAP_SECONDS,
            "gap": SHUT_GAP_SECONDS,
        },
    )


async def note_answer(
    tx: Connection, account: str, *, model: str | None = None, created: bool = False
) -> None:
    """A creation was answered: the breaker closes; one that worked also says that nothing is shut.

    Writes only where there is something to forget.
    """
    await tx.execute(
        "UPDATE provider_budgets SET updated_at = darkroom_now(), "
        "silent_in_a_row = CASE WHEN provider = %(account)s THEN 0 ELSE silent_in_a_row END, "
        "shut_since = CASE WHEN %(created)s THEN NULL ELSE shut_since END "
        "WHERE provider IN (%(account)s, %(model)s) "
        "AND ((provider = %(account)s AND silent_in_a_row > 0) "
        "OR (%(created)s AND shut_since IS NOT NULL))",
        {"account": account, "model": model_key(account, model or ""), "created": created},
    )


async def list_shut(tx: Connection, *, for_seconds: float) -> set[str]:
    """The accounts, and models as `account:model`, where nothing could be created for so long, though tried."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT provider FROM provider_budgets "
            "WHERE shut_since <= darkroom_now() - make_interval(secs => %s) "
            "AND greatest(paused_until, updated_at) > darkroom_now() - make_interval(secs => %s)",
            [for_seconds, SHUT_GAP_SECONDS],
        )
        return set(await cursor.fetchall())


MOVE_QUEUE: Final = """
UPDATE kie_tasks t
SET provider = %(target)s, claim = t.claim + 1, attempts = 0, updated_at = darkroom_now(),
    attempts_forgiven = (SELECT count(*) FROM task_attempts paid
                         WHERE paid.task_id = t.id AND paid.refusal_code IS NULL),
    due_at = darkroom_now(), not_before = '-infinity'
WHERE t.status = 'queued' AND t.provider = %(source)s AND t.id IN (
    SELECT id FROM kie_tasks WHERE status = 'queued' AND provider = %(source)s
    ORDER BY turn, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
  AND EXISTS (SELECT FROM provider_budgets b WHERE b.provider = %(shut)s AND b.shut_since IS NOT NULL)
"""


async def move_queue(tx: Connection, *, source: str, target: str, shut: str, limit: int) -> int:
    """Hand queued tasks of a shut provider to another, in one statement: none that may be somewhere already.

    `shut` is the row that must still say so. What was tried before is forgiven, as in a replay. A worker that
    has claimed a task in the meantime keeps it.
    """
    moved = await tx.execute(
        MOVE_QUEUE,
        {"source": source, "target": target, "shut": shut, "limit": limit},
    )
    return moved.rowcount


@dataclass(frozen=True, slots=True)
class BudgetView:
    """An account's state, or that of one of its models, for operators.

    Attributes:
        day_credits: what this UTC day's attempts took; counted only where there is a limit.
        queued: photos that wait for it, with whichever model.
    """

    provider: str
    window_requests: int | None
    window_seconds: float
    used: int
    paused_seconds: float
    pause_reason: str | None
    silent_in_a_row: int
    day_credits: float | None
    day_credits_max: float | None
    queued: int


async def view_budgets(tx: Connection) -> list[BudgetView]:
    """Every account: its window, its pause, its day, what waits for it."""
    async with tx.cursor(row_factory=class_row(BudgetView)) as cursor:
        await cursor.execute(
            """
            SELECT b.provider, b.window_requests, b.window_seconds, b.pause_reason, b.silent_in_a_row,
                   (SELECT count(*) FROM task_attempts a
                    WHERE split_part(a.provider, ':', 1) = b.provider
                    AND a.created_at > (SELECT darkroom_now())
                                       - make_interval(secs => b.window_seconds)) AS used,
                   greatest(0, extract(epoch FROM CASE WHEN isfinite(b.paused_until)
                       THEN b.paused_until - darkroom_now() END))::FLOAT8 AS paused_seconds,
                   CASE WHEN b.day_credits_max IS NOT NULL THEN ("""
            + DAY_CREDITS
            + """)::FLOAT8 END AS day_credits, b.day_credits_max::FLOAT8,
                   (SELECT count(*) FROM kie_tasks t WHERE t.status = 'queued'
                    AND split_part(t.provider, ':', 1) = b.provider) AS queued
            FROM provider_budgets b ORDER BY b.provider
            """
        )
        return await cursor.fetchall()


async def providers_waited_for(tx: Connection) -> list[str]:
    """Every provider that a queued task names: one that is not configured is an alarm."""
    async with tx.cursor() as cursor:
        # From one provider's first to the next one's: a DISTINCT would read the whole queue.
        await cursor.execute(
            """
            WITH RECURSIVE named AS (
                (SELECT provider FROM kie_tasks WHERE status = 'queued' ORDER BY provider LIMIT 1)
                UNION ALL
                SELECT (SELECT t.provider FROM kie_tasks t
                        WHERE t.status = 'queued' AND t.provider > named.provider
                        ORDER BY t.provider LIMIT 1)
                FROM named WHERE named.provider IS NOT NULL
            )
            SELECT provider FROM named WHERE provider IS NOT NULL
            """
        )
        return [str(provider) for (provider,) in await cursor.fetchall()]
