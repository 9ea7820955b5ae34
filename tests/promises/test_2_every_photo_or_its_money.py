"""Promise 2: each paid photo ends as delivered or refunded for shortfall, never both, never neither."""

import asyncio
from dataclasses import replace

import pytest

from darkroom.db.database import DatabaseRefusedError
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.read_back import read_job, read_payment
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import (
    Again,
    BadResultError,
    FailedThere,
    GenerationRequest,
    LinkDeadError,
    Refused,
)
from tests.shop import Shop


def _failing(*indexes: int):
    async def on_ask(request: GenerationRequest) -> FailedThere | None:
        if request.prompt_index in indexes:
            return FailedThere("501", "generation failed", Again.LATER)
        return None

    return on_ask


async def test_a_whole_set_is_delivered_and_the_counts_agree(shop: Shop) -> None:
    """bugbook C1, bugbook C6, bugbook C13: photos equal completed tasks, and the job closes by itself."""
    _, job = await shop.sold(tier="standard")
    await shop.drain()
    row = await shop.job(job.id)
    assert (row["status"], row["completed_photos"]) == ("completed", 15)
    assert await shop.value("SELECT count(*) FROM generated_photos") == 15
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    assert len(shop.provider.created) == 15


async def test_what_is_not_delivered_gets_its_share_back(shop: Shop) -> None:
    """bugbook A7, bugbook C10, bugbook D19: 20 of 23 done brought a full refund, with no ledger."""
    shop.provider.on_ask = _failing(0, 6)
    _, job = await shop.sold()
    await shop.drain()
    row = await shop.job(job.id)
    assert (row["status"], row["completed_photos"]) == ("partial", 5)
    lines = await shop.rows(
        "SELECT l.kind, l.amount_minor, t.prompt_index, r.status, r.reason FROM refund_lines l "
        "JOIN kie_tasks t ON t.id = l.task_id JOIN refunds r ON r.id = l.refund_id ORDER BY 3"
    )
    # 49 900 kopeks over 7 photos: five of 7129 hundredths less, by largest remainder.
    assert [(line["kind"], line["amount_minor"]) for line in lines] == [
        ("shortfall", 7129),
        ("shortfall", 7128),
    ]
    assert {(line["status"], line["reason"]) for line in lines} == {("succeeded", "shortfall")}
    letters = await shop.rows("SELECT error_code FROM generation_dead_letter_queue")
    assert [letter["error_code"] for letter in letters] == ["501", "501"]


async def test_under_the_threshold_the_whole_price_goes_back(shop: Shop) -> None:
    shop.provider.on_ask = _failing(0, 1, 2)
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "partial"
    refunds = await shop.rows("SELECT amount_minor, reason FROM refunds")
    assert refunds == [{"amount_minor": 49900, "reason": "below_threshold"}]
    kinds = await shop.rows("SELECT kind, count(*) AS n FROM refund_lines GROUP BY 1 ORDER BY 1")
    assert kinds == [{"kind": "goodwill", "n": 4}, {"kind": "shortfall", "n": 3}]


async def test_exactly_at_the_threshold_the_shares_go_back(shop: Shop) -> None:
    """70 % of 20 photos are 14: a policy of 70 % keeps the rest of the price."""
    customer = await shop.customer()
    async with shop.database.connection() as tx:
        await tx.execute("UPDATE tiers SET photo_count = 20 WHERE id = 'standard'")
    await shop.paid(customer, tier="standard")
    shop.provider.on_ask = _failing(0, 1, 2, 3, 4, 5)
    await shop.start(customer)
    await shop.drain()
    reasons = await shop.rows("SELECT reason FROM refunds")
    assert reasons == [{"reason": "shortfall"}]


async def test_when_nothing_comes_the_job_fails_and_all_goes_back(shop: Shop) -> None:
    shop.provider.on_ask = _failing(*range(7))
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "failed"
    assert await shop.value("SELECT sum(amount_minor) FROM refunds") == 49900


async def test_a_free_set_owes_nothing(shop: Shop) -> None:
    """bugbook A24: what an operator gave away was found by no start."""
    customer = await shop.customer()
    request = shop.request(customer)
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=request.request_id
    )
    shop.provider.on_ask = _failing(0)
    await shop.start(customer)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM refunds") == 0


async def test_a_failure_there_is_tried_again_before_it_counts(shop: Shop) -> None:
    """bugbook B8: one transient error made a photo fail for ever."""
    failures: dict[int, int] = {}

    async def fails_twice(request: GenerationRequest) -> FailedThere | None:
        failures[request.task_id] = failures.get(request.task_id, 0) + 1
        if failures[request.task_id] <= 2:
            return FailedThere("500", "try again", Again.LATER)
        return None

    shop.provider.on_ask = fails_twice
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    numbers = await shop.rows(
        "SELECT number, end_state, count(*) AS n FROM task_attempts GROUP BY 1, 2"
    )
    assert {(row["number"], row["end_state"]): row["n"] for row in numbers} == {
        (1, "failed"): 7,
        (2, "failed"): 7,
        (3, "succeeded"): 7,
    }


