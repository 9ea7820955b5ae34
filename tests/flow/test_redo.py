"""A photo made again: once, as the policy of its own payment allows, and never for money."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from darkroom.core.audit import run_audit
from darkroom.core.redoes import RedoRequest, StartedRedo, start_redo
from darkroom.db.database import DatabaseRefusedError
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.forget_me import forget_me
from darkroom.flow.gather_evidence import gather_evidence
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.hand_out_photos import find_photo_file
from darkroom.flow.pay_back import GoodwillRequest, pay_back
from darkroom.flow.read_back import read_photos
from darkroom.flow.redo_photo import redo_photo, redos_left
from darkroom.flow.replay_letters import read_dead_letters, replay_letters
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.shop import Customer, Shop


async def _photos(shop: Shop) -> list[int]:
    return [row["id"] for row in await shop.rows("SELECT id FROM generated_photos ORDER BY id")]


async def _redo(
    shop: Shop, customer: Customer, photo_id: int, request_id: UUID | None = None
) -> StartedRedo:
    return await redo_photo(
        shop.darkroom,
        user_id=customer.user_id,
        photo_id=photo_id,
        request_id=request_id or uuid4(),
    )


async def _refusal(shop: Shop, customer: Customer, photo_id: int) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as refused:
        await _redo(shop, customer, photo_id)
    return refused.value


async def test_a_photo_is_made_again_with_the_same_prompt_and_another_seed(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    photo_id = (await _photos(shop))[2]
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 1
    redo = await _redo(shop, customer, photo_id)
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 0
    view = await _view(shop, customer, photo_id)
    assert view == (redo.job_id, "pending")
    (payment,) = await shop.rows("SELECT * FROM payments WHERE id = %s", redo.payment_id)
    assert (payment["provider"], payment["amount_minor"], payment["photo_count"]) == ("grant", 0, 1)
    assert payment["redoes_photo_id"] == photo_id
    await shop.drain()
    assert (await shop.job(redo.job_id))["status"] == "completed"
    first, again = await shop.rows(
        "SELECT t.prompt_id, t.prompt, t.seed, t.avatar_id, t.style_id, t.share_minor FROM kie_tasks t "
        "LEFT JOIN generated_photos p ON p.task_id = t.id WHERE p.id = %s OR t.job_id = %s ORDER BY t.id",
        photo_id,
        redo.job_id,
    )
    assert first.pop("seed") != again.pop("seed")
    assert (first.pop("share_minor"), again.pop("share_minor")) != (0, 0)
    assert first == again
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    for payment_id, other in ((job.payment_id, redo.payment_id), (redo.payment_id, job.payment_id)):
        record = (await gather_evidence(shop.darkroom, payment_id)).record
        assert [row["id"] for row in record.tables["related_payments"]] == [other]
    # Both are there: the first one stays what it is.
    assert len(await _photos(shop)) == 8
    await find_photo_file(
        shop.darkroom, user_id=customer.user_id, photo_id=photo_id, variant="full"
    )


_TAKES = "SELECT prompt_id, take, place, prompt_index FROM kie_tasks WHERE job_id = %s ORDER BY prompt_index"
_PHOTO_AT = (
    "SELECT p.id FROM generated_photos p JOIN kie_tasks t ON t.id = p.task_id "
    "WHERE t.job_id = %s AND t.prompt_index = %s"
)


async def test_a_photo_made_again_is_a_take_that_nobody_has_seen(shop: Shop) -> None:
    """It was photo 0 of a set of one, take 0: the studio drew the same picture with other noise."""
    customer = await shop.customer()
    await shop.paid(customer, tier="premium")
    job = await shop.start(customer, style="lifestyle")
    await shop.drain()
    takes = await shop.rows(_TAKES, job.id)
    number = 12
    assert [takes[number][key] for key in ("take", "place", "prompt_index")] == [1, 3, 12]
    redo = await _redo(shop, customer, await shop.value(_PHOTO_AT, job.id, number))
    await shop.drain()
    (again,) = await shop.rows(_TAKES, redo.job_id)
    # What a provider hears of it.
    *_, asked = shop.provider.created.values()
    assert (asked.place, asked.take, asked.prompt_index) == (3, 3, 0)
    of_prompt = [row["take"] for row in takes if row["prompt_id"] == again["prompt_id"]]
    assert of_prompt == [0, 1, 2]
    assert [again[key] for key in ("take", "place", "prompt_index")] == [3, 3, 0]
    # And the next set goes on behind it.
    await shop.paid(customer, tier="premium")
    after = await shop.start(customer, style="lifestyle")
    of_prompt = [
        row["take"]
        for row in await shop.rows(_TAKES, after.id)
        if row["prompt_id"] == again["prompt_id"]
    ]
    assert of_prompt == [4, 5]
    assert (await run_audit(shop.database)).clean


async def test_a_task_from_before_the_migration_is_made_again_as_take_one(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    async with shop.database.transaction() as tx:
        await tx.execute("UPDATE kie_tasks SET take = 0, place = NULL, prompt_id = NULL")
    redo = await _redo(shop, customer, await shop.value(_PHOTO_AT, job.id, 4))
    (again,) = await shop.rows(_TAKES, redo.job_id)
    assert [again[key] for key in ("take", "place", "prompt_index")] == [1, 4, 0]


async def _view(shop: Shop, customer: Customer, photo_id: int) -> tuple[int | None, str | None]:
    photos = await read_photos(
        shop.darkroom,
        user_id=customer.user_id,
        avatar_id=customer.avatar_id,
        before_id=photo_id + 1,
        limit=1,
    )
    return photos[0].redo_job_id, photos[0].redo_status


async def test_the_same_request_is_the_same_redo(shop: Shop) -> None:
    customer, _ = await shop.sold()
    await shop.drain()
    mine, *_ = await _photos(shop)
    other, _ = await shop.sold()
    await shop.drain()
    *_, theirs = await _photos(shop)
    wish = uuid4()
    redos = await asyncio.gather(*(_redo(shop, customer, mine, wish) for _ in range(5)))
    assert len(set(redos)) == 1
    with pytest.raises(RequestRefusedError, match="IDEMPOTENCY_KEY_REUSED"):
        await _redo(shop, customer, mine + 1, wish)
    with pytest.raises(RequestRefusedError, match="IDEMPOTENCY_KEY_REUSED"):
        await _redo(shop, other, theirs, wish)
    paid = await shop.value("SELECT request_id FROM payments ORDER BY id LIMIT 1")
    with pytest.raises(RequestRefusedError, match="IDEMPOTENCY_KEY_REUSED"):
        await _redo(shop, customer, mine, paid)


async def test_of_many_at_once_one_wins(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    photos = await _photos(shop)

    async def ask(photo_id: int) -> str:
        try:
            await _redo(shop, customer, photo_id)
        except RequestRefusedError as refusal:
            return refusal.code
        return "won"

    answers = await asyncio.gather(*(ask(photo_id) for photo_id in photos * 2))
    assert sorted(answers) == ["ALREADY_REDONE"] + ["REDO_USED_UP"] * 12 + ["won"]
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 0
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 2
    await shop.drain()


async def _without_the_lock(shop: Shop, customer: Customer, photo_ids: list[int]) -> list[object]:
    """Each in a transaction that begins before any other has ended."""
    written = asyncio.Barrier(len(photo_ids))

    async def ask(photo_id: int) -> object:
        async with shop.database.transaction() as tx:
            wish = RedoRequest(customer.user_id, photo_id, uuid4(), "scripted", 5)
            redo = await start_redo(tx, wish)
            await written.wait()
        return redo

    return await asyncio.gather(*(ask(one) for one in photo_ids), return_exceptions=True)


async def test_twin_without_the_lock_two_photos_are_made_again(shop: Shop) -> None:
    """The guard removed: both count none, both write; and the audit says so."""
    customer, _ = await shop.sold()
    await shop.drain()
    answers = await _without_the_lock(shop, customer, (await _photos(shop))[:2])
    assert [type(answer) for answer in answers] == [StartedRedo, StartedRedo], "the twin must fail"
    await shop.drain()
    report = await run_audit(shop.database)
    assert {finding.name for finding in report.findings} == {"redo_is_explained"}
    shop.audit_at_end = False


async def test_without_the_lock_the_index_holds_one_photo(shop: Shop) -> None:
    customer, _ = await shop.sold()
    await shop.drain()
    photo_id = (await _photos(shop))[0]
    wish = RedoRequest(customer.user_id, photo_id, uuid4(), "scripted", 5)

    async def start(request: RedoRequest) -> StartedRedo | None:
        async with shop.database.transaction() as tx:
            return await start_redo(tx, request)

    async with shop.database.transaction() as tx:
        first = await start_redo(tx, wish)
        rival = asyncio.create_task(start(replace(wish, request_id=uuid4())))
        while not await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
    with pytest.raises(DatabaseRefusedError, match="idx_payments_redoes"):
        await rival
    assert first is not None
    await shop.drain()


async def test_what_may_not_be_made_again(shop: Shop) -> None:
    customer, job = await shop.sold()
    stranger = await shop.customer()
    await shop.step("submit")
    assert (await _refusal(shop, customer, 1)).code == "PHOTO_NOT_FOUND"
    await shop.drain()
    first, second, *_ = await _photos(shop)
    assert (await _refusal(shop, stranger, first)).code == "PHOTO_NOT_FOUND"
    with pytest.raises(RequestRefusedError, match="JOB_NOT_FOUND"):
        await redos_left(shop.darkroom, user_id=stranger.user_id, job_id=job.id)
    redo = await _redo(shop, customer, first)
    refusal = await _refusal(shop, customer, first)
    assert (refusal.status, refusal.code) == (409, "ALREADY_REDONE")
    assert refusal.details["jobId"] == redo.job_id
    refusal = await _refusal(shop, customer, second)
    assert (refusal.status, refusal.code, refusal.details["left"]) == (409, "REDO_USED_UP", 0)
    await shop.drain()
    # Not the photo that was made again, either: its set was free.
    assert (await _refusal(shop, customer, (await _photos(shop))[-1])).code == "REDO_USED_UP"
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = %s RETURNING id", second
    )
    assert (await _refusal(shop, customer, second)).code == "PHOTO_NOT_FOUND"


async def test_a_granted_set_has_no_redo(shop: Shop) -> None:
    customer = await shop.customer()
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=uuid4()
    )
    job = await shop.start(customer)
    await shop.drain()
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 0
    assert (await _refusal(shop, customer, (await _photos(shop))[0])).code == "REDO_USED_UP"


async def test_a_set_that_is_being_made_has_no_redo_yet(shop: Shop) -> None:
    async def wait(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("500", "later", Again.LATER) if request.prompt_index == 6 else None

    shop.provider.on_ask = wait
    customer, _ = await shop.sold()
    for name in ("submit", "poll", "collect"):
        await shop.step(name)
    await shop.advance(5)
    for name in ("poll", "collect"):
        await shop.step(name)
    photos = await _photos(shop)
    assert 0 < len(photos) < 7
    assert (await _refusal(shop, customer, photos[0])).code == "SET_NOT_READY"
    shop.provider.on_ask = None
    await shop.drain()


async def test_without_selfies_nothing_is_made_again(shop: Shop) -> None:
    customer, _ = await shop.sold()
    await shop.drain()
    await shop.rows("UPDATE reference_photos SET deleted_at = darkroom_now() RETURNING id")
    refusal = await _refusal(shop, customer, (await _photos(shop))[0])
    assert (refusal.status, refusal.code) == (400, "NO_REFERENCE_IMAGES")
    assert await shop.value("SELECT count(*) FROM payments") == 1


async def test_redos_are_sets_and_count_as_open_ones(shop: Shop) -> None:
    await shop.rows("UPDATE refund_policies SET redo_photos = 100 RETURNING id")
    limits = shop.darkroom.limits.model_copy(update={"open_jobs_max": 2})
    shop.darkroom = replace(shop.darkroom, limits=limits)
    customer, _ = await shop.sold()
    await shop.drain()
    first, second, last, *_ = await _photos(shop)
    for photo_id in (first, second):
        await _redo(shop, customer, photo_id)
    refusal = await _refusal(shop, customer, last)
    assert (refusal.status, refusal.code) == (429, "TOO_MANY_OPEN_JOBS")
    await shop.drain()
    await _redo(shop, customer, last)
    await shop.drain()


async def test_the_policy_of_the_sale_decides(shop: Shop) -> None:
    """What was sold before a change keeps its own (bugbook C11)."""
    customer, job = await shop.sold()
    await shop.drain()
    await shop.rows(
        "INSERT INTO refund_policies (whole_price_below_percent, job_deadline_seconds, redo_photos) "
        "VALUES (70, 3600, 0) RETURNING id"
    )
    later, later_job = await shop.sold()
    await shop.drain()
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 1
    assert await redos_left(shop.darkroom, user_id=later.user_id, job_id=later_job.id) == 0
    assert (await _refusal(shop, later, (await _photos(shop))[-1])).code == "REDO_USED_UP"


async def test_a_set_whose_price_goes_back_whole_has_no_redo(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, 100, "sorry", uuid4()))
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 1
    await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, None, "sorry", uuid4()))
    assert (await _refusal(shop, customer, (await _photos(shop))[0])).code == "REDO_USED_UP"
    await shop.drain()


async def test_a_redo_that_fails_costs_nothing_and_can_be_replayed(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    photo_id = (await _photos(shop))[0]

    async def fail(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "no", Again.NEVER)

    shop.provider.on_ask = fail
    redo = await _redo(shop, customer, photo_id)
    await shop.drain()
    assert await _view(shop, customer, photo_id) == (redo.job_id, "failed")
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    assert (await run_audit(shop.database)).clean
    assert await redos_left(shop.darkroom, user_id=customer.user_id, job_id=job.id) == 0
    shop.provider.on_ask = None
    (letter,) = await read_dead_letters(shop.darkroom)
    assert letter.replayable
    await replay_letters(shop.darkroom, letter.id, provider=None)
    await shop.drain()
    assert await _view(shop, customer, photo_id) == (redo.job_id, "completed")


async def test_a_photo_made_again_takes_no_turn_of_a_later_set(shop: Shop) -> None:
    """A second set of the same style has each prompt once, also the one that was made again."""
    customer = await shop.customer()
    await shop.paid(customer)
    await shop.start(customer, style="professional")
    await shop.drain()
    await _redo(shop, customer, (await _photos(shop))[3])
    await shop.drain()
    await shop.paid(customer)
    job = await shop.start(customer, style="professional")
    prompts = await shop.value(
        "SELECT count(DISTINCT prompt_id) FROM kie_tasks WHERE job_id = %s", job.id
    )
    assert prompts == 7
    seeds = await shop.rows(
        "SELECT prompt_id, seed FROM kie_tasks GROUP BY prompt_id, seed HAVING count(*) > 1"
    )
    assert seeds == []
    await shop.drain()


async def test_who_leaves_takes_redos_along(shop: Shop) -> None:
    customer, _ = await shop.sold()
    await shop.drain()
    photo_id = (await _photos(shop))[0]
    await _redo(shop, customer, photo_id)
    await forget_me(shop.darkroom, user_id=customer.user_id)
    for _ in range(3):
        await shop.drain()
        await shop.advance(600)
    assert await shop.value("SELECT forgotten_at IS NOT NULL FROM users") is True
