"""A shop's past, written by SQL: finished sets with everything that a real one leaves behind.

Each set is paid, has `PHOTOS` completed tasks with an attempt, a photo, the provider's callback and every move.
Half as many customers as sets. Spread evenly over `DAYS`, the oldest first, as they would lie on the disk.
"""

from collections.abc import Callable
from typing import Final, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from bench.places import look_at_tables

PHOTOS: Final = 7
DAYS: Final = 150
"""Less than what is logged is kept (180): nothing of it is to be forgotten while somebody measures."""
SETS_A_CHUNK: Final = 20_000
"""140,000 photos in one transaction: some seconds, so that a progress bar moves."""

_SETS: Final[LiteralString] = (
    "(SELECT s AS id, (s + 1) / 2 AS user_id, darkroom_now() - make_interval(secs => "
    "%(days)s * 86400.0 * (%(end)s - s) / %(sets)s) AS at "
    "FROM generate_series(%(first)s::BIGINT, %(last)s::BIGINT) s) s"
)
_PHOTOS: Final[LiteralString] = (
    _SETS + " CROSS JOIN generate_series(0, 6) n (n) CROSS JOIN LATERAL "
    "(SELECT (s.id - 1) * 7 + n.n + 1 AS id) t"
)
_UUID: Final[LiteralString] = "lpad(to_hex({}), 32, '0')::UUID"

FILL: Final[tuple[LiteralString, ...]] = (
    "INSERT INTO users (id, telegram_user_id, created_at) OVERRIDING SYSTEM VALUE "
    "SELECT DISTINCT ON (s.user_id) s.user_id, 7000000000 + s.user_id, s.at FROM " + _SETS + " "
    "ORDER BY s.user_id, s.id ON CONFLICT DO NOTHING",
    "INSERT INTO avatars (id, user_id, name, created_at) OVERRIDING SYSTEM VALUE "
    "SELECT DISTINCT ON (s.user_id) s.user_id, s.user_id, 'Me', s.at FROM " + _SETS + " "
    "ORDER BY s.user_id, s.id ON CONFLICT DO NOTHING",
    "INSERT INTO payments (id, user_id, provider, provider_payment_id, status, tier_id, photo_count, "
    "amount_minor, currency, policy_id, generation_consumed, consumed_at, consumed_avatar_id, request_id, "
    "created_at, updated_at, succeeded_at, due_at) OVERRIDING SYSTEM VALUE "
    "SELECT s.id, s.user_id, 'past', 'past-' || lpad(s.id::TEXT, 9, '0'), 'succeeded', 'starter', 7, 49900, "
    "'RUB', (SELECT max(id) FROM refund_policies), TRUE, s.at, s.user_id, "
    "lpad(to_hex(s.id), 32, '0')::UUID, s.at, s.at, s.at, s.at FROM " + _SETS,
    "INSERT INTO generation_jobs (id, user_id, avatar_id, style_id, payment_id, status, total_photos, "
    "completed_photos, reference_ids, request_id, deadline_at, created_at, updated_at, finished_at, due_at) "
    "OVERRIDING SYSTEM VALUE SELECT s.id, s.user_id, s.user_id, 'signature', s.id, 'completed', 7, 7, "
    "ARRAY[s.user_id * 4], lpad(to_hex(s.id), 32, '0')::UUID, s.at + INTERVAL '1 hour', s.at, s.at, s.at, s.at "
    "FROM " + _SETS,
    "INSERT INTO reference_photos (avatar_id, object_key, sha256, size_bytes, content_type, width, height, "
    "created_at, deleted_at, erasing_at, erased_at) "
    "SELECT s.user_id, 'references/' || s.user_id || '/' || s.id || '/' || n.n, "
    "lpad(to_hex(s.id * 4 + n.n), 64, '0'), 1, 'image/jpeg', 1, 1, s.at, gone.at, gone.at, gone.at "
    "FROM " + _SETS + " CROSS JOIN generate_series(0, 3) n (n) CROSS JOIN LATERAL (SELECT CASE "
    "WHEN s.at < darkroom_now() - INTERVAL '30 days' THEN s.at + INTERVAL '30 days' END AS at) gone "
    "WHERE s.id %% 2 = 1",
    "INSERT INTO kie_tasks (id, job_id, avatar_id, style_id, prompt_id, prompt, prompt_index, seed, provider, "
    "status, attempt_id, kie_task_id, result_url, share_minor, created_at, updated_at, status_since, due_at, "
    "turn, claim) OVERRIDING SYSTEM VALUE "
    "SELECT t.id, s.id, s.user_id, 'signature', q.ids[1 + (s.id * 7 + n.n) %% cardinality(q.ids)], "
    "'a portrait at the window, in soft light, seen from the side', n.n, t.id, 'studio', 'completed', t.id, "
    "'past-' || t.id, 'http://127.0.0.1/' || t.id, 7128 + CASE WHEN n.n < 4 THEN 1 ELSE 0 END, s.at, "
    "s.at, s.at, "
    "s.at, s.at + n.n * INTERVAL '2 seconds', 4 FROM " + _PHOTOS + ", "
    "(SELECT array_agg(id ORDER BY id) AS ids FROM prompts WHERE style_id = 'signature') q",
    "INSERT INTO task_attempts (id, task_id, number, provider, token, created_at, called_at, answered_at, "
    "provider_task_id, ended_at, end_state, result_url) OVERRIDING SYSTEM VALUE "
    "SELECT t.id, t.id, 1, 'studio', lpad(to_hex(t.id), 32, '0')::UUID, s.at, s.at, s.at, 'past-' || "
    "t.id, s.at, "
    "'succeeded', 'http://127.0.0.1/' || t.id FROM " + _PHOTOS,
    "INSERT INTO generated_photos (id, job_id, task_id, attempt_id, avatar_id, style_id, prompt, object_key, "
    "sha256, size_bytes, content_type, width, height, thumbnail_key, thumbnail_sha256, thumbnail_bytes, "
    "thumbnail_type, created_at, favorite_at, bytes_checked_at) OVERRIDING SYSTEM VALUE "
    "SELECT t.id, s.id, t.id, t.id, s.user_id, 'signature', "
    "'a portrait at the window, in soft light, seen from the side', "
    "'generated/' || s.user_id || '/signature/' || s.id || '/' || n.n || '-' "
    "|| left(lpad(to_hex(t.id), 64, '0'), 16) || '.jpg', lpad(to_hex(t.id), 64, '0'), 400000, 'image/jpeg', "
    "1024, 1280, 'thumbnails/' || lpad(to_hex(t.id), 16, '0') || '.jpg', lpad(to_hex(t.id), 64, '0'), 9000, "
    "'image/jpeg', s.at, CASE WHEN n.n = 0 THEN s.at END, s.at FROM " + _PHOTOS,
    "INSERT INTO inbox (source, external_id, kind, payload, received_at, due_at, attempts, "
    "processed_at, outcome) "
    "SELECT 'past', 'past-' || lpad(s.id::TEXT, 9, '0'), 'payment', "
    "jsonb_build_object('payment_id', s.id::TEXT), s.at, s.at, 1, s.at, 'paid' FROM " + _SETS,
    "INSERT INTO inbox (source, external_id, kind, payload, received_at, due_at, attempts, "
    "processed_at, outcome) "
    "SELECT 'studio-callback', lpad(to_hex(t.id), 32, '0')::UUID || '/past-' || t.id, 'generation', "
    "jsonb_build_object('provider', 'studio', 'token', lpad(to_hex(t.id), 32, '0')::UUID, "
    "'provider_task_id', 'past-' || t.id), s.at, s.at, 1, s.at, 'rung' FROM " + _PHOTOS,
    "INSERT INTO funnel_steps (user_id, step, at) SELECT s.user_id, step, s.at FROM " + _SETS + ", "
    "unnest(ARRAY['opened', 'uploaded', 'chose', 'paid', 'got']) step ON CONFLICT DO NOTHING",
    # Every move, in the order of time.
    "INSERT INTO move_log (kind, row_id, from_status, to_status, moved_at) "
    "SELECT kind, id, a, b, at FROM ("
    "SELECT m.kind, s.id, m.a, m.b, s.at, m.n FROM " + _SETS + ", (VALUES "
    "('payment', 'new', 'pending', 1), ('payment', 'pending', 'succeeded', 2), ('job', 'new', 'pending', 3), "
    "('job', 'pending', 'processing', 4), ('job', 'processing', 'completed', 10)) m (kind, a, b, n) UNION ALL "
    "SELECT 'task', t.id, m.a, m.b, s.at, m.n FROM " + _PHOTOS + ", (VALUES "
    "('new', 'queued', 5), ('queued', 'submitting', 6), ('submitting', 'pending', 7), "
    "('pending', 'storing', 8), ('storing', 'completed', 9)) m (a, b, n)) moves ORDER BY at, n, id",
)
"""Statements of one chunk, in the order in which foreign keys would want them."""

