"""The audit sees what it promises to see: each question is made to fail once."""

import pytest

from darkroom.core.audit import ALL_QUESTIONS, ROWS_SHOWN_MAX, run_audit
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.shop import Shop

BREAKS = {
    "one_job_per_payment": (
        "ALTER TABLE generation_jobs DROP CONSTRAINT fk_payment_unique;"
        "INSERT INTO generation_jobs (user_id, avatar_id, style_id, payment_id, total_photos, request_id,"
        " reference_ids, deadline_at, due_at) SELECT user_id, avatar_id, style_id, payment_id,"
        " total_photos, gen_random_uuid(), reference_ids, deadline_at, due_at FROM generation_jobs LIMIT 1"
    ),
    "consumed_payment_without_job": (
        "UPDATE payments SET generation_consumed = TRUE, consumed_at = now()"
        " WHERE NOT generation_consumed"
    ),
    "job_without_consumed_payment": (
        "UPDATE payments SET generation_consumed = FALSE, consumed_at = NULL WHERE id = 1"
    ),
    "redo_is_explained": (
        "ALTER TABLE payments DROP CONSTRAINT payments_redo_is_one_free_photo;"
        "UPDATE payments SET redoes_photo_id = (SELECT min(id) FROM generated_photos) WHERE id = 2"
    ),
    "foreign_avatar": (
        "INSERT INTO users (telegram_user_id) VALUES (9999999); UPDATE avatars SET user_id ="
        " (SELECT id FROM users WHERE telegram_user_id = 9999999)"
    ),
    "tasks_are_what_was_paid": "UPDATE generation_jobs SET total_photos = 8",
    "shares_sum_to_price": "UPDATE kie_tasks SET share_minor = share_minor + 1 WHERE id = 1",
    "completed_task_without_photo": "DELETE FROM generated_photos",
    "photo_without_completed_task": "UPDATE kie_tasks SET status = 'storing' WHERE status = 'completed'",
    "progress_is_honest": "UPDATE generation_jobs SET completed_photos = 1",
    "delivered_and_paid_back": (
        "UPDATE kie_tasks SET status = 'completed' WHERE status = 'failed'"
    ),
    "failed_without_money_back": "UPDATE kie_tasks SET returned_minor = 0",
    "job_ended_too_early_or_wrongly": "UPDATE generation_jobs SET status = 'completed'",
    "money_adds_up": "UPDATE refunds SET settled_minor = settled_minor - 1, amount_minor = amount_minor - 1",
    "more_back_than_paid": "UPDATE payments SET refund_reserved_minor = 1 WHERE id = 1",
    "refund_is_its_lines": (
        "UPDATE refunds SET amount_minor = amount_minor + 1, settled_minor = settled_minor + 1"
    ),
    "line_above_share": "UPDATE kie_tasks SET returned_minor = 1",
    "refund_is_settled_by_its_sources": "DELETE FROM refund_settlements",
    "provider_refund_is_explained": "UPDATE provider_refunds SET amount_minor = amount_minor + 1",
    "payment_says_what_went_back": "UPDATE payments SET status = 'succeeded' WHERE id = 1",
    "unused_money_goes_back": (
        "UPDATE payments SET succeeded_at = now() - INTERVAL '18 days' WHERE id = 2"
    ),
    "whole_price_goes_back": "UPDATE refund_policies SET whole_price_below_percent = 90",
    "told_what_did_not_happen": "DELETE FROM customer_messages",
    "spend_is_explained": "UPDATE task_attempts SET provider_task_id = NULL",
    "provider_link_as_result": (
        "UPDATE generated_photos SET object_key = 'https://tempfile.example/' || id"
    ),
    "key_names_its_content": "UPDATE generated_photos SET sha256 = repeat('0', 64)",
    "dead_letter_missing": "DELETE FROM generation_dead_letter_queue",
    "forgotten_and_still_there": (
        "UPDATE users SET telegram_user_id = NULL, forget_at = now(), wiped_at = now(), forgotten_at = now()"
    ),
    "deleted_and_still_there": "UPDATE avatars SET deleted_at = now(), emptied_at = now(), name = '-'",
    "history_is_whole": "DELETE FROM move_log WHERE kind = 'task'",
    "message_stuck": (
        "INSERT INTO inbox (source, external_id, kind, payload, received_at)"
        " VALUES ('x', 'x', 'payment', '{}', now() - INTERVAL '2 hours')"
    ),
    "stuck": "UPDATE kie_tasks SET status = 'unknown', status_since = now() - INTERVAL '1 hour'",
}


