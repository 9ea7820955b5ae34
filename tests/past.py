"""What else lies about in a shop that has been open for long: besides `bench.history`, for plans only.

Rows of every table that grows, some thousands each, so that the planner has a reason to take an index. Not
whole enough for the audit: constraints are kept, triggers and foreign keys are not asked.
"""

from typing import Final, LiteralString

import psycopg
from bench.history import fill_history

FIRST_ID: Final = 200_001
"""Below it is room for the numbers that tests write down."""
PAST: Final = 28_000
"""Photos: 4000 sets, of 2000 customers."""

_THOUSANDS: Final[LiteralString] = "FROM generate_series(1, 4000) n, darkroom_now() now"

REST: Final[tuple[LiteralString, ...]] = (
    # Who came, looked, and never bought.
    (
        "INSERT INTO users (id, telegram_user_id) OVERRIDING SYSTEM VALUE SELECT 1000 + n, 8000000000 + n "
        "FROM generate_series(1, 40000) n"
    ),
    (
        "INSERT INTO avatars (id, user_id, name) OVERRIDING SYSTEM VALUE SELECT 1000 + n, 1000 + n, 'Me' "
        "FROM generate_series(1, 40000) n"
    ),
    "INSERT INTO sessions (user_id, token_sha256, expires_at, origin) SELECT 100000 + n / 2, "
    "lpad(to_hex(n), 64, '0'), now + INTERVAL '1 minute' * n, 'telegram' " + _THOUSANDS,
    "INSERT INTO idempotency_keys (user_id, scope, key, request_sha256, row_id, created_at) "
    "SELECT 100000 + n / 2, 'payment', n::TEXT, 'x', 200000 + n, now - INTERVAL '5 minutes' * n "
    + _THOUSANDS,
    "INSERT INTO upload_requests (user_id, created_at) SELECT 100000 + n / 2, now - INTERVAL '0.5 seconds' * n "
    + _THOUSANDS,
    "INSERT INTO direct_uploads (user_id, avatar_id, file_name, ends_at) SELECT 100000 + n / 2, "
    "100000 + n / 2, 'x', "
    "now + INTERVAL '1 hour' " + _THOUSANDS,
    "INSERT INTO qstash_processed_messages (message_id, created_at) SELECT 'past-' || n, "
    "now - INTERVAL '1 minute' * n " + _THOUSANDS,
    "INSERT INTO sign_in_links (id, user_id, request_id, created_at, expires_at) OVERRIDING SYSTEM VALUE "
    "SELECT 100000 + n, 100000 + n / 2, gen_random_uuid(), now - INTERVAL '1 minute' * n, "
    "now - INTERVAL '1 minute' * (n - 30) " + _THOUSANDS,
    "INSERT INTO mail_outbox (user_id, kind, link_id, address, locale, status, sent_at, created_at) "
    "SELECT 100000 + n / 2, 'sign_in', 100000 + n, 'a@b.test', 'en', 'sent', now, now - INTERVAL '1 "
    "minute' * n " + _THOUSANDS,
    "INSERT INTO photo_shares (user_id, job_id, photo_id, request_id, created_at, expires_at) "
    "SELECT 100000 + n / 2, 200000 + n, NULL, gen_random_uuid(), now, now + INTERVAL '1 day' "
    + _THOUSANDS,
    "INSERT INTO consents (payment_id, terms_sha256, locale) SELECT 200000 + n, repeat('0', 64), 'en' "
    + _THOUSANDS,
    "INSERT INTO credit_readings (account, read_at, credits_left, in_flight_credits, is_anchor) "
    "SELECT 'past', now - INTERVAL '10 minutes' * (4000 - n), 1, 0, TRUE " + _THOUSANDS,
    "INSERT INTO refunds (id, payment_id, job_id, status, reason, amount_minor, currency, settled_minor, "
    "succeeded_at) OVERRIDING SYSTEM VALUE SELECT 100000 + n, 200000 + n, 200000 + n, 'succeeded', "
    "'operator', 100, "
    "'RUB', 100, now " + _THOUSANDS,
    "INSERT INTO refund_lines (refund_id, payment_id, kind, task_id, amount_minor) "
    "SELECT 100000 + n, 200000 + n, 'goodwill', 1400000 + n, 100 " + _THOUSANDS,
    "INSERT INTO refund_attempts (refund_id, number, key, amount_minor) "
    "SELECT 100000 + n, 1, (100000 + n) || '-1', 100 " + _THOUSANDS,
    "INSERT INTO provider_refunds (id, payment_id, provider_refund_id, amount_minor, seen_at) "
    "OVERRIDING SYSTEM VALUE SELECT 100000 + n, 200000 + n, 'past-' || n, 100, now - INTERVAL '2 hours' * n "
    + _THOUSANDS,
    "INSERT INTO refund_settlements (refund_id, provider_refund_row_id, amount_minor) "
    "SELECT 100000 + n, 100000 + n, 100 " + _THOUSANDS,
    "INSERT INTO customer_messages (id, user_id, kind, subject_id, payment_id, text_ru, text_en) "
    "OVERRIDING SYSTEM VALUE SELECT 100000 + n, 100000 + n / 2, 'money_back', 100000 + n, 200000 + n, 'x', 'x' "
    + _THOUSANDS,
    "INSERT INTO telegram_message_queue (user_id, chat_id, job_id, photo_id, status) "
    "SELECT 100000 + n / 2, 1, 200000 + n, 1400000 + n, 'sent' " + _THOUSANDS,
    "INSERT INTO differences (provider, kind, subject, payment_id, closed_at) "
    "SELECT 'bank', 'unknown_payment', 'past-' || n, 200000 + n, now " + _THOUSANDS,
    "INSERT INTO generation_dead_letter_queue (task_id, job_id, error_code, error_text, attempts, replayed_at) "
    "SELECT 1400000 + n, 200000 + n / 7, 'x', 'x', 1, now " + _THOUSANDS,
    "INSERT INTO late_photos (task_id, attempt_id, object_key, sha256, size_bytes, content_type, erasing_at, "
    "erased_at) SELECT 1400000 + n, 1400000 + n, 'late/' || n, lpad(to_hex(n), 64, '0'), 1, 'x', now, now "
    + _THOUSANDS,
)
NUMBERED: Final = ("sign_in_links", "refunds", "provider_refunds", "customer_messages")


