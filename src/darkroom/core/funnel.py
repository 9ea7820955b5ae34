"""How far people come: the first time each of them opened, uploaded, chose, paid and got.

Each step is one `INSERT ... ON CONFLICT DO NOTHING` inside the transaction that makes it true: both are
committed or neither is, so no crash loses a step and no repetition counts twice. Two transactions of one
person meet at the primary key; the second waits for the first to end and writes nothing. Nobody is waited for
in a circle: orders, uploads and payments hold the user's lock already, and of settled sets a step comes after
the locks of jobs and tasks, of many sets in the people's order. The foreign key takes KEY SHARE on the user's
row, which the locks of the rest (NO KEY UPDATE) allow.

A person is a row of `users`. Who left and comes back is another one.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

STEPS: Final = ("opened", "uploaded", "chose", "paid", "got")
DAYS_MAX: Final = 366
NOTE_PAID: Final = (
    "INSERT INTO funnel_steps (user_id, step) SELECT user_id, 'paid' FROM moved "
    "WHERE provider <> 'grant' ON CONFLICT DO NOTHING"
)
"""The money of the `moved` payments came: a part of the statement that says so. Free sets never pass there, and
would not count."""

NOTE_GOT_WHOLE: Final = (
    "INSERT INTO funnel_steps (user_id, step) SELECT DISTINCT user_id, 'got' FROM whole "
    "ORDER BY user_id ON CONFLICT DO NOTHING"
)
"""The `whole` jobs ended with all their photos: a part of the statement that ends them. In the people's order,
so that two of those statements wait for each other one way round only."""


async def _note(tx: Connection, user_id: int, step: str) -> None:
    await tx.execute(
        "INSERT INTO funnel_steps (user_id, step) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [user_id, step],
    )


async def note_opened(tx: Connection, user_id: int) -> None:
    """The person signed in. `core.people.ensure_user` writes it with the row of somebody new."""
    await _note(tx, user_id, "opened")


async def note_uploaded(tx: Connection, avatar_id: int) -> None:
    """A selfie of this avatar's owner is kept."""
    await tx.execute(
        "INSERT INTO funnel_steps (user_id, step) SELECT user_id, 'uploaded' FROM avatars WHERE id = %s "
        "ON CONFLICT DO NOTHING",
        [avatar_id],
    )


async def note_chose(tx: Connection, user_id: int) -> None:
    """The person placed an order that costs something."""
    await _note(tx, user_id, "chose")


async def note_got(tx: Connection, job_id: int) -> None:
    """This set ended with a photo or more."""
    await tx.execute(
        "INSERT INTO funnel_steps (user_id, step) SELECT user_id, 'got' FROM generation_jobs "
        "WHERE id = %s AND status IN ('completed', 'partial') ON CONFLICT DO NOTHING",
        [job_id],
    )


@dataclass(frozen=True, slots=True)
class FunnelDay:
    """How many people did each step for the first time on one UTC day, whenever they came."""

    day: date
    opened: int
    uploaded: int
    chose: int
    paid: int
    got: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """Of the people who opened within the window: how many did each step since."""

    opened: int
    uploaded: int
    chose: int
    paid: int
    got: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """The last `days` UTC days, the oldest first; days on which nobody did anything are zeros."""

    days: tuple[FunnelDay, ...]
    cohort: Cohort


_SINCE: Final = """
    SELECT (date_trunc('day', darkroom_now() AT TIME ZONE 'UTC') - make_interval(days => %s - 1))
           AT TIME ZONE 'UTC'
"""
_DAYS: Final = """
    WITH counted AS (
        SELECT (f.at AT TIME ZONE 'UTC')::DATE AS day, f.step, count(*) AS people
        FROM funnel_steps f
        WHERE f.step = ANY(%(steps)s) AND f.at >= %(since)s
        GROUP BY 1, 2
    )
    SELECT d.day,
           coalesce(sum(c.people) FILTER (WHERE c.step = 'opened'), 0)::BIGINT AS opened,
           coalesce(sum(c.people) FILTER (WHERE c.step = 'uploaded'), 0)::BIGINT AS uploaded,
           coalesce(sum(c.people) FILTER (WHERE c.step = 'chose'), 0)::BIGINT AS chose,
           coalesce(sum(c.people) FILTER (WHERE c.step = 'paid'), 0)::BIGINT AS paid,
           coalesce(sum(c.people) FILTER (WHERE c.step = 'got'), 0)::BIGINT AS got
    FROM (SELECT (%(since)s AT TIME ZONE 'UTC')::DATE + n AS day
          FROM generate_series(0, %(days)s - 1) AS n) d
    LEFT JOIN counted c ON c.day = d.day
    GROUP BY d.day ORDER BY d.day
"""
_COHORT: Final = """
    SELECT count(*) FILTER (WHERE f.step = 'opened') AS opened,
           count(*) FILTER (WHERE f.step = 'uploaded') AS uploaded,
           count(*) FILTER (WHERE f.step = 'chose') AS chose,
           count(*) FILTER (WHERE f.step = 'paid') AS paid,
           count(*) FILTER (WHERE f.step = 'got') AS got
    FROM funnel_steps o JOIN funnel_steps f ON f.user_id = o.user_id
    WHERE o.step = 'opened' AND o.at >= %(since)s
      -- Nobody does anything before they open: the same days hold it, and the index finds them.
      AND f.step = ANY(%(steps)s) AND f.at >= %(since)s
"""


async def read_funnel(tx: Connection, *, days: int) -> Funnel:
    """The last `days` UTC days, today's included, 1 to 366. Read only; reads those days and no others.

    Raises:
        ValueError: more days, or none.
    """
    if not 1 <= days <= DAYS_MAX:
        raise ValueError(f"days: 1 to {DAYS_MAX}")
    async with tx.cursor(row_factory=scalar_row) as cursor:
        # Once: both questions are about the same days, also at midnight.
        await cursor.execute(_SINCE, [days])
        since = await cursor.fetchone()
    values = {"days": days, "since": since, "steps": list(STEPS)}
    async with tx.cursor(row_factory=class_row(FunnelDay)) as cursor:
        await cursor.execute(_DAYS, values)
        by_day = tuple(await cursor.fetchall())
    async with tx.cursor(row_factory=class_row(Cohort)) as cursor:
        await cursor.execute(_COHORT, values)
        cohort = await cursor.fetchone()
    return Funnel(by_day, cohort or Cohort(0, 0, 0, 0, 0))
