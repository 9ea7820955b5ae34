"""A provider's own balance held against our ledger: every credit it took is an attempt's, or an alarm.

A reading is held against an anchor: an earlier reading at which nothing was under way, or one a day old. So a
leak adds up however long there is always something in flight.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.core.budget import LOCK_BUDGET
from darkroom.db.database import Connection

ANCHOR_SECONDS: Final = 86_400
"""After a day with something always in flight its last reading becomes the anchor; what was found stays."""

_OF_ACCOUNT: Final = (
    "split_part(a.provider, ':', 1) = %(account)s AND a.expected_credits IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a balance and what it says about the time since its anchor.

    Attributes:
        dropped_credits: how much less there is than at the anchor.
        explained_credits: what attempts took that ended since.
        unknown_credits: what attempts may have taken that ended since with an unknown cost.
        topped_up_credits: how much more there is than can be explained: somebody paid in.
        unexplained_credits: how much less there is than can be explained.
    """

    id: int
    account: str
    read_at: datetime
    credits_left: float
    in_flight_credits: float
    dropped_credits: float
    explained_credits: float
    unknown_credits: float
    topped_up_credits: float
    unexplained_credits: float


_COLUMNS: Final = """
    id, account, read_at, credits_left::FLOAT8, in_flight_credits::FLOAT8, dropped_credits::FLOAT8,
    explained_credits::FLOAT8, unknown_credits::FLOAT8, topped_up_credits::FLOAT8,
    unexplained_credits::FLOAT8
"""