async def test_a_refusal_for_good_ends_at_once(shop: Shop) -> None:
    async def refuse(request: GenerationRequest) -> Refused | None:
        if request.prompt_index == 3:
            return Refused("400", "against the rules", Again.NEVER)
        return None

    shop.provider.on_create = refuse
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["completed_photos"] == 6
    assert await shop.value("SELECT count(*) FROM task_attempts") == 7


async def test_being_told_to_wait_burns_no_attempt(shop: Shop) -> None:
    """bugbook B8, bugbook C18: 429 and an empty account are no failures of a photo."""
    answers = [Refused("429", "slow", Again.LATER, 3.0)] * 10
    answers += [Refused("402", "no credit", Again.PAUSED)] * 10

    async def refuse(_request: GenerationRequest) -> Refused | None:
        return answers.pop() if answers else None

    shop.provider.on_create = refuse
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_dead_link_buys_another_generation(shop: Shop) -> None:
    """bugbook C15: a failed upload fell back to the provider's dying address."""
    dead: set[int] = set()

    async def on_fetch(request: GenerationRequest) -> bytes | None:
        if request.task_id not in dead:
            dead.add(request.task_id)
            raise LinkDeadError
        return None

    shop.provider.on_fetch = on_fetch
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 14


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff\xe0 not really"])
async def test_what_is_no_picture_is_never_stored(shop: Shop, data: bytes) -> None:
    async def on_fetch(request: GenerationRequest) -> bytes | None:
        return data if request.prompt_index == 0 else None

    shop.provider.on_fetch = on_fetch
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["completed_photos"] == 6
    codes = await shop.rows("SELECT error_code FROM generation_dead_letter_queue")
    assert codes == [{"error_code": "BAD_RESULT"}]


async def test_past_its_deadline_a_job_settles_with_what_it_has(shop: Shop) -> None:
    """bugbook C5, bugbook C9: open tasks stayed open, and their photos came after the refund."""

    async def never(request: GenerationRequest) -> bytes | None:
        if request.prompt_index >= 5:
            raise BadResultError("not yet")
        return None

    shop.provider.on_fetch = never
    patient = shop.darkroom.limits.model_copy(update={"bad_results_max": 10**6})
    shop.darkroom = replace(shop.darkroom, limits=patient)
    _, job = await shop.sold()
    await shop.drain()
    row = await shop.job(job.id)
    assert (row["status"], row["completed_photos"]) == ("partial", 5)
    assert set(await shop.statuses()) == {"completed", "failed"}
    codes = await shop.rows("SELECT DISTINCT error_code FROM generation_dead_letter_queue")
    assert codes == [{"error_code": "DEADLINE"}]


async def test_a_photo_after_its_refund_is_kept_apart(shop: Shop) -> None:
    """The provider delivers while the deadline passes: never delivered and paid back."""
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    all_fetching = asyncio.Barrier(7)

    async def slow(request: GenerationRequest) -> bytes | None:
        await all_fetching.wait()
        if request.prompt_index == 0:
            await shop.advance(4000)
            await finish_due_jobs(shop.darkroom)
        await all_fetching.wait()
        return None

    shop.provider.on_fetch = slow
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "failed"
    assert await shop.value("SELECT count(*) FROM generated_photos") == 0
    assert await shop.value("SELECT count(*) FROM late_photos") == 7
    assert await shop.value("SELECT sum(amount_minor) FROM refund_lines") == 49900


async def test_the_database_refuses_delivered_and_paid_back(shop: Shop) -> None:
    """bugbook D2: a part went back twice, and then the whole price on top of it."""
    shop.provider.on_ask = _failing(0)
    _, job = await shop.sold()
    await shop.drain()
    photo = (await shop.rows("SELECT * FROM generated_photos LIMIT 1"))[0]
    failed = await shop.value("SELECT id FROM kie_tasks WHERE status = 'failed'")
    refund = await shop.value("SELECT id FROM refunds")
    payment = await shop.value("SELECT payment_id FROM generation_jobs WHERE id = %s", job.id)
    line = (
        "INSERT INTO refund_lines (refund_id, payment_id, kind, task_id, task_status, amount_minor) "
        "VALUES (%s, %s, 'shortfall', %s, 'failed', 1)"
    )
    photo_of_failed = (
        "INSERT INTO generated_photos (job_id, task_id, attempt_id, avatar_id, style_id, prompt, "
        "object_key, sha256, size_bytes, content_type, width, height) SELECT job_id, %s, attempt_id, "
        "avatar_id, style_id, prompt, 'generated/x', sha256, 1, 'image/jpeg', 1, 1 "
        "FROM generated_photos LIMIT 1"
    )
    too_much = (
        "INSERT INTO refund_lines (refund_id, payment_id, kind, amount_minor) "
        "VALUES (%s, %s, 'goodwill', 49900)"
    )
    refused = (
        # a shortfall line for a delivered photo
        (line, [refund, payment, photo["task_id"]]),
        # a second line for the same photo
        (line, [refund, payment, failed]),
        # a photo for a failed task, whose money is going back
        (
            photo_of_failed,
            [failed],
        ),
        # replaying a task whose money is going back
        ("UPDATE kie_tasks SET status = 'queued' WHERE id = %s", [failed]),
        # un-completing a delivered photo's task
        ("UPDATE kie_tasks SET status = 'failed' WHERE id = %s", [photo["task_id"]]),
        # more back than was paid
        (
            too_much,
            [refund, payment],
        ),
        # another amount for what was bought
        ("UPDATE payments SET amount_minor = 1 WHERE id = %s", [payment]),
    )
    for statement, params in refused:
        with pytest.raises(DatabaseRefusedError):
            async with shop.database.transaction() as tx:
                await tx.execute(statement.encode(), params)


