"""Where every kopek of a payment is: paid = earned + refunded + owed, each term on its own."""

from typing import Final, LiteralString

BOOKS: Final[LiteralString] = """
    SELECT
        p.id AS payment_id, p.status, p.currency,
        CASE WHEN p.succeeded_at IS NULL THEN 0 ELSE p.amount_minor END AS paid_minor,
        -- Delivered photos keep their share, less what was given back for them all the same.
        coalesce(task.earned_minor, 0) AS earned_minor,
        coalesce(line.refunded_minor, 0) AS refunded_minor,
        -- Open photos, lines of refunds on their way, and money that has bought nothing yet.
        coalesce(task.open_minor, 0) + coalesce(line.in_flight_minor, 0)
        + CASE WHEN p.succeeded_at IS NOT NULL AND NOT p.generation_consumed
               THEN p.amount_minor - coalesce(line.unused_minor, 0) ELSE 0 END AS owed_minor
    FROM payments p
    LEFT JOIN LATERAL (
        SELECT
            sum(t.share_minor - coalesce(l.amount_minor, 0))
                FILTER (WHERE t.status = 'completed')::BIGINT AS earned_minor,
            sum(t.share_minor) FILTER (
                WHERE t.status IN ('queued', 'submitting', 'unknown', 'pending', 'storing')
                   OR (t.status = 'failed' AND l.id IS NULL AND j.status IN ('pending', 'processing'))
            )::BIGINT AS open_minor
        FROM generation_jobs j
        JOIN kie_tasks t ON t.job_id = j.id
        LEFT JOIN refund_lines l ON l.task_id = t.id
        WHERE j.payment_id = p.id
    ) task ON TRUE
    LEFT JOIN LATERAL (
        SELECT
            sum(l.amount_minor) FILTER (WHERE r.status = 'succeeded')::BIGINT AS refunded_minor,
            sum(l.amount_minor) FILTER (WHERE r.status <> 'succeeded')::BIGINT AS in_flight_minor,
            sum(l.amount_minor) FILTER (WHERE l.kind = 'unused')::BIGINT AS unused_minor
        FROM refund_lines l JOIN refunds r ON r.id = l.refund_id
        WHERE l.payment_id = p.id
    ) line ON TRUE
"""
"""One row a payment."""
