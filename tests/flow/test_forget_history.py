"""A year of a shop: what is logged of orders stays bounded, and nothing that anybody needs is missing."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from darkroom.core import history
from darkroom.core.audit import run_audit
from darkroom.edges.books import write_evidence
from darkroom.flow.forget_history import forget_history
from darkroom.flow.gather_evidence import gather_evidence
from darkroom.flow.receive import receive_generation_callback
from tests.shop import Shop

DAYS = 180
LOGGED = ("move_log", "inbox", "telegram_message_queue")
BATCH = 1000

TRAFFIC: tuple[LiteralString, ...] = (
    # One day: twenty sets of three photos, finished, with all that they leave behind; the triggers log every
    # move.
    (
        "INSERT INTO payments (user_id, provider, provider_payment_id, tier_id, photo_count, "
        "amount_minor, currency, "
        "policy_id, request_id) SELECT %(user)s, 'bank', 'd' || %(day)s || '-' || n, 'starter', 3, 300, 'RUB', "
        "(SELECT max(id) FROM refund_policies), gen_random_uuid() FROM generate_series(1, 20) n"
    ),
    "UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now() WHERE status = 'pending'",
    (
        "WITH used AS (UPDATE payments SET generation_consumed = TRUE, consumed_at = darkroom_now(), "
        "consumed_avatar_id = %(avatar)s WHERE NOT generation_consumed RETURNING id) "
        "INSERT INTO generation_jobs (user_id, avatar_id, style_id, payment_id, total_photos, reference_ids, "
        "request_id, deadline_at, due_at) SELECT %(user)s, %(avatar)s, 'signature', id, 3, '{1}', "
        "gen_random_uuid(), "
        "darkroom_now() + INTERVAL '1 hour', darkroom_now() FROM used"
    ),
    (
        "INSERT INTO kie_tasks (job_id, avatar_id, style_id, prompt, prompt_index, seed, provider, "
        "turn, share_minor) "
        "SELECT j.id, j.avatar_id, j.style_id, 'x', n, n, 'scripted', darkroom_now(), 100 "
        "FROM generation_jobs j, generate_series(0, 2) n WHERE j.status = 'pending'"
    ),
    (
        "INSERT INTO task_attempts (task_id, number, provider, provider_task_id, called_at, "
        "answered_at, ended_at, "
        "end_state) SELECT t.id, 1, 'scripted', 'y-' || t.id, darkroom_now(), darkroom_now(), darkroom_now(), "
        "'succeeded' FROM kie_tasks t WHERE t.status = 'queued'"
    ),
    (
        "UPDATE kie_tasks t SET status = 'submitting', attempt_id = a.id, status_since = darkroom_now() "
        "FROM task_attempts a WHERE a.task_id = t.id AND t.status = 'queued'"
    ),
    (
        "UPDATE kie_tasks SET status = 'pending', kie_task_id = 'y-' || id, status_since = darkroom_now() "
        "WHERE status = 'submitting'"
    ),
    "UPDATE kie_tasks SET status = 'storing', status_since = darkroom_now() WHERE status = 'pending'",
    (
        "INSERT INTO generated_photos (job_id, task_id, attempt_id, avatar_id, style_id, prompt, "
        "object_key, sha256, "
        "size_bytes, content_type, width, height) SELECT t.job_id, t.id, t.attempt_id, t.avatar_id, "
        "t.style_id, "
        "t.prompt, 'generated/' || t.avatar_id || '/signature/' || t.job_id || '/' || t.prompt_index || '-' "
        "|| left(h.sha, 16) || '.jpg', h.sha, 1, 'image/jpeg', 1, 1 FROM kie_tasks t, "
        "LATERAL (SELECT lpad(to_hex(t.id), 64, '0') AS sha) h WHERE t.status = 'storing'"
    ),
    "UPDATE kie_tasks SET status = 'completed', status_since = darkroom_now() WHERE status = 'storing'",
    "UPDATE generation_jobs SET status = 'processing' WHERE status = 'pending'",
    (
        "UPDATE generation_jobs SET status = 'completed', completed_photos = 3, finished_at = darkroom_now() "
        "WHERE status = 'processing'"
    ),
    (
        "INSERT INTO telegram_message_queue (user_id, chat_id, job_id, photo_id) SELECT %(user)s, 1, "
        "p.job_id, p.id "
        "FROM generated_photos p WHERE NOT EXISTS (SELECT FROM telegram_message_queue q WHERE "
        "q.photo_id = p.id) "
        "AND p.created_at > darkroom_now() - INTERVAL '1 hour'"
    ),
    "UPDATE telegram_message_queue SET status = 'sending' WHERE status = 'pending'",
    "UPDATE telegram_message_queue SET status = 'sent', updated_at = darkroom_now() WHERE status = 'sending'",
    (
        "INSERT INTO inbox (source, external_id, kind, payload, processed_at, outcome) SELECT "
        "'scripted-callback', "
        "%(day)s || '-' || n, 'generation', '{}', darkroom_now(), 'rung' FROM generate_series(1, 80) n"
    ),
)
"""What a day leaves. The photos' bytes are nowhere: nobody looks at them here."""
MOVES_A_DAY = 20 * (2 + 3 + 3 * 5 + 3 * 3)


