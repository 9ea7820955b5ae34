"""Many rows in one statement: each keeps its own fence, and none is counted with another's job."""

import asyncio

from darkroom.core.answers import CreatedThere, ReadyThere, write_created, write_ready
from darkroom.core.attempts import BEGIN_CALLS, begin_calls
from darkroom.core.photos import StoredPicture, store_photos
from darkroom.core.tasks import (
    TaskClaim,
    claim_pending,
    claim_queued,
    claim_storing,
    fail_task,
)
from tests.shop import Shop


async def _created(shop: Shop, *, limit: int = 20) -> list[TaskClaim]:
    """Tasks that were offered, and what the provider answered is not written yet."""
    async with shop.database.transaction() as tx:
        tasks = await claim_queued(tx, provider="scripted", limit=limit, lease_seconds=10)
        await begin_calls(tx, tasks)
    return tasks


def _answers(tasks: list[TaskClaim]) -> list[CreatedThere]:
    return [CreatedThere(task, f"theirs-{task.id}", 0) for task in tasks]


async def test_of_a_group_only_the_row_that_is_not_ours_stays_and_its_fact_is_kept(
    shop: Shop,
) -> None:
    await shop.sold()
    tasks = await _created(shop)
    lost = tasks[3]
    async with shop.database.transaction() as tx:
        await tx.execute("UPDATE kie_tasks SET claim = claim + 1 WHERE id = %s", [lost.id])
        moved = await write_created(tx, _answers(tasks))
        again = await write_created(tx, _answers(tasks))
    assert moved == {task.id for task in tasks if task is not lost}
    assert again == set()
    assert await shop.statuses() == ["pending"] * 3 + ["submitting"] + ["pending"] * 3
    facts = await shop.rows("SELECT provider_task_id FROM task_attempts ORDER BY task_id")
    assert [fact["provider_task_id"] for fact in facts] == [f"theirs-{one.id}" for one in tasks]
    shop.audit_at_end = False


async def test_the_first_answer_about_an_attempt_stands(shop: Shop) -> None:
    await shop.sold()
    tasks = await _created(shop, limit=1)
    async with shop.database.transaction() as tx:
        await write_created(tx, _answers(tasks))
        await write_created(tx, [CreatedThere(tasks[0], "another", 0)])
        pending = await claim_pending(tx, limit=1, lease_seconds=10)
        assert await write_ready(tx, [ReadyThere(pending[0], "first", 9, None)]) == {tasks[0].id}
        assert await write_ready(tx, [ReadyThere(pending[0], "second", 8, None)]) == set()
    fact = (
        await shop.rows(
            "SELECT provider_task_id, result_url, credits::INTEGER FROM task_attempts WHERE id = %s",
            tasks[0].attempt_id,
        )
    )[0]
    assert fact == {
        "provider_task_id": f"theirs-{tasks[0].id}",
        "result_url": "first",
        "credits": 9,
    }
    shop.audit_at_end = False


async def test_photos_of_two_sets_in_one_statement_are_counted_each_with_its_own(
    shop: Shop,
) -> None:
    jobs = [(await shop.sold())[1].id for _ in range(2)]
    tasks = await _created(shop)
    async with shop.database.transaction() as tx:
        await write_created(tx, _answers(tasks))
        pending = await claim_pending(tx, limit=20, lease_seconds=10)
        await write_ready(tx, [ReadyThere(one, f"at-{one.id}", None, None) for one in pending])
        storing = await claim_storing(tx, limit=20, lease_seconds=10, dying_seconds=0)
    assert len(storing) == 14
    # The whole first set, and three of the second, of which one is somebody else's by now.
    first = [task for task in storing if task.job_id == jobs[0]]
    second = [task for task in storing if task.job_id == jobs[1]][:3]
    lost = second[1]
    async with shop.database.transaction() as tx:
        await tx.execute("UPDATE kie_tasks SET claim = claim + 1 WHERE id = %s", [lost.id])
        await tx.execute(
            "UPDATE generation_jobs SET due_at = darkroom_now() + INTERVAL '1 hour' WHERE id = ANY(%s)",
            [jobs],
        )
        photos = await store_photos(
            tx, [(task, _picture(task)) for task in (*first, *second)], to_chat=True
        )
    assert set(photos) == {task.id for task in (*first, *second) if task is not lost}
    counted = await shop.rows(
        "SELECT completed_photos, due_at <= darkroom_now() AS due FROM generation_jobs "
        "WHERE id = ANY(%s) ORDER BY id",
        jobs,
    )
    assert counted == [
        {"completed_photos": 7, "due": True},
        {"completed_photos": 2, "due": False},
    ]
    kept = await shop.rows("SELECT task_id, job_id, object_key FROM generated_photos")
    assert {(one["task_id"], one["job_id"], one["object_key"]) for one in kept} == {
        (task.id, task.job_id, f"generated/{task.id}")
        for task in (*first, *second)
        if task is not lost
    }
    assert await shop.value("SELECT count(*) FROM telegram_message_queue") == 9
    shop.audit_at_end = False


