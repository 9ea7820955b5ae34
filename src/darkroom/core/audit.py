"""The promises as questions. Each question returns the rows that break it; none means it holds.

The same list runs as `darkroom audit`, every ten minutes in the worker (a large shop's: a twentieth of its
time), and at the end of every test scenario. All of it in one read-only snapshot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, NamedTuple

from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from darkroom.core.books import BOOKS
from darkroom.core.lifecycle import STATUSES, TABLES, Kind
from darkroom.db.database import Database

AUDIT_SECONDS: Final = 3600
"""All rows are read, which takes some 3 s for 100,000 photos: enough for a hundred million."""
STATEMENT_LIMIT: Final = "SELECT set_config('statement_timeout', '3600s', TRUE)"
"""The whole's own limit; a question is stopped with it."""
ROWS_SHOWN_MAX: Final = 50
"""Rows kept of one finding: enough to see the pattern, small enough for a terminal and a log line."""


class Question(NamedTuple):
    """One thing that must never be. `query` returns the offending rows."""

    name: str
    promise: str
    query: LiteralString | Composed


_SINCE: Final[dict[Kind, str]] = {
    "payment": "updated_at",
    # As long as its policy gives it, and a replay gives it that once more.
    "job": "deadline_at",
    "task": "status_since",
    # Since it is owed: sent, asked about and sent again it is still not back.
    "refund": "open_since",
    "delivery": "updated_at",
}
"""The column that tells since when a row has stood in its status."""

_MAY_WAIT: Final = frozenset({("task", "queued"), ("task", "storing")})
"""Where a photo waits for as long as its set has time: for its turn, or for a store that is down."""
_WAITS_FOR_ITS_SET: Final[LiteralString] = (
    " AND EXISTS (SELECT FROM generation_jobs j WHERE j.id = r.job_id AND j.deadline_at < darkroom_now())"
)

