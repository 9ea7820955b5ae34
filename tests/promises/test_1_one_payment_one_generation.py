"""Promise 1: a succeeded payment starts at most one job, and a consumed payment always has its job."""

import asyncio
import dataclasses
from collections import Counter
from uuid import uuid4

import pytest

from darkroom.core import jobs, requests
from darkroom.core.jobs import StartedJob
from darkroom.db.database import DatabaseRefusedError, RowBusyError
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.receive import receive_payment_notice
from darkroom.flow.start_generation import start_generation
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.money import shares as split
from tests.scripted import ScriptedBank, picture_of
from tests.shop import Customer, Shop

RIVALS = 200


async def _race(
    shop: Shop, customer: Customer, count: int
) -> tuple[list[StartedJob], Counter[str]]:
    async def one() -> StartedJob | str:
        try:
            return await start_generation(shop.darkroom, shop.request(customer))
        except RequestRefusedError as error:
            return error.code
        except RowBusyError:
            return "BUSY"

    answers = await asyncio.gather(*(one() for _ in range(count)))
    won = [answer for answer in answers if isinstance(answer, StartedJob)]
    return won, Counter(answer for answer in answers if isinstance(answer, str))


async def test_of_200_requests_on_one_payment_one_wins(shop: Shop) -> None:
    """bugbook A1: two parallel requests on one payment made two jobs."""
    customer = await shop.customer()
    await shop.paid(customer)
    won, refused = await _race(shop, customer, RIVALS)
    assert len(won) == 1
    assert refused == {"PAYMENT_CONSUMED": RIVALS - 1}
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    assert await shop.value("SELECT count(*) FROM kie_tasks") == 7


async def test_five_payments_and_200_requests_are_five_jobs_with_different_prompts(
    shop: Shop,
) -> None:
    """bugbook C12: a second set of the same style chose the same prompts, and its photos vanished."""
    customer = await shop.customer()
    for _ in range(3):
        await shop.paid(customer, tier="starter")
    won, _ = await _race(shop, customer, RIVALS)
    assert len(won) == 3
    rows = await shop.rows("SELECT prompt_id, count(*) AS times FROM kie_tasks GROUP BY 1")
    # 21 photos of a style with 23 prompts: none is had twice.
    assert {row["times"] for row in rows} == {1}
    for _ in range(2):
        await shop.paid(customer, tier="starter")
    won, _ = await _race(shop, customer, RIVALS)
    assert len(won) == 2
    # 35 photos of 23 prompts: each at least once before any comes again, and again with another seed.
    rows = await shop.rows(
        "SELECT prompt_id, count(*) AS times, count(DISTINCT seed) AS seeds FROM kie_tasks GROUP BY 1"
    )
    assert len(rows) == 23
    assert {row["times"] for row in rows} == {1, 2}
    assert all(row["times"] == row["seeds"] for row in rows)
    assert await shop.value("SELECT count(DISTINCT payment_id) FROM generation_jobs") == 5


async def test_when_the_winner_rolls_back_the_second_wins(shop: Shop) -> None:
    customer = await shop.customer()
    await shop.paid(customer)
    won = await _race_with_a_winner_that_rolls_back(shop, customer)
    assert [type(answer) for answer in won] == [StartedJob]