async def test_each_answer_of_a_batch_is_written_to_its_own_row(shop: Shop) -> None:
    """Two customers in one statement: a link at another's row is another's face."""
    for _ in range(2):
        await shop.sold()
    tasks = await _created(shop)
    async with shop.database.transaction() as tx:
        await write_created(tx, _answers(tasks))
        pending = await claim_pending(tx, limit=20, lease_seconds=10)
        answers = [ReadyThere(one, f"at-{one.id}", float(one.id), None) for one in pending]
        await write_ready(tx, answers[::-1])
    rows = await shop.rows(
        "SELECT t.id, t.kie_task_id, t.result_url, a.provider_task_id, a.result_url AS fact, "
        "a.credits::INTEGER FROM kie_tasks t JOIN task_attempts a ON a.id = t.attempt_id"
    )
    assert len(rows) == 14
    for row in rows:
        theirs, link = f"theirs-{row['id']}", f"at-{row['id']}"
        assert (row["kie_task_id"], row["provider_task_id"]) == (theirs, theirs)
        assert (row["result_url"], row["fact"], row["credits"]) == (link, link, row["id"])
    shop.audit_at_end = False


def _picture(task: TaskClaim) -> StoredPicture:
    return StoredPicture(
        object_key=f"generated/{task.id}",
        sha256="a" * 64,
        size_bytes=1,
        content_type="image/jpeg",
        width=1,
        height=1,
    )


async def _begun_behind_a_settlement(shop: Shop, statement: str) -> tuple[set[int], TaskClaim]:
    """Calls are begun while somebody else has their job, and ends one of its tasks. Gives who may call."""
    await shop.sold()
    async with shop.database.transaction() as tx:
        tasks = await claim_queued(tx, provider="scripted", limit=20, lease_seconds=10)

    async def begin() -> set[int]:
        values = {
            "attempts": [task.attempt_id for task in tasks],
            "tokens": [task.token for task in tasks],
            "tasks": [task.id for task in tasks],
            "claims": [task.claim for task in tasks],
        }
        async with shop.database.connection() as tx:
            found = await (await tx.execute(statement.encode(), values)).fetchall()
        return {attempt_id for attempt_id, _ in found}

    async with shop.database.transaction() as tx:
        await tx.execute("SELECT FROM generation_jobs FOR NO KEY UPDATE")
        beginning = asyncio.create_task(begin())
        while not await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)
        ended = tasks[2]
        await fail_task(
            tx,
            task_id=ended.id,
            job_id=ended.job_id,
            claim=ended.claim,
            source="submitting",
            code="DEADLINE",
            text="too late",
        )
    shop.audit_at_end = False
    return await beginning, ended


async def test_a_photo_that_is_given_up_while_its_call_is_begun_is_not_called(shop: Shop) -> None:
    """Its money is on its way back: another generation would be paid for nothing."""
    begun, ended = await _begun_behind_a_settlement(shop, BEGIN_CALLS)
    assert len(begun) == 6
    assert ended.attempt_id not in begun


async def test_twin_without_a_second_look_at_the_tasks_it_would_be_called(shop: Shop) -> None:
    unguarded = BEGIN_CALLS.replace("ORDER BY t.id FOR NO KEY UPDATE OF t", "ORDER BY t.id")
    assert unguarded != BEGIN_CALLS
    begun, ended = await _begun_behind_a_settlement(shop, unguarded)
    assert ended.attempt_id in begun