QUESTIONS: Final = (
    Question(
        "one_job_per_payment",
        "One payment, one generation.",
        "SELECT payment_id, count(*) AS jobs FROM generation_jobs GROUP BY payment_id HAVING count(*) > 1",
    ),
    Question(
        "consumed_payment_without_job",
        "A consumed payment always has its job.",
        "SELECT p.id AS payment_id FROM payments p WHERE p.generation_consumed "
        "AND NOT EXISTS (SELECT FROM generation_jobs j WHERE j.payment_id = p.id)",
    ),
    Question(
        "job_without_consumed_payment",
        "A job has its consumed, paid payment of the same user.",
        "SELECT j.id AS job_id, p.id AS payment_id, p.status FROM generation_jobs j "
        "JOIN payments p ON p.id = j.payment_id "
        "WHERE NOT p.generation_consumed OR p.succeeded_at IS NULL OR p.user_id <> j.user_id "
        "OR p.consumed_avatar_id IS DISTINCT FROM j.avatar_id",
    ),
    Question(
        "redo_is_explained",
        "A photo made again is one photo of a paid set of the same customer, avatar and style, "
        "and no set has more of them than its policy allows.",
        "SELECT r.id AS payment_id, r.redoes_photo_id, o.id AS original_payment_id FROM payments r "
        "JOIN generated_photos g ON g.id = r.redoes_photo_id "
        "JOIN generation_jobs j ON j.id = g.job_id JOIN payments o ON o.id = j.payment_id "
        "JOIN refund_policies policy ON policy.id = o.policy_id "
        "LEFT JOIN generation_jobs again ON again.payment_id = r.id "
        "LEFT JOIN kie_tasks t ON t.job_id = again.id LEFT JOIN kie_tasks first ON first.id = g.task_id "
        "WHERE r.provider <> 'grant' OR r.photo_count <> 1 OR o.provider = 'grant' OR o.user_id <> r.user_id "
        "OR again.avatar_id IS DISTINCT FROM g.avatar_id OR again.style_id IS DISTINCT FROM g.style_id "
        "OR t.prompt IS DISTINCT FROM first.prompt OR t.seed = first.seed "
        "OR policy.redo_photos < (SELECT count(*) FROM payments one "
        "JOIN generated_photos p ON p.id = one.redoes_photo_id WHERE p.job_id = j.id)",
    ),
    Question(
        "foreign_avatar",
        "Nobody else's: a job's avatar belongs to the payer.",
        "SELECT j.id AS job_id, j.user_id, a.user_id AS avatar_user_id FROM generation_jobs j "
        "JOIN avatars a ON a.id = j.avatar_id WHERE a.user_id <> j.user_id",
    ),
    Question(
        "tasks_are_what_was_paid",
        "As many tasks as photos were paid for, numbered from 0 without a gap.",
        "SELECT j.id AS job_id, j.total_photos, p.photo_count, count(t.id) AS tasks "
        "FROM generation_jobs j JOIN payments p ON p.id = j.payment_id "
        "LEFT JOIN kie_tasks t ON t.job_id = j.id "
        "GROUP BY j.id, p.id "
        "HAVING count(t.id) <> p.photo_count OR j.total_photos <> p.photo_count "
        "OR max(t.prompt_index) <> p.photo_count - 1",
    ),
    Question(
        "shares_sum_to_price",
        "The photos' shares sum to the price.",
        "SELECT j.id AS job_id, p.amount_minor, sum(t.share_minor) AS shares_minor "
        "FROM generation_jobs j JOIN payments p ON p.id = j.payment_id "
        "JOIN kie_tasks t ON t.job_id = j.id "
        "GROUP BY j.id, p.id HAVING sum(t.share_minor) <> p.amount_minor",
    ),
    Question(
        "completed_task_without_photo",
        "Nothing is final until it is safe: a completed task has its photo.",
        "SELECT t.id AS task_id, t.job_id FROM kie_tasks t WHERE t.status = 'completed' "
        "AND NOT EXISTS (SELECT FROM generated_photos p WHERE p.task_id = t.id)",
    ),
    Question(
        "photo_without_completed_task",
        "A photo belongs to a completed task of the same job and avatar.",
        "SELECT p.id AS photo_id, p.task_id, t.status FROM generated_photos p "
        "LEFT JOIN kie_tasks t ON t.id = p.task_id "
        "WHERE t.status IS DISTINCT FROM 'completed' OR t.job_id <> p.job_id "
        "OR t.avatar_id <> p.avatar_id",
    ),
    Question(
        "progress_is_honest",
        "A job counts its own completed tasks.",
        "SELECT j.id AS job_id, j.completed_photos, count(t.id) AS completed_tasks "
        "FROM generation_jobs j LEFT JOIN kie_tasks t ON t.job_id = j.id AND t.status = 'completed' "
        "GROUP BY j.id HAVING j.completed_photos <> count(t.id)",
    ),
    Question(
        "delivered_and_paid_back",
        "Delivered or refunded for shortfall, never both.",
        "SELECT l.id AS line_id, l.task_id FROM refund_lines l JOIN kie_tasks t ON t.id = l.task_id "
        "WHERE l.kind = 'shortfall' AND (t.status <> 'failed' "
        "OR EXISTS (SELECT FROM generated_photos p WHERE p.task_id = t.id))",
    ),
    Question(
        "failed_without_money_back",
        "Every photo, or its money: a failed photo of a settled job goes back, or is made again.",
        "SELECT t.id AS task_id, t.job_id, t.share_minor, t.returned_minor FROM kie_tasks t "
        "JOIN generation_jobs j ON j.id = t.job_id "
        "WHERE t.status = 'failed' AND t.share_minor > t.returned_minor "
        "AND j.status NOT IN ('pending', 'processing') AND NOT EXISTS ("
        "SELECT FROM payments again LEFT JOIN generation_jobs g ON g.payment_id = again.id "
        "WHERE again.compensates = j.payment_id "
        "AND coalesce(g.status, 'pending') IN ('pending', 'processing', 'completed'))",
    ),
    Question(
        "job_ended_too_early_or_wrongly",
        "A job ends when no task is open, as its tasks say.",
        "SELECT j.id AS job_id, j.status, count(*) FILTER (WHERE t.status = 'completed') AS completed, "
        "count(*) FILTER (WHERE t.status = 'failed') AS failed, count(*) AS tasks "
        "FROM generation_jobs j JOIN kie_tasks t ON t.job_id = j.id "
        "WHERE j.status IN ('completed', 'partial', 'failed') GROUP BY j.id "
        "HAVING count(*) FILTER (WHERE t.status NOT IN ('completed', 'failed')) > 0 "
        "OR j.status <> CASE WHEN bool_and(t.status = 'completed') THEN 'completed' "
        "WHEN bool_or(t.status = 'completed') THEN 'partial' ELSE 'failed' END",
    ),
    Question(
        "money_adds_up",
        "No kopek unexplained: paid = earned + refunded + owed.",
        "SELECT * FROM (" + BOOKS + ") book "
        "WHERE book.paid_minor <> book.earned_minor + book.refunded_minor + book.owed_minor",
    ),
    Question(
        "more_back_than_paid",
        "Never more back than was paid, and the reserve is the sum of the lines.",
        "SELECT p.id AS payment_id, p.amount_minor, p.refund_reserved_minor, "
        "coalesce(sum(l.amount_minor), 0) AS lines_minor FROM payments p "
        "LEFT JOIN refund_lines l ON l.payment_id = p.id GROUP BY p.id "
        "HAVING coalesce(sum(l.amount_minor), 0) <> p.refund_reserved_minor "
        "OR p.refund_reserved_minor > p.amount_minor "
        "OR (p.succeeded_at IS NULL AND p.refund_reserved_minor > 0)",
    ),
    Question(
        "refund_is_its_lines",
        "A refund is the sum of its lines, in the payment's currency.",
        "SELECT r.id AS refund_id, r.amount_minor, coalesce(sum(l.amount_minor), 0) AS lines_minor "
        "FROM refunds r JOIN payments p ON p.id = r.payment_id "
        "LEFT JOIN refund_lines l ON l.refund_id = r.id GROUP BY r.id, p.id "
        "HAVING r.amount_minor <> coalesce(sum(l.amount_minor), 0) OR r.currency <> p.currency",
    ),
    Question(
        "line_above_share",
        "A photo's lines are never more than its share, and it knows their sum.",
        "SELECT t.id AS task_id, t.share_minor, t.returned_minor, "
        "coalesce(sum(l.amount_minor), 0) AS lines_minor "
        "FROM kie_tasks t LEFT JOIN refund_lines l ON l.task_id = t.id GROUP BY t.id "
        "HAVING coalesce(sum(l.amount_minor), 0) <> t.returned_minor OR t.returned_minor > t.share_minor",
    ),
    Question(
        "refund_is_settled_by_its_sources",
        "A refund went back as far as the provider's own refunds, or a person's note, say.",
        "SELECT r.id AS refund_id, r.status, r.amount_minor, r.settled_minor, "
        "coalesce(sum(s.amount_minor), 0) AS sources_minor "
        "FROM refunds r LEFT JOIN refund_settlements s ON s.refund_id = r.id GROUP BY r.id "
        "HAVING coalesce(sum(s.amount_minor), 0) <> r.settled_minor "
        "OR (r.status = 'succeeded') <> (r.settled_minor = r.amount_minor)",
    ),
    Question(
        "provider_refund_is_explained",
        "No kopek unexplained: each refund that the provider made settled one of ours of the same payment.",
        "SELECT b.id AS provider_refund_row_id, b.payment_id, b.provider_refund_id, b.amount_minor, "
        "coalesce(sum(s.amount_minor), 0) AS settled_minor "
        "FROM provider_refunds b LEFT JOIN refund_settlements s ON s.provider_refund_row_id = b.id "
        "LEFT JOIN refunds r ON r.id = s.refund_id GROUP BY b.id "
        # More than was paid is a loss, not a refund: explained when a person has said so.
        "HAVING coalesce(sum(s.amount_minor), 0) + coalesce((SELECT max(d.theirs_minor - d.ours_minor) "
        "FROM differences d WHERE d.kind = 'more_back_than_paid' AND d.payment_id = b.payment_id "
        "AND d.subject = b.provider_refund_id AND d.closed_at IS NOT NULL), 0) <> b.amount_minor "
        "OR bool_or(r.payment_id <> b.payment_id)",
    ),
    Question(
        "payment_says_what_went_back",
        "A payment's status follows from what went back of it.",
        "SELECT p.id AS payment_id, p.status, p.amount_minor, b.settled_minor FROM payments p "
        "CROSS JOIN LATERAL (SELECT count(*) AS refunds, coalesce(sum(r.settled_minor), 0) AS settled_minor "
        "FROM refunds r WHERE r.payment_id = p.id) b WHERE p.amount_minor > 0 AND ("
        "(p.status = 'refunded') <> (b.settled_minor = p.amount_minor) "
        "OR (p.status = 'partially_refunded') <> (b.settled_minor BETWEEN 1 AND p.amount_minor - 1 "
        "AND p.generation_consumed) "
        "OR (p.status = 'refunding' AND (p.generation_consumed OR b.refunds = 0)))",
    ),
    Question(
        "unused_money_goes_back",
        "Money that buys nothing goes back by itself, within three days of what its policy says.",
        "SELECT p.id AS payment_id, p.compensates, p.succeeded_at FROM payments p "
        "JOIN refund_policies policy ON policy.id = p.policy_id "
        "WHERE p.status = 'succeeded' AND NOT p.generation_consumed "
        "AND (p.amount_minor > 0 OR p.compensates IS NOT NULL) "
        "AND p.succeeded_at < darkroom_now() - make_interval(days => policy.unused_refund_days + 3) "
        # Reminded of late, and so on its way: a day later it goes.
        "AND NOT EXISTS (SELECT FROM customer_messages m WHERE m.kind = 'unused_reminder' "
        "AND m.subject_id = p.id AND m.created_at > darkroom_now() - INTERVAL '2 days')",
    ),
    Question(
        "whole_price_goes_back",
        "Of a set with fewer photos than its policy promises, the whole price goes back.",
        "SELECT j.id AS job_id, j.payment_id, count(*) FILTER (WHERE t.status = 'completed') AS delivered, "
        "count(*) AS total, sum(t.share_minor - t.returned_minor) AS kept_minor FROM generation_jobs j "
        "JOIN payments p ON p.id = j.payment_id JOIN refund_policies policy ON policy.id = p.policy_id "
        "JOIN kie_tasks t ON t.job_id = j.id WHERE j.status IN ('partial', 'failed') GROUP BY j.id, policy.id "
        "HAVING sum(t.share_minor - t.returned_minor) > 0 AND count(*) FILTER (WHERE t.status = 'completed') "
        "* 100 < policy.whole_price_below_percent * count(*)",
    ),
    Question(
        "told_what_did_not_happen",
        "A customer is told that money is back when it is, and always then.",
        "SELECT r.id AS refund_id, r.status, m.kind FROM refunds r "
        "FULL JOIN customer_messages m ON m.kind = 'money_back' AND m.subject_id = r.id "
        "WHERE (r.status = 'succeeded' OR m.kind = 'money_back') "
        "AND (r.status IS DISTINCT FROM 'succeeded' OR m.id IS NULL)",
    ),
    Question(
        "spend_is_explained",
        "Every task a provider has is bound to its attempt, and a photo to the attempt that made it.",
        "SELECT t.id AS task_id, t.status, t.kie_task_id, a.provider_task_id FROM kie_tasks t "
        "LEFT JOIN task_attempts a ON a.id = t.attempt_id "
        "WHERE t.status IN ('pending', 'storing', 'completed') "
        "AND (t.kie_task_id IS NULL OR a.provider_task_id IS DISTINCT FROM t.kie_task_id "
        "OR a.task_id <> t.id)",
    ),
    Question(
        "provider_link_as_result",
        "A provider's address is never stored as the result.",
        "SELECT id AS photo_id, image_url, object_key FROM generated_photos "
        "WHERE image_url LIKE '%//%' OR object_key LIKE '%//%' OR object_key NOT LIKE 'generated/%'",
    ),
    Question(
        "key_names_its_content",
        "A photo's key carries its avatar, style, job, place and hash.",
        "SELECT p.id AS photo_id, p.object_key FROM generated_photos p "
        "JOIN kie_tasks t ON t.id = p.task_id "
        "WHERE p.object_key NOT LIKE 'generated/' || p.avatar_id || '/' || p.style_id || '/' "
        "|| p.job_id || '/' || t.prompt_index || '-' || left(p.sha256, 16) || '.%'",
    ),
    Question(
        "dead_letter_missing",
        "A failed task has its open dead letter, and only a failed one has.",
        "SELECT t.id AS task_id, t.status FROM kie_tasks t WHERE (t.status = 'failed') <> EXISTS ("
        "SELECT FROM generation_dead_letter_queue d WHERE d.task_id = t.id AND d.replayed_at IS NULL)",
    ),
    Question(
        "forgotten_and_still_there",
        "Of a forgotten customer no picture, no id and no name is left.",
        "SELECT u.id AS user_id FROM users u WHERE u.forgotten_at IS NOT NULL AND ("
        "num_nonnulls(u.telegram_user_id, u.forgotten_telegram_user_id, u.email) > 0 "
        "OR EXISTS (SELECT FROM sign_in_links l WHERE l.user_id = u.id) "
        "OR EXISTS (SELECT FROM payments p WHERE p.user_id = u.id AND p.receipt_email IS NOT NULL) "
        "OR EXISTS (SELECT FROM avatars a WHERE a.user_id = u.id "
        "AND (a.deleted_at IS NULL OR a.name <> '-')) "
        "OR EXISTS (SELECT FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id "
        "WHERE a.user_id = u.id AND r.erased_at IS NULL) "
        "OR EXISTS (SELECT FROM generated_photos g JOIN avatars a ON a.id = g.avatar_id "
        "WHERE a.user_id = u.id AND g.erased_at IS NULL) "
        "OR EXISTS (SELECT FROM photo_shares s WHERE s.user_id = u.id) "
        "OR EXISTS (SELECT FROM late_photos l JOIN kie_tasks t ON t.id = l.task_id "
        "JOIN avatars a ON a.id = t.avatar_id WHERE a.user_id = u.id AND l.erased_at IS NULL))",
    ),
    Question(
        "deleted_and_still_there",
        "Of a deleted avatar that was gone through, every picture goes.",
        "SELECT a.id AS avatar_id FROM avatars a WHERE a.emptied_at IS NOT NULL AND (a.name <> '-' "
        "OR EXISTS (SELECT FROM reference_photos r WHERE r.avatar_id = a.id AND r.erasing_at IS NULL) "
        "OR EXISTS (SELECT FROM generated_photos p WHERE p.avatar_id = a.id AND p.erasing_at IS NULL) "
        "OR EXISTS (SELECT FROM late_photos l JOIN kie_tasks t ON t.id = l.task_id "
        "WHERE t.avatar_id = a.id AND l.erasing_at IS NULL))",
    ),
    Question(
        "history_is_whole",
        "The move log of each row ends where the row stands, and is missing only where it was "
        "forgotten by age.",
        "SELECT s.kind, s.id, s.status FROM ("
        "SELECT 'payment' AS kind, id, status, created_at AS since FROM payments UNION ALL "
        "SELECT 'job', id, status, created_at FROM generation_jobs UNION ALL "
        "SELECT 'task', id, status, status_since FROM kie_tasks UNION ALL "
        "SELECT 'refund', id, status, created_at FROM refunds UNION ALL "
        "SELECT 'delivery', id, status, created_at FROM telegram_message_queue) s "
        "LEFT JOIN LATERAL (SELECT m.to_status FROM move_log m WHERE m.kind = s.kind AND m.row_id = s.id "
        "ORDER BY m.id DESC LIMIT 1) last ON TRUE "
        "WHERE s.status IS DISTINCT FROM last.to_status AND (last.to_status IS NOT NULL OR s.since >= "
        "(SELECT forgotten_before FROM history_marks WHERE name = 'moves'))",
    ),
    Question(
        "message_stuck",
        "Never stuck: a message from outside is acted on within an hour, or after the refund it waits for.",
        "SELECT id AS message_id, source, kind, attempts, last_error FROM inbox "
        "WHERE processed_at IS NULL AND received_at < darkroom_now() - "
        "CASE kind WHEN 'money_back' THEN INTERVAL '8 days' ELSE INTERVAL '1 hour' END",
    ),
)