ALSO = (
    # Without a refund it was asked nothing at all.
    ("payment_says_what_went_back", "UPDATE payments SET status = 'refunded' WHERE id = 2"),
    ("payment_says_what_went_back", "UPDATE payments SET status = 'refunding' WHERE id = 2"),
    ("payment_says_what_went_back", "UPDATE payments SET status = 'refunded' WHERE id = 1"),
    # Unused money was owed by definition, whatever its payment said.
    ("money_adds_up", "UPDATE payments SET status = 'refunded' WHERE id = 2"),
    (
        "unused_money_goes_back",
        (
            "UPDATE payments SET compensates = 1, provider = 'grant', amount_minor = 0,"
            " succeeded_at = now() - INTERVAL '18 days' WHERE id = 2"
        ),
    ),
)
"""Other ways to break the same promise."""


def test_every_question_has_its_break() -> None:
    assert set(BREAKS) == {question.name for question in ALL_QUESTIONS}


@pytest.mark.parametrize(("name", "breaking"), [*sorted(BREAKS.items()), *ALSO])
async def test_a_broken_promise_is_found(shop: Shop, name: str, breaking: str) -> None:
    async def fail_one(request: GenerationRequest) -> FailedThere | None:
        if request.prompt_index == 0:
            return FailedThere("400", "no", Again.NEVER)
        return None

    shop.provider.on_ask = fail_one
    customer, _ = await shop.sold()
    await shop.drain()
    await shop.paid(customer)
    assert (await run_audit(shop.database)).clean
    async with shop.database.transaction() as tx:
        # As a superuser at night would: no triggers, no foreign keys.
        await tx.execute("SET LOCAL session_replication_role = replica")
        for statement in breaking.split(";"):
            await tx.execute(statement.encode())
    report = await run_audit(shop.database)
    assert name in {finding.name for finding in report.findings}
    shop.audit_at_end = False


async def test_the_audit_changes_nothing_and_counts(shop: Shop) -> None:
    await shop.sold()
    await shop.drain()
    report = await run_audit(shop.database)
    assert report.clean
    assert (report.payments, report.completed_tasks, report.photos) == (1, 7, 7)
    assert report.questions == len(ALL_QUESTIONS)


async def test_a_finding_of_many_rows_shows_the_first_of_them(shop: Shop) -> None:
    """All of them were loaded to show fifty: a worker stood still, or ran out of memory."""
    await shop.rows(
        "INSERT INTO inbox (source, external_id, kind, payload, received_at) "
        "SELECT 'x', n::TEXT, 'payment', '{}', now() - INTERVAL '2 hours' FROM generate_series(1, 300) n "
        "RETURNING id"
    )
    (finding,) = (await run_audit(shop.database)).findings
    assert (finding.name, finding.count, len(finding.rows)) == (
        "message_stuck",
        300,
        ROWS_SHOWN_MAX,
    )
    assert "total" not in finding.rows[0]
    shop.audit_at_end = False


async def test_unused_money_whose_customer_was_reminded_late_is_on_its_way(shop: Shop) -> None:
    """Nobody worked for a month; the reminder comes first, and a day later the money goes."""
    await shop.paid(await shop.customer())
    await shop.advance(30 * 86_400)
    assert [one.name for one in (await run_audit(shop.database)).findings] == [
        "unused_money_goes_back"
    ]
    await shop.step("unused")
    assert (await run_audit(shop.database)).clean
    await shop.advance(86_401)
    await shop.drain()
    assert await shop.value("SELECT status FROM payments") == "refunded"