async def a_year(shop: Shop, dsn: str, *, forgets: bool = True) -> None:
    """365 days of steady traffic; each night the chore runs until it finds nothing, and vacuum comes by."""
    customer = await shop.customer()
    # What autovacuum does in time, here at fixed moments: dead rows make room for new ones.
    with psycopg.connect(dsn, autocommit=True) as one:
        for day in range(0, 365, 5):
            values = {"user": customer.user_id, "avatar": customer.avatar_id, "day": day}
            await shop.advance(5 * 86_400)
            with one.transaction():
                for statement in TRAFFIC:
                    one.execute(statement, values)
            while forgets and await forget_history(shop.darkroom):
                pass
            one.execute("VACUUM move_log, inbox, telegram_message_queue")


async def counts(shop: Shop) -> dict[str, int]:
    """Rows of what is logged."""
    rows = await shop.rows(
        "SELECT (SELECT count(*) FROM move_log) AS move_log, (SELECT count(*) FROM inbox) AS inbox, "
        "(SELECT count(*) FROM telegram_message_queue) AS telegram_message_queue"
    )
    return {name: int(count) for name, count in rows[0].items()}


BOUNDS = {
    "move_log": MOVES_A_DAY * (DAYS / 5 + 1),
    "inbox": 80 * (DAYS / 5 + 1),
    "telegram_message_queue": 60 * (DAYS / 5 + 1),
}
"""As many days of traffic as are kept, and the one that has just ended."""
ROW_BYTES_MAX = 200
"""Of any of the three, with its header; half as many again may lie free until they are used."""


async def test_a_year_later_the_log_is_as_long_as_the_days_it_is_kept(shop: Shop, dsn: str) -> None:
    await a_year(shop, dsn)
    there = await counts(shop)
    for name in LOGGED:
        assert 0 < there[name] <= BOUNDS[name], (name, there)
        # No bloat: the pages are those of the rows that are there, a round's batch and what vacuum left
        # besides. (The server's count of dead rows is told late by the session that made them: no proof.)
        pages = await shop.value("SELECT pg_relation_size(%s::TEXT::REGCLASS) / 8192", name)
        fullest = (BOUNDS[name] * 1.5 + BATCH) * ROW_BYTES_MAX / 8192
        assert pages <= fullest, f"{name} has {pages} pages"
    assert await shop.value("SELECT count(*) FROM generated_photos") == 73 * 60, "the books stay"
    report = await run_audit(shop.database)
    assert report.clean, report.findings


async def test_twin_without_the_chore_it_only_grows(shop: Shop, dsn: str) -> None:
    await a_year(shop, dsn, forgets=False)
    there = await counts(shop)
    assert all(there[name] > BOUNDS[name] for name in LOGGED), there


async def test_the_evidence_of_an_order_is_whole_as_long_as_it_may_be_disputed(
    shop: Shop, tmp_path: Path
) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.drain()
    before = (await gather_evidence(shop.darkroom, payment_id)).record.tables
    await shop.advance((DAYS - 1) * 86_400)
    await shop.step("history")
    record = (await gather_evidence(shop.darkroom, payment_id)).record
    assert record.tables == before
    assert record.moves_since is None
    assert len(before["moves"]) > 10
    assert before["inbox_messages"]

    await shop.advance(2 * 86_400)
    await shop.step("history")
    evidence = await gather_evidence(shop.darkroom, payment_id)
    after = evidence.record.tables
    assert after["moves"] == after["inbox_messages"] == []
    assert {name: after[name] for name in ("jobs", "tasks", "attempts", "photos")} == {
        name: before[name] for name in ("jobs", "tasks", "attempts", "photos")
    }
    kept = evidence.record.moves_since
    assert kept is not None
    assert abs(evidence.record.read_at - kept - timedelta(days=DAYS)) < timedelta(minutes=1)
    data, page = write_evidence(evidence, tmp_path)
    assert "were forgotten by their age" in page.read_text()
    assert json.loads(data.read_text())["moves_since"]


