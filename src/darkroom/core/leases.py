"""Keeping what a live worker holds: all its leases, in one statement."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, LiteralString

from darkroom.db.database import Connection

LeaseKind = Literal["task", "job", "payment", "message", "refund", "mail"]
Lease = tuple[LeaseKind, int, int]
"""(kind, row id, claim)."""

UNWAITED: Final[LiteralString] = "(SELECT set_config('synchronous_commit', 'off', TRUE)) = 'off'"
"""A condition that is always true, and lets the transaction's commit not wait for the disk (ADR 33).

For what may be lost with the server's last half second: a lease, whose row is due again then, and what can be
asked again. The next commit that waits makes it durable with itself, so nothing that counts stands on it.
Never for money, for what a message from outside told, or for an answer that only this process knows."""


def _renew_table(kind: LiteralString, table: LiteralString) -> LiteralString:
    # SKIP LOCKED: a row in somebody's last statement is not waited for, so that one row can neither hold
    # up all leases of a process nor take part in a deadlock.
    return (
        "free_" + kind + " AS (SELECT r.id FROM held h JOIN " + table + " r "
        "ON r.id = h.row_id AND r.claim = h.claim WHERE h.kind = '" + kind + "' "
        "AND r.lease_until IS NOT NULL ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED), "
        "done_" + kind + " AS (UPDATE " + table + " r "
        "SET lease_until = darkroom_now() + make_interval(secs => %(lease)s) "
        "FROM free_" + kind + " f WHERE r.id = f.id RETURNING r.id)"
    )  # fmt: skip


def _found_in(kind: LiteralString, table: LiteralString) -> LiteralString:
    return (
        "SELECT h.kind, h.row_id, h.claim, d.id IS NOT NULL FROM held h JOIN " + table + " r "
        "ON r.id = h.row_id AND r.claim = h.claim LEFT JOIN done_" + kind + " d ON d.id = r.id "
        "WHERE h.kind = '" + kind + "'"
    )


_TABLES: Final[tuple[tuple[LiteralString, LiteralString], ...]] = (
    ("task", "kie_tasks"),
    ("job", "generation_jobs"),
    ("payment", "payments"),
    ("message", "inbox"),
    ("refund", "refunds"),
    ("mail", "mail_outbox"),
)
RENEW: Final[LiteralString] = (
    "WITH held AS (SELECT * FROM unnest(%(kinds)s::TEXT[], %(ids)s::BIGINT[], %(claims)s::BIGINT[]) "
    "AS h (kind, row_id, claim)), "
    + ", ".join(_renew_table(kind, table) for kind, table in _TABLES)
    + " "
    + " UNION ALL ".join(_found_in(kind, table) for kind, table in _TABLES)
)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal found.

    Attributes:
        ours: leases whose fence still stands; work on the others must stop.
        prolonged: those that now hold for another lease. One that is ours and not prolonged was given back
            by ourselves a moment ago, or stands in somebody's transaction right now.
    """

    ours: frozenset[Lease]
    prolonged: frozenset[Lease]


async def renew_leases(
    tx: Connection, leases: Collection[Lease], *, lease_seconds: float
) -> Renewal:
    """Prolong every lease that is still ours, without ever waiting for a row."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            RENEW,
            {
                "lease": lease_seconds,
                "kinds": [kind for kind, _, _ in leases],
                "ids": [row_id for _, row_id, _ in leases],
                "claims": [claim for _, _, claim in leases],
            },
        )
        rows = await cursor.fetchall()
    ours: set[Lease] = {(kind, row_id, claim) for kind, row_id, claim, _ in rows}
    return Renewal(
        frozenset(ours),
        frozenset((kind, row_id, claim) for kind, row_id, claim, prolonged in rows if prolonged),
    )