async def test_twin_skip_locked_tells_a_false_consumed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: with SKIP LOCKED the loser is sent away although the winner rolls back."""
    broken = jobs.CLAIM_PAYMENT.replace("LIMIT 1\n)", "LIMIT 1 FOR UPDATE OF p SKIP LOCKED\n)", 1)
    assert broken != jobs.CLAIM_PAYMENT
    monkeypatch.setattr(jobs, "CLAIM_PAYMENT", broken)
    monkeypatch.setattr(requests, "LOCK_USER", "SELECT FALSE")
    customer = await shop.customer()
    await shop.paid(customer)
    second = await _race_with_a_winner_that_rolls_back(shop, customer)
    assert not any(isinstance(answer, StartedJob) for answer in second), "the twin must fail"


async def _race_with_a_winner_that_rolls_back(
    shop: Shop, customer: Customer
) -> list[StartedJob | RequestRefusedError]:
    """The first holds its claim until the second waits for it (or has been sent away), then rolls back."""
    holding = asyncio.Event()
    let_go = asyncio.Event()
    first_task: asyncio.Task[StartedJob] | None = None

    class WinnerDiesError(Exception):
        pass

    async def at(name: str) -> None:
        if name == "start.before_commit" and asyncio.current_task() is first_task:
            holding.set()
            await let_go.wait()
            raise WinnerDiesError

    async def second() -> StartedJob | RequestRefusedError:
        try:
            return await start_generation(shop.darkroom, shop.request(customer))
        except RequestRefusedError as error:
            return error

    with checkpoints_handled_by(at):
        first_task = asyncio.create_task(start_generation(shop.darkroom, shop.request(customer)))
        await holding.wait()
        second_task = asyncio.create_task(second())
        await _until_waiting_or_done(shop, second_task)
        let_go.set()
        with pytest.raises(WinnerDiesError):
            await first_task
        return [await second_task]


async def _until_waiting_or_done(shop: Shop, task: asyncio.Task[object]) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(10):
        while not task.done() and not await shop.value(waiting):
            await asyncio.sleep(0)


async def test_twin_lock_inside_the_statement_chooses_the_same_prompts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: a lock taken inside the statement works on a snapshot from before the wait."""
    customer = await shop.customer()
    assert await _race_two_payments(shop, customer) == 14

    locked_inside = jobs.CLAIM_PAYMENT.replace(
        "WITH chosen AS (",
        "WITH locked AS MATERIALIZED (SELECT id FROM users WHERE id = %(user_id)s FOR NO KEY UPDATE),\n"
        "chosen AS (",
        1,
    ).replace(
        "FROM payments p\n    JOIN refund", "FROM locked CROSS JOIN payments p\n    JOIN refund", 1
    )
    assert locked_inside.count("locked") == 2
    monkeypatch.setattr(jobs, "CLAIM_PAYMENT", locked_inside)
    monkeypatch.setattr(requests, "LOCK_USER", "SELECT FALSE")
    other = await shop.customer()
    assert await _race_two_payments(shop, other) < 14, "the twin must fail"


async def _race_two_payments(shop: Shop, customer: Customer) -> int:
    """Two claims at once on two payments; returns how many different prompts were chosen for 14 photos."""
    payments = [await shop.paid(customer), await shop.paid(customer)]
    holding, let_go = asyncio.Event(), asyncio.Event()
    first: asyncio.Task[StartedJob] | None = None

    async def at(name: str) -> None:
        if name == "start.before_commit" and asyncio.current_task() is first:
            holding.set()
            await let_go.wait()

    with checkpoints_handled_by(at):
        first = asyncio.create_task(shop.start(customer, payment_id=payments[0]))
        await holding.wait()
        second = asyncio.create_task(shop.start(customer, payment_id=payments[1]))
        await _until_waiting_or_done(shop, second)
        let_go.set()
        await asyncio.gather(first, second)
    return await shop.value(
        "SELECT count(DISTINCT prompt_id) FROM kie_tasks WHERE avatar_id = %s", customer.avatar_id
    )


async def test_a_request_that_waits_too_long_is_told_to_come_back(shop: Shop) -> None:
    """Never a false PAYMENT_CONSUMED: whoever holds the lock may still roll back."""
    customer = await shop.customer()
    await shop.paid(customer)
    async with shop.database.transaction() as other:
        await other.execute("SELECT FROM users WHERE id = %s FOR UPDATE", [customer.user_id])
        limits = shop.darkroom.limits.model_copy(update={"lock_timeout_ms": 50})
        impatient = dataclasses.replace(shop.darkroom, limits=limits)
        with pytest.raises(RowBusyError):
            await start_generation(impatient, shop.request(customer))
    assert (await shop.start(customer)).total_photos == 7


async def test_the_photo_count_and_the_shares_are_the_payments(shop: Shop) -> None:
    """bugbook A5, bugbook A6, bugbook A7: pays for 7, receives 23; pays for 23, gets fewer."""
    for tier, count, amount in (
        ("starter", 7, 49900),
        ("standard", 15, 99900),
        ("premium", 23, 149900),
    ):
        customer = await shop.customer()
        await shop.paid(customer, tier=tier)
        job = await shop.start(customer)
        assert job.total_photos == count
        shares = await shop.rows(
            "SELECT share_minor FROM kie_tasks WHERE job_id = %s ORDER BY prompt_index", job.id
        )
        assert [row["share_minor"] for row in shares] == split(amount, count)