async def test_a_set_that_nothing_ever_moved_is_paid_back_at_its_deadline(shop: Shop) -> None:
    """bugbook B10: the queue gave up, and what it was to call could not read its own message."""
    _, job = await shop.sold()
    await shop.advance(3601)
    for _ in range(2):
        await asyncio.gather(*(finish_due_jobs(shop.darkroom) for _ in range(3)))
    assert (await shop.job(job.id))["status"] == "failed"
    refunds = await shop.rows("SELECT payment_id, amount_minor, status FROM refunds")
    assert refunds == [{"payment_id": job.payment_id, "amount_minor": 49900, "status": "requested"}]
    assert await shop.value("SELECT count(*) FROM refund_lines") == 7
    await shop.drain()
    assert shop.provider.created == {}


async def test_a_settlement_cut_short_writes_no_refund_and_the_next_one_writes_one(
    shop: Shop,
) -> None:
    """bugbook C21: the refund came first, the job's status later; a crash in between paid twice."""
    shop.provider.on_ask = _failing(0, 6)
    _, job = await shop.sold()

    class DiesError(Exception):
        pass

    async def die(name: str) -> None:
        if name == "finish.before_commit":
            raise DiesError

    with checkpoints_handled_by(die):
        for _ in range(30):
            await shop.round()
            await shop.advance(30)
    assert set(await shop.statuses()) == {"completed", "failed"}
    assert (await shop.job(job.id))["status"] == "processing"
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    await shop.advance(60)
    await asyncio.gather(*(finish_due_jobs(shop.darkroom) for _ in range(6)))
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "partial"
    assert await shop.value("SELECT count(*) FROM refunds") == 1
    assert await shop.value("SELECT count(*) FROM refund_lines") == 2


async def test_what_goes_back_is_of_the_payment_whose_photos_failed(shop: Shop) -> None:
    """bugbook D1: the newest payment of the avatar was paid back, and then the one before it."""
    customer, _ = await shop.sold()
    await shop.drain()
    shop.provider.on_ask = _failing(0, 6)
    bad = await shop.paid(customer)
    await shop.start(customer)
    await shop.drain()
    shop.provider.on_ask = None
    await shop.paid(customer)
    await shop.start(customer)
    unused = await shop.paid(customer)
    await shop.drain()
    rows = await shop.rows(
        "SELECT DISTINCT r.payment_id, l.payment_id AS of_line, j.payment_id AS of_job FROM refunds r "
        "JOIN refund_lines l ON l.refund_id = r.id JOIN generation_jobs j ON j.id = r.job_id"
    )
    assert rows == [{"payment_id": bad, "of_line": bad, "of_job": bad}]
    reserved = await shop.rows("SELECT id FROM payments WHERE refund_reserved_minor > 0")
    assert reserved == [{"id": bad}]
    assert (await shop.start(customer)).payment_id == unused
    await shop.drain()


async def test_money_on_its_way_back_is_not_called_back(shop: Shop) -> None:
    """bugbook D6: "refund issued" was written whatever the bank had said."""

    async def refuse(request: GenerationRequest) -> FailedThere | None:
        refused = request.prompt_index in (0, 6)
        return FailedThere("400", "no", Again.NEVER) if refused else None

    shop.provider.on_ask = refuse
    customer, job = await shop.sold()
    for step in ("submit", "poll", "collect", "finish"):
        await shop.step(step)
    who = {"user_id": customer.user_id}
    payment = await read_payment(shop.darkroom, **who, payment_id=job.payment_id)
    assert (payment.status, payment.refunded_minor) == ("succeeded", 0)
    assert payment.refund_reserved_minor == 7129 + 7128
    view = await read_job(shop.darkroom, **who, job_id=job.id)
    assert (view.job.refunding_minor, view.job.refunded_minor) == (7129 + 7128, 0)
    await shop.drain()
    view = await read_job(shop.darkroom, **who, job_id=job.id)
    assert (view.job.refunding_minor, view.job.refunded_minor) == (0, 7129 + 7128)