async def begin_reading(tx: Connection, account: str, *, every_seconds: float) -> datetime | None:
    """The moment before a reading; None: the last one is younger than that. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT now FROM (SELECT darkroom_now() AS now) clock WHERE NOT EXISTS ("
            "SELECT FROM credit_readings WHERE account = %s "
            "AND read_at > clock.now - make_interval(secs => %s))",
            [account, every_seconds],
        )
        return await cursor.fetchone()


STORE_READING: Final = (
    """
    WITH anchor AS (
        SELECT id, read_at, credits_left, in_flight_credits FROM credit_readings
        WHERE account = %(account)s AND is_anchor ORDER BY read_at DESC, id DESC LIMIT 1
    ), flying AS (
        -- Under way at any moment from just before the question until now. Two lists: an OR reads all attempts.
        SELECT coalesce(sum(a.expected_credits), 0) AS credits FROM (
            SELECT a.expected_credits FROM task_attempts a
            WHERE """
    + _OF_ACCOUNT
    + """ AND a.called_at IS NOT NULL AND a.refusal_code IS NULL AND a.ended_at IS NULL
            UNION ALL
            SELECT a.expected_credits FROM task_attempts a
            WHERE """
    + _OF_ACCOUNT
    + """ AND a.called_at IS NOT NULL AND a.refusal_code IS NULL
              -- The far end makes it a span: of one without, the planner thinks that it holds a third of all.
              AND a.ended_at > %(read_at)s AND a.ended_at < 'infinity'
        ) a
    ), ended AS (
        SELECT coalesce(sum(a.credits), 0) AS known,
               coalesce(sum(a.expected_credits) FILTER (WHERE a.credits IS NULL
                   AND a.end_state <> 'failed'), 0) AS unknown
        FROM task_attempts a
        WHERE """
    + _OF_ACCOUNT
    + """ AND a.ended_at <= %(read_at)s
          -- One value, not a join: a span of the index has two ends, and joined it would read all attempts.
          AND a.ended_at > (SELECT read_at FROM anchor)
    ), known AS (
        -- What the newest reading of the same span found. Who pays in explains nothing of it.
        SELECT coalesce((SELECT r.unexplained_credits FROM credit_readings r
                         WHERE r.account = %(account)s AND r.since_id = (SELECT id FROM anchor)
                         ORDER BY r.read_at DESC LIMIT 1), 0) AS unexplained
    ), held AS (
        SELECT anchor.id AS since_id, flying.credits AS in_flight,
               coalesce(anchor.credits_left - %(left)s::NUMERIC, 0) AS dropped,
               coalesce(ended.known, 0) AS explained, coalesce(ended.unknown, 0) AS unknown,
               coalesce(anchor.in_flight_credits, 0) AS early,
               anchor.id IS NULL OR flying.credits = 0
               OR anchor.read_at <= %(read_at)s - make_interval(secs => %(day)s) AS settles
        FROM flying CROSS JOIN ended LEFT JOIN anchor ON TRUE
    ), judged AS (
        SELECT held.*,
               CASE WHEN since_id IS NULL THEN 0
                    ELSE greatest(0, explained - early - dropped) END AS topped_up,
               CASE WHEN since_id IS NULL THEN 0
                    ELSE greatest(0, dropped - explained - unknown - in_flight) END AS unexplained
        FROM held
    )
    INSERT INTO credit_readings
        (account, read_at, credits_left, in_flight_credits, since_id, dropped_credits,
         explained_credits, unknown_credits, topped_up_credits, unexplained_credits, is_anchor)
    SELECT %(account)s, %(read_at)s, %(left)s::NUMERIC, in_flight, since_id, dropped, explained, unknown,
           topped_up, CASE WHEN topped_up > 0 THEN known.unexplained ELSE judged.unexplained END,
           settles OR topped_up > 0
    FROM judged CROSS JOIN known
    -- The newest, one step down its index: "is there one that is newer" would be looked for among the old ones.
    WHERE coalesce((SELECT max(r.read_at) FROM credit_readings r WHERE r.account = %(account)s)
        <= %(read_at)s - make_interval(secs => %(every)s), TRUE)
    RETURNING """
    + _COLUMNS
)


async def store_reading(
    tx: Connection, account: str, *, read_at: datetime, credits_left: float, every_seconds: float
) -> Reading | None:
    """Keep a balance read just after `read_at` and hold it against its anchor. None: another process was first.

    Calls that were under way at either end may have been billed before or after it, so what they are expected
    to cost is allowed for both ways. Of two processes' readings at once, behind the account's lock, one counts.
    """
    # The row may be missing where no limit was ever written.
    await tx.execute(
        "INSERT INTO provider_budgets (provider) VALUES (%s) ON CONFLICT DO NOTHING", [account]
    )
    await tx.execute(LOCK_BUDGET, [account])
    async with tx.cursor(row_factory=class_row(Reading)) as cursor:
        await cursor.execute(
            STORE_READING,
            {
                "account": account,
                "read_at": read_at,
                "left": credits_left,
                "every": every_seconds,
                "day": ANCHOR_SECONDS,
            },
        )
        return await cursor.fetchone()


async def unexplained_credits(tx: Connection, account: str, *, days: int = 1) -> float:
    """What of the last days nobody can explain: the settled spans, and the one that is still open."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT coalesce(sum(unexplained_credits), 0)::FLOAT8 FROM credit_readings r
            WHERE account = %(account)s
              AND read_at > (SELECT darkroom_now()) - make_interval(days => %(days)s)
              AND (is_anchor OR NOT EXISTS (
                  SELECT FROM credit_readings later WHERE later.account = r.account AND later.id > r.id))
            """,
            {"account": account, "days": days},
        )
        return float(await cursor.fetchone() or 0)


async def last_readings(tx: Connection) -> list[Reading]:
    """The newest reading of each account. Read only."""
    async with tx.cursor(row_factory=class_row(Reading)) as cursor:
        await cursor.execute(
            # Each account has its budget's row: one step down an index for each, and no list of all readings.
            "SELECT r.* FROM provider_budgets b CROSS JOIN LATERAL (SELECT "
            + _COLUMNS
            + " FROM credit_readings WHERE account = b.provider ORDER BY read_at DESC LIMIT 1) r "
            "ORDER BY r.account"
        )
        return await cursor.fetchall()


async def forget_readings(tx: Connection, *, older_than_days: int, limit: int) -> int:
    """Drop old readings, at most `limit` a round; the newest of each account and its last anchor stay."""
    swept = await tx.execute(
        # The oldest have the lowest numbers: no index by time is needed to find them.
        "DELETE FROM credit_readings WHERE id IN (SELECT r.id FROM ("
        "SELECT id, account, read_at FROM credit_readings ORDER BY id LIMIT %(limit)s) r "
        "WHERE r.read_at < (SELECT darkroom_now()) - make_interval(days => %(days)s) "
        "AND EXISTS (SELECT FROM credit_readings later "
        "WHERE later.account = r.account AND later.id > r.id AND later.is_anchor))",
        {"days": older_than_days, "limit": limit},
    )
    return swept.rowcount