async def test_a_payment_bound_to_another_avatar_is_never_taken(shop: Shop) -> None:
    """bugbook A9: the newest payment was burned, whatever it was bought for."""
    customer = await shop.customer()
    other = await shop.customer(customer.telegram_user_id)
    await shop.paid(other, order_style="signature")
    with pytest.raises(RequestRefusedError, match="PAYMENT_REQUIRED"):
        await shop.start(customer)
    unbound = await shop.paid(customer)
    await shop.paid(other, order_style="signature")
    assert (await shop.start(customer)).payment_id == unbound


async def test_the_newest_unbound_payment_is_taken_first(shop: Shop) -> None:
    customer = await shop.customer()
    older = await shop.paid(customer)
    newer = await shop.paid(customer)
    assert (await shop.start(customer)).payment_id == newer
    assert (await shop.start(customer)).payment_id == older


async def test_every_photo_knows_which_take_of_its_prompt_it_is(shop: Shop) -> None:
    """Photos 10 and 19 of a set of a nine-prompt style were photo 1 again; a failed one is no take."""
    customer = await shop.customer()
    query = "SELECT prompt_id, take, place FROM kie_tasks WHERE job_id = %s ORDER BY prompt_index"

    async def fail_the_last(request: GenerationRequest) -> FailedThere | None:
        failed = request.prompt_index == 14
        return FailedThere("501", "no", Again.NEVER) if failed else None

    shop.provider.on_ask = fail_the_last
    await shop.paid(customer, tier="standard")
    first = await shop.rows(query, (await shop.start(customer, style="lifestyle")).id)
    assert [(row["take"], row["place"]) for row in first] == [divmod(i, 9) for i in range(15)]
    await shop.drain()
    await shop.paid(customer, tier="starter")
    second = await shop.rows(query, (await shop.start(customer, style="lifestyle")).id)
    assert [(row["take"], row["place"]) for row in second] == [divmod(i, 9) for i in range(14, 21)]
    shown = [(row["prompt_id"], row["take"]) for row in [*first[:14], *second]]
    assert len(set(shown)) == 21


async def test_the_claim_is_short_enough_to_be_remembered() -> None:
    """psycopg parses a longer text anew each time."""
    assert len(jobs.CLAIM_PAYMENT) <= 4096


async def test_a_second_set_is_never_smaller_than_paid_for(shop: Shop) -> None:
    """bugbook A7, bugbook A8: unused prompts ran out after the payment."""
    customer = await shop.customer()
    seeds: set[tuple[str, int]] = set()
    for _ in range(3):
        await shop.paid(customer, tier="premium")
        job = await shop.start(customer, style="professional")
        assert job.total_photos == 23
        rows = await shop.rows("SELECT prompt, seed FROM kie_tasks WHERE job_id = %s", job.id)
        pairs = {(row["prompt"], row["seed"]) for row in rows}
        assert len(pairs) == 23
        assert not pairs & seeds
        seeds |= pairs


async def test_an_idempotency_key_gives_the_same_job_and_refuses_another_body(shop: Shop) -> None:
    customer = await shop.customer()
    await shop.paid(customer)
    await shop.paid(customer)
    answers = await asyncio.gather(
        *(start_generation(shop.darkroom, shop.request(customer, key="k")) for _ in range(20))
    )
    assert len({job.id for job in answers}) == 1
    with pytest.raises(RequestRefusedError, match="IDEMPOTENCY_KEY_REUSED"):
        await start_generation(shop.darkroom, shop.request(customer, key="k", style="creative"))
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE avatars SET deleted_at = darkroom_now()", "AVATAR_NOT_FOUND"),
        ("UPDATE reference_photos SET deleted_at = darkroom_now()", "NO_REFERENCE_IMAGES"),
        ("UPDATE styles SET is_active = FALSE", "STYLE_NOT_FOUND"),
        ("UPDATE prompts SET is_active = FALSE", "STYLE_NOT_FOUND"),
    ],
)
async def test_what_is_wrong_is_said_before_anything_is_consumed(
    shop: Shop, change: str, code: str
) -> None:
    """bugbook A3, bugbook A20, bugbook A21: a rejected request left a consumed payment or a stray avatar."""
    customer = await shop.customer()
    await shop.paid(customer)
    async with shop.database.connection() as tx:
        await tx.execute(change.encode())
    before = await shop.rows("SELECT * FROM avatars")
    with pytest.raises(RequestRefusedError, match=code):
        await shop.start(customer)
    assert await shop.value("SELECT count(*) FROM payments WHERE generation_consumed") == 0
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0
    assert await shop.rows("SELECT * FROM avatars") == before