TABLES: Final = (
    "users", "avatars", "payments", "generation_jobs", "reference_photos", "kie_tasks", "task_attempts",
    "generated_photos", "inbox", "funnel_steps", "move_log",
)  # fmt: skip
BYTES_A_PHOTO: Final = 4_000
"""On the disk, with the indexes: 3.0 kB measured, and what the WAL and the building of indexes take besides."""


def fill_history(
    dsn: str,
    photos: int,
    progress: Callable[[int], None] = lambda _photos: None,
    *,
    days: int = DAYS,
    first_id: int = 1,
) -> None:
    """Write `photos` old photos (rounded up to whole sets) into a fresh, stocked database.

    Payments and sets are numbered from `first_id` on, customers and avatars from half of it. Neither
    triggers nor foreign keys run meanwhile, and indexes that are no constraint are built at the end: about
    50,000 photos a second. `progress` is told how many photos more there are.
    """
    sets = -(-photos // PHOTOS)
    if sets == 0:
        return
    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute("SET session_replication_role = replica")
        one.execute("SET synchronous_commit = off")
        one.execute("SET maintenance_work_mem = '512MB'")
        one.execute("SET work_mem = '256MB'")
        indexes = one.execute(
            "SELECT i.indexrelid::REGCLASS::TEXT, pg_get_indexdef(i.indexrelid) FROM pg_index i "
            "JOIN pg_class t ON t.oid = i.indrelid WHERE t.relname = ANY(%s) AND NOT EXISTS "
            "(SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)",
            [list(TABLES)],
        ).fetchall()
        for name, _ in indexes:
            one.execute(SQL("DROP INDEX {}").format(Identifier(name)))
        end = first_id + sets
        for first in range(first_id, end, SETS_A_CHUNK):
            last = min(first + SETS_A_CHUNK, end) - 1
            values = {"days": days, "sets": sets, "end": end, "first": first, "last": last}
            with one.transaction():
                for statement in FILL:
                    one.execute(statement, values)
            progress((last - first + 1) * PHOTOS)
        for _, definition in indexes:
            one.execute(definition.encode())
        for table in ("users", "avatars", "payments", "generation_jobs", "kie_tasks", "task_attempts",
                      "generated_photos"):  # fmt: skip
            one.execute(
                SQL(
                    "SELECT setval(pg_get_serial_sequence({name}, 'id'), (SELECT max(id) FROM {table}))"
                ).format(name=table, table=Identifier(table))
            )
        look_at_tables(one)
        one.execute("CHECKPOINT")