def fill_past(dsn: str, photos: int = PAST) -> None:
    """Everything, analyzed."""
    fill_history(dsn, photos, days=720, first_id=FIRST_ID)
    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute("SET session_replication_role = replica")
        for statement in REST:
            one.execute(statement)
        for table in NUMBERED:
            one.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), 200000)", [table])
        # Its photos were looked at a moment ago, and the selfies that are left are young: it gives nobody
        # anything to do. Its provider is the one that the present has.
        one.execute("UPDATE generated_photos SET bytes_checked_at = darkroom_now()")
        one.execute(
            "UPDATE reference_photos SET created_at = darkroom_now() + INTERVAL '1 year' "
            "WHERE erased_at IS NULL"
        )
        one.execute("UPDATE task_attempts SET provider = 'scripted'")
        one.execute("VACUUM ANALYZE")


BACKLOG: Final = 1000
"""Sets that are open, and about as many of everything else that can be due: a night without a worker. A third
of them have all their photos, and have only not been ended."""

OPEN: Final[tuple[LiteralString, ...]] = (
    (
        "UPDATE generation_jobs SET status = 'processing', finished_at = NULL, "
        "completed_photos = CASE WHEN id %% 3 = 0 THEN completed_photos ELSE 0 END, "
        "deadline_at = darkroom_now() + INTERVAL '1 hour', due_at = darkroom_now() - INTERVAL '1 minute' "
        "WHERE id >= %(first)s"
    ),
    "DELETE FROM generated_photos WHERE job_id >= %(first)s AND job_id %% 3 > 0",
    (
        "UPDATE kie_tasks SET provider = 'scripted', status = (ARRAY['queued', 'submitting', 'unknown', "
        "'pending', 'storing', 'storing', 'queued'])[prompt_index + 1], due_at = darkroom_now() - "
        "INTERVAL '1 minute', "
        "status_since = darkroom_now() - INTERVAL '1 minute', kie_task_id = CASE WHEN prompt_index = "
        "0 THEN NULL "
        "ELSE kie_task_id END, lease_until = CASE WHEN prompt_index = 1 THEN darkroom_now() - "
        "INTERVAL '1 minute' END, "
        "result_dies_at = CASE WHEN prompt_index = 5 THEN darkroom_now() + INTERVAL '1 hour' "
        "WHEN prompt_index = 4 THEN darkroom_now() + INTERVAL '1 day' END "
        "WHERE job_id >= %(first)s AND job_id %% 3 > 0"
    ),
    (
        "UPDATE task_attempts a SET provider = 'scripted', end_state = NULL, ended_at = NULL, "
        "answered_at = NULL, "
        "called_at = darkroom_now() FROM kie_tasks t WHERE t.id = a.task_id AND t.job_id >= %(first)s "
        "AND t.job_id %% 3 > 0"
    ),
    (
        "UPDATE inbox SET processed_at = NULL, outcome = NULL, source = 'bank' "
        "WHERE kind = 'payment' AND (payload ->> 'payment_id')::BIGINT >= %(first)s"
    ),
    # Before the sets that are open: money that waits to be asked about, to be used, to go back.
    (
        "UPDATE payments SET provider = 'bank', status = 'pending', succeeded_at = NULL, consumed_at = NULL, "
        "generation_consumed = FALSE, consumed_avatar_id = NULL, due_at = darkroom_now() - INTERVAL "
        "'1 minute', "
        "created_at = darkroom_now() - INTERVAL '1 hour' WHERE id BETWEEN %(first)s - 1000 AND %(first)s - 1"
    ),
    (
        "UPDATE payments SET provider = 'bank', consumed_at = NULL, generation_consumed = FALSE, "
        "consumed_avatar_id = NULL, succeeded_at = darkroom_now() - INTERVAL '1 day', "
        "order_avatar_id = user_id, "
        "order_style_id = 'signature' WHERE id BETWEEN %(first)s - 2000 AND %(first)s - 1001"
    ),
    "UPDATE payments SET provider = 'bank' WHERE id >= %(first)s",
    "DELETE FROM generation_jobs j USING payments p WHERE p.id = j.payment_id AND NOT p.generation_consumed",
    (
        "UPDATE refunds SET status = (ARRAY['requested', 'unknown'])[1 + id %% 2], settled_minor = 0, "
        "succeeded_at = NULL, due_at = darkroom_now() WHERE id >= 102000"
    ),
    "UPDATE mail_outbox SET status = 'pending', sent_at = NULL WHERE id > 2000",
    "UPDATE reference_photos SET erased_at = NULL WHERE id %% 4 = 0",
)


def open_backlog(dsn: str) -> None:
    """Thousands of rows are due at once: photos in every status, sets, messages, money, letters, bytes."""
    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute("SET session_replication_role = replica")
        first = FIRST_ID + PAST // 7 - BACKLOG
        for statement in OPEN:
            one.execute(statement, {"first": first})
        one.execute("VACUUM ANALYZE")
