"""Sets that have all their photos end together, by one statement; every other one by itself."""

import asyncio

import pytest

from darkroom.core import settle_jobs
from darkroom.core.audit import run_audit
from darkroom.core.jobs import JobClaim, claim_due_jobs
from darkroom.core.settle_jobs import settle_job, settle_whole_jobs
from darkroom.flow import finish_jobs
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.steps import WORK_STEPS
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.shop import Customer, Shop


async def made(shop: Shop, sets: int, customer: Customer | None = None) -> list[int]:
    """So many sets whose photos are all decided, and which nobody has settled; their ids."""
    jobs: list[int] = []
    for _ in range(sets):
        buyer = customer or await shop.customer()
        await shop.paid(buyer)
        jobs.append((await shop.start(buyer)).id)
    steps = [step.run for step in WORK_STEPS if step.name != "finish"]
    while set(await shop.statuses()) - {"completed", "failed"}:
        for run in steps:
            await run(shop.darkroom)
        await shop.advance(5)
    return jobs


async def claims(shop: Shop) -> list[JobClaim]:
    async with shop.database.connection() as tx:
        return await claim_due_jobs(tx, limit=20, lease_seconds=30)


async def settle(shop: Shop, jobs: list[JobClaim]) -> list[int]:
    async with shop.database.connection() as tx:
        return [one.job_id for one in await settle_whole_jobs(tx, jobs)]


async def states(shop: Shop, jobs: list[int]) -> list[str]:
    return [(await shop.job(job))["status"] for job in jobs]


async def made_with_one_lacking(shop: Shop) -> tuple[int, int]:
    """A whole set, and one that lacks a photo."""
    _, whole = await shop.sold()
    _, lacks = await shop.sold()
    refused = await shop.value(
        "SELECT id FROM kie_tasks WHERE job_id = %s AND prompt_index = 3", lacks.id
    )

    async def refuse(request: GenerationRequest) -> FailedThere | None:
        is_it = request.task_id == refused
        return FailedThere("501", "generation failed", Again.NEVER) if is_it else None

    shop.provider.on_ask = refuse
    await made(shop, 0)
    return whole.id, lacks.id


async def test_all_that_are_due_end_by_one_statement_and_nothing_goes_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def alone(*_: object, **__: object) -> None:
        raise AssertionError("a whole set was settled by itself")

    monkeypatch.setattr(finish_jobs, "settle_job", alone)
    jobs = await made(shop, 3)
    assert await finish_due_jobs(shop.darkroom) == 3
    assert await states(shop, jobs) == ["completed"] * 3
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    assert await shop.value("SELECT count(*) FROM funnel_steps WHERE step = 'got'") == 3
    assert await shop.value(
        "SELECT bool_and(lease_until IS NULL AND finished_at IS NOT NULL) FROM generation_jobs"
    )
    assert await finish_due_jobs(shop.darkroom) == 0


async def test_the_set_beside_them_that_lacks_a_photo_gets_its_money(shop: Shop) -> None:
    whole, lacks = await made_with_one_lacking(shop)
    assert await finish_due_jobs(shop.darkroom) == 2
    assert await states(shop, [whole, lacks]) == ["completed", "partial"]
    assert await shop.value("SELECT count(*) FROM funnel_steps WHERE step = 'got'") == 2
    assert await shop.rows("SELECT job_id, reason FROM refunds") == [
        {"job_id": lacks, "reason": "shortfall"}
    ]


async def test_twin_without_the_look_at_each_photo_its_money_is_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: the set that lacks a photo ends as whole, and the audit says so."""
    broken = settle_jobs.SETTLE_WHOLE_JOBS.replace("bool_and(", "bool_or(")
    assert broken != settle_jobs.SETTLE_WHOLE_JOBS
    monkeypatch.setattr(settle_jobs, "SETTLE_WHOLE_JOBS", broken)
    jobs = await made_with_one_lacking(shop)
    await finish_due_jobs(shop.darkroom)
    assert await states(shop, list(jobs)) == ["completed", "completed"]
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    assert not (await run_audit(shop.database)).clean
    shop.audit_at_end = False


async def test_an_open_photo_keeps_its_set_open(shop: Shop) -> None:
    _, job = await shop.sold()
    await shop.rows("UPDATE generation_jobs SET due_at = darkroom_now() RETURNING id")
    await shop.step("submit")
    assert await finish_due_jobs(shop.darkroom) == 1
    assert await states(shop, [job.id]) == ["processing"]
    await shop.drain()


async def test_who_lost_the_lease_ends_nothing(shop: Shop) -> None:
    jobs = await made(shop, 2)
    late = await claims(shop)
    await shop.advance(31)
    now = await claims(shop)
    assert await settle(shop, late) == []
    assert await states(shop, jobs) == ["processing"] * 2
    assert await settle(shop, now) == jobs


async def test_twin_without_the_fence_the_late_one_ends_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: the claim's number."""
    broken = settle_jobs.SETTLE_WHOLE_JOBS.replace("j.claim = mine.claim AND ", "")
    assert broken != settle_jobs.SETTLE_WHOLE_JOBS
    monkeypatch.setattr(settle_jobs, "SETTLE_WHOLE_JOBS", broken)
    jobs = await made(shop, 2)
    late = await claims(shop)
    await shop.advance(31)
    await claims(shop)
    assert await settle(shop, late) == jobs


async def test_nobody_is_waited_for_with_others_in_hand(shop: Shop) -> None:
    """One that somebody holds is passed over; the others end."""
    jobs = await made(shop, 3)
    mine = await claims(shop)
    async with shop.database.transaction() as tx:
        await tx.execute("SELECT FROM generation_jobs WHERE id = %s FOR NO KEY UPDATE", [jobs[1]])
        assert await settle(shop, mine) == [jobs[0], jobs[2]]
    async with shop.database.transaction() as tx:
        alone = await settle_job(tx, mine[[one.id for one in mine].index(jobs[1])], whole_only=[])
    assert alone is not None
    assert alone.status == "completed"


async def test_one_that_the_database_refuses_does_not_hold_the_others(shop: Shop) -> None:
    jobs = await made(shop, 3)
    async with shop.database.connection() as tx:
        await tx.execute(
            "CREATE FUNCTION refuse_one() RETURNS TRIGGER LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END $$"
        )
        await tx.execute(
            f"CREATE TRIGGER refuse_one BEFORE UPDATE OF status ON generation_jobs FOR EACH ROW "
            f"WHEN (NEW.id = {jobs[1]:d}) EXECUTE FUNCTION refuse_one()".encode()
        )
    await finish_due_jobs(shop.darkroom)
    assert await states(shop, jobs) == ["completed", "processing", "completed"]
    async with shop.database.connection() as tx:
        await tx.execute("DROP TRIGGER refuse_one ON generation_jobs")
    await shop.advance(31)
    await finish_due_jobs(shop.darkroom)
    assert await states(shop, jobs) == ["completed"] * 3


async def test_two_sets_of_one_person_at_once_are_one_first_time(shop: Shop) -> None:
    jobs = await made(shop, 2, await shop.customer())
    first, second = await claims(shop)
    together, alone = await asyncio.gather(settle(shop, [first]), settle(shop, [second]))
    assert sorted(together + alone) == sorted(jobs)
    assert await shop.value("SELECT count(*) FROM funnel_steps WHERE step = 'got'") == 1