async def _only_severe(shop: Shop) -> Customer:
    """Whose one selfie nothing good comes of."""
    customer = await shop.customer()
    await shop.rows(
        "UPDATE reference_photos SET verdict = jsonb_set(verdict, '{severe}', '[\"FACE_CUT\"]') RETURNING id"
    )
    return customer


async def test_selfies_that_nothing_can_be_made_of_are_refused_before_they_are_paid_for(
    shop: Shop,
) -> None:
    """The studio makes nothing of them: all was paid back, and the seller bore the bank's fee."""
    shop.provider.needs_good_selfie = True
    customer = await _only_severe(shop)
    with pytest.raises(RequestRefusedError, match="NO_GOOD_SELFIE"):
        await shop.ordered(customer, order_style="signature")
    await shop.paid(customer)
    with pytest.raises(RequestRefusedError, match="NO_GOOD_SELFIE"):
        await shop.start(customer)
    assert await shop.value("SELECT count(*) FROM payments WHERE generation_consumed") == 0
    # One good one beside them is enough: the studio takes that.
    await add_selfie(shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(7))
    assert (await shop.start(customer)).total_photos == 7
    await shop.drain()


async def test_a_provider_that_judges_for_itself_gets_them_all_the_same(shop: Shop) -> None:
    customer = await _only_severe(shop)
    await shop.paid(customer)
    await shop.start(customer)
    await shop.drain()


async def test_a_job_that_cannot_be_inserted_leaves_its_payment_unspent(shop: Shop) -> None:
    """bugbook A2, bugbook A3: the payment was consumed, the insert failed, and nobody took the one back."""
    customer = await shop.customer()
    await shop.paid(customer)
    for table in ("generation_jobs", "kie_tasks"):
        async with shop.database.connection() as tx:
            await tx.execute(
                f"ALTER TABLE {table} ADD CONSTRAINT broken CHECK (FALSE) NOT VALID".encode()
            )
        with pytest.raises(DatabaseRefusedError):
            await shop.start(customer)
        assert await shop.value("SELECT count(*) FROM payments WHERE generation_consumed") == 0
        assert await shop.value("SELECT count(*) FROM generation_jobs") == 0
        async with shop.database.connection() as tx:
            await tx.execute(f"ALTER TABLE {table} DROP CONSTRAINT broken".encode())
    assert (await shop.start(customer)).total_photos == 7


async def test_money_is_money_whichever_way_it_was_paid(shop: Shop) -> None:
    """bugbook A11: whoever paid in Stars was told to pay, because the start asked for one provider's money."""
    customer = await shop.customer()
    stars = ScriptedBank(name="stars", currency="XTR")
    shop.darkroom = dataclasses.replace(
        shop.darkroom, payments={**shop.darkroom.payments, "stars": stars}
    )
    wish = OrderRequest(customer.user_id, "starter", "stars", None, None, None, uuid4())
    payment = await order_photos(shop.darkroom, wish)
    await receive_payment_notice(
        shop.darkroom,
        provider_name="stars",
        headers={"signed": "yes"},
        body=f"{payment.id} paid e1".encode(),
    )
    await take_due_notices(shop.darkroom)
    job = await shop.start(customer)
    assert (job.payment_id, job.total_photos) == (payment.id, 7)
    assert await shop.value("SELECT sum(share_minor) FROM kie_tasks") == 99
    await shop.drain()


async def test_a_checkout_left_open_beside_a_spent_payment_still_starts_its_set(
    shop: Shop,
) -> None:
    """bugbook A17: the page saw "paid once", tried too early, was refused, and forgot the order."""
    customer, first = await shop.sold()
    await shop.drain()
    payment_id = await shop.ordered(customer, order_style="creative")
    for _ in range(3):
        with pytest.raises(RequestRefusedError, match="PAYMENT_CONSUMED") as refusal:
            await shop.start(customer)
        assert refusal.value.details["jobId"] == first.id
    await shop.notify(payment_id)
    await shop.drain()
    jobs = await shop.rows("SELECT payment_id, status FROM generation_jobs ORDER BY id")
    assert jobs[1:] == [{"payment_id": payment_id, "status": "completed"}]