def _stuck_query() -> Composed:
    part = SQL(
        "SELECT {kind} AS kind, id, status, {since} AS since FROM {table} r "
        "WHERE status = {status} AND {since} < darkroom_now() - make_interval(secs => {seconds}){only}"
    )
    return SQL(" UNION ALL ").join(
        part.format(
            kind=Literal(status.kind),
            table=Identifier(TABLES[status.kind]),
            since=Identifier(_SINCE[status.kind]),
            status=Literal(status.name),
            seconds=Literal(status.longest_stay_seconds),
            only=SQL(_WAITS_FOR_ITS_SET if (status.kind, status.name) in _MAY_WAIT else ""),
        )
        for status in STATUSES
        if status.longest_stay_seconds is not None
    )


ALL_QUESTIONS: Final = (
    *QUESTIONS,
    Question(
        "stuck",
        "Never stuck: no row stays in a passing status longer than lifecycle.py allows.",
        _stuck_query(),
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: how many rows, and the first of them."""

    name: str
    promise: str
    count: int
    rows: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """The answers to all questions, and the counts people compare."""

    findings: tuple[Finding, ...]
    questions: int
    payments: int
    completed_tasks: int
    photos: int

    @property
    def clean(self) -> bool:
        """Whether every promise holds."""
        return not self.findings


def _first_of(query: LiteralString | Composed) -> Composed:
    """The first rows, and how many there are: they may be millions, and this process keeps working."""
    whole = query if isinstance(query, Composed) else SQL(query)
    return SQL("SELECT count(*) OVER () AS rows_found, found.* FROM ({}) found LIMIT {}").format(
        whole, Literal(ROWS_SHOWN_MAX)
    )


async def run_audit(database: Database, *, asked: Callable[[str], None] | None = None) -> Report:
    """Ask every question in one snapshot. Changes nothing. Raises DatabaseUnavailableError.

    `asked` is called with each question's name before it is asked: a large shop's answers take minutes.
    """
    findings: list[Finding] = []
    async with (
        database.transaction(timeout_seconds=AUDIT_SECONDS) as tx,
        tx.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await cursor.execute(STATEMENT_LIMIT)
        for question in ALL_QUESTIONS:
            if asked is not None:
                asked(question.name)
            await cursor.execute(_first_of(question.query))
            rows = await cursor.fetchall()
            if rows:
                counts = [row.pop("rows_found") for row in rows]
                findings.append(Finding(question.name, question.promise, counts[0], rows))
        await cursor.execute(
            "SELECT (SELECT count(*) FROM payments) AS payments, "
            "(SELECT count(*) FROM kie_tasks WHERE status = 'completed') AS completed_tasks, "
            "(SELECT count(*) FROM generated_photos) AS photos"
        )
        counts = await cursor.fetchone() or {}
    return Report(tuple(findings), len(ALL_QUESTIONS), **counts)