async def test_a_message_that_comes_again_after_half_a_year_changes_nothing(shop: Shop) -> None:
    """Its row is gone: it is stored as new, acted on, and finds its effect had."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.drain()
    (request, provider_task_id) = next((r, t) for t, r in shop.provider.created.items())
    created = len(shop.provider.created)
    await shop.advance((DAYS + 1) * 86_400)
    await shop.step("history")
    books = await _books(shop)
    assert (await counts(shop))["inbox"] == 0
    for _ in range(2):
        await shop.notify(payment_id)
        await receive_generation_callback(
            shop.darkroom,
            provider_name="scripted",
            token=request.token,
            provider_task_id=provider_task_id,
        )
        await shop.drain()
    assert await _books(shop) == books
    assert len(shop.provider.created) == created
    assert (await counts(shop))["inbox"] == 2


async def _books(shop: Shop) -> list[dict[str, Any]]:
    return await shop.rows(
        "SELECT (SELECT json_agg(p ORDER BY p.id) FROM (SELECT id, status, generation_consumed FROM "
        "payments) p) "
        "AS payments, (SELECT json_agg(t ORDER BY t.id) FROM (SELECT id, status, claim FROM "
        "kie_tasks) t) AS tasks, "
        "(SELECT count(*) FROM generated_photos) AS photos, (SELECT count(*) FROM generation_jobs) AS jobs, "
        "(SELECT count(*) FROM refunds) AS refunds"
    )


async def test_what_is_open_stays_however_old(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    await shop.rows(
        "INSERT INTO inbox (source, external_id, kind, payload) VALUES ('off', 'x', 'generation', '{}') "
        "RETURNING id"
    )
    await shop.rows(
        "INSERT INTO telegram_message_queue (user_id, chat_id, job_id, photo_id) "
        "SELECT %s, 1, job_id, id FROM generated_photos WHERE job_id = %s ORDER BY id LIMIT 1 RETURNING id",
        customer.user_id,
        job.id,
    )
    for status in ("sending", "blocked"):
        await shop.rows("UPDATE telegram_message_queue SET status = %s RETURNING id", status)
    await shop.advance(10 * DAYS * 86_400)
    assert await forget_history(shop.darkroom) > 0
    assert await forget_history(shop.darkroom) == 0
    assert await counts(shop) == {"move_log": 0, "inbox": 1, "telegram_message_queue": 1}
    shop.audit_at_end = False  # a message nobody could act on for years is a finding


async def _cut_the_log(shop: Shop) -> None:
    await shop.rows(
        "DELETE FROM move_log WHERE id IN (SELECT max(id) FROM move_log WHERE kind = 'task' GROUP BY row_id) "
        "RETURNING id"
    )


async def _drop_the_log(shop: Shop) -> None:
    await shop.rows("DELETE FROM move_log WHERE kind = 'task' RETURNING id")


@pytest.mark.parametrize("damage", [_cut_the_log, _drop_the_log])
async def test_the_audit_still_sees_a_log_that_was_damaged(
    shop: Shop, damage: Callable[[Shop], Any]
) -> None:
    """Missing by age is one thing; missing is another. Also after the past was forgotten once."""
    await shop.sold()
    await shop.drain()
    await shop.advance((DAYS + 1) * 86_400)
    await shop.step("history")
    assert (await run_audit(shop.database)).clean
    await shop.sold()
    await shop.drain()
    await damage(shop)
    report = await run_audit(shop.database)
    assert [finding.name for finding in report.findings] == ["history_is_whole"]
    assert report.findings[0].count == 7
    shop.audit_at_end = False


async def test_twin_without_the_mark_the_audit_misses_what_was_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        history, "FORGET_MOVES", history.FORGET_MOVES.replace("= 'moves' AND", "= '' AND")
    )
    await shop.sold()
    await shop.drain()
    await shop.advance((DAYS + 1) * 86_400)
    await shop.step("history")
    report = await run_audit(shop.database)
    assert [finding.name for finding in report.findings] == ["history_is_whole"]
    shop.audit_at_end = False
