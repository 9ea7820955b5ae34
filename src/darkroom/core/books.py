"""Where every kopek of a payment is: paid = earned + refunded + owed, each term on its own."""

from typing import Final, LiteralString

BOOKS: Final[LiteralString] = """
    SELECT
        p.id AS payment_id, p.status, p.currency,
        CASE WHEN p.succeeded_at IS NULL THEN 0 ELSE p.amount_minor END AS paid_minor,
        -- Delivered photos keep their share, less what was given back for them all the same.
        coalesce(task.earned_minor, 0) AS earned_minor,
        coalesce(refund.refunded_minor, 0) AS refunded_minor,
        -- Open photos, refunds on their way, and money that has bought nothing yet.
        coalesce(task.open_minor, 0) + coalesce(refund.in_flight_minor, 0)
        + CASE WHEN p.status IN ('succeeded', 'refunding') AND NOT p.generation_consumed
               THEN p.amount_minor - coalesce(line.unused_minor, 0) ELSE 0 END AS owed_minor
    FROM payments p
    LEFT JOIN LATERAL (
        -- A failed photo that is made again for free is owed until the free set is whole, and then earned.
        SELECT again.id, j.status FROM payments again
        LEFT JOIN generation_jobs j ON j.payment_id = again.id
        WHERE again.compensates = p.id
    ) again ON TRUE
    LEFT JOIN LATERAL (
        SELECT
            sum(t.share_minor - t.returned_minor) FILTER (
                WHERE t.status = 'completed' OR (t.status = 'failed' AND again.status = 'completed')
            )::BIGINT AS earned_minor,
            sum(t.share_minor - t.returned_minor) FILTER (
                WHERE t.status IN ('queued', 'submitting', 'unknown', 'pending', 'storing')
                   OR (t.status = 'failed' AND j.status IN ('pending', 'processing'))
                   OR (t.status = 'failed' AND again.id IS NOT NULL
                       AND coalesce(again.status, 'pending') IN ('pending', 'processing'))
            )::BIGINT AS open_minor
        FROM generation_jobs j
        JOIN kie_tasks t ON t.job_id = j.id
        WHERE j.payment_id = p.id
    ) task ON TRUE
    LEFT JOIN LATERAL (
        SELECT sum(r.settled_minor)::BIGINT AS refunded_minor,
               sum(r.amount_minor - r.settled_minor)::BIGINT AS in_flight_minor
        FROM refunds r WHERE r.payment_id = p.id
    ) refund ON TRUE
    LEFT JOIN LATERAL (
        SELECT sum(l.amount_minor)::BIGINT AS unused_minor
        FROM refund_lines l WHERE l.payment_id = p.id AND l.kind = 'unused'
    ) line ON TRUE
"""
"""One row a payment."""
