"""Dead letters: another try, never for a photo whose money is going back."""

import asyncio
from dataclasses import replace

import pytest

from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.replay_letters import read_dead_letters, replay_letters
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.scripted import ScriptedProvider
from tests.shop import Shop


async def _fail_two(request: GenerationRequest) -> FailedThere | None:
    if request.prompt_index < 2:
        return FailedThere("400", "no", Again.NEVER)
    return None


async def granted_with_two_failed(shop: Shop) -> int:
    customer = await shop.customer()
    wish = shop.request(customer)
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=wish.request_id
    )
    shop.provider.on_ask = _fail_two
    job = await shop.start(customer)
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "partial"
    return job.id


async def test_a_replay_gives_the_photo_its_attempts_anew(shop: Shop) -> None:
    """bugbook D12: "retry" set a status, told nobody, and ended in a refund."""
    job_id = await granted_with_two_failed(shop)
    await shop.rows("UPDATE kie_tasks SET bad_results = 2 WHERE status = 'failed' RETURNING id")
    letters = await read_dead_letters(shop.darkroom)
    assert [letter.replayable for letter in letters] == [True, True]
    shop.provider.on_ask = None
    answers = await asyncio.gather(
        *(replay_letters(shop.darkroom, letters[0].id, provider=None) for _ in range(5))
    )
    assert sorted(answer.replayed for answer in answers) == [0, 0, 0, 0, 1]
    assert (await shop.job(job_id))["status"] == "processing"
    # One bad download more must not buy another generation.
    assert await shop.value("SELECT bad_results FROM kie_tasks WHERE status = 'queued'") == 0
    await shop.drain()
    assert (await shop.job(job_id))["completed_photos"] == 6
    replays = await replay_letters(shop.darkroom, None, provider=None)
    assert (replays.replayed, replays.kept) == (1, 0)
    await shop.drain()
    assert (await shop.job(job_id))["status"] == "completed"
    assert await read_dead_letters(shop.darkroom) == []


async def test_a_replay_that_fails_again_is_a_dead_letter_again(shop: Shop) -> None:
    job_id = await granted_with_two_failed(shop)

    async def fails(_request: GenerationRequest) -> FailedThere:
        return FailedThere("500", "again", Again.LATER)

    shop.provider.on_ask = fails
    created = len(shop.provider.created)
    await replay_letters(shop.darkroom, None, provider=None)
    await shop.drain()
    assert (await shop.job(job_id))["status"] == "partial"
    assert len(shop.provider.created) == created + 2 * 3
    assert len(await read_dead_letters(shop.darkroom)) == 2


async def test_with_another_provider(shop: Shop) -> None:
    await granted_with_two_failed(shop)
    other = ScriptedProvider(name="other")
    shop.darkroom = replace(shop.darkroom, generation={**shop.darkroom.generation, "other": other})
    with pytest.raises(RequestRefusedError, match="UNKNOWN_PROVIDER"):
        await replay_letters(shop.darkroom, None, provider="nobody")
    await replay_letters(shop.darkroom, None, provider="other")
    await shop.drain()
    assert len(other.created) == 2
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7


async def test_never_while_the_money_is_going_back(shop: Shop) -> None:
    """bugbook D13: "regenerate" made photos for no payment, and another one was paid back."""
    shop.provider.on_ask = _fail_two
    _, job = await shop.sold()
    await shop.drain()
    letters = await read_dead_letters(shop.darkroom)
    assert [letter.replayable for letter in letters] == [False, False]
    replays = await replay_letters(shop.darkroom, letters[0].id, provider=None)
    assert (replays.replayed, replays.kept) == (0, 1)
    assert (await shop.job(job.id))["status"] == "partial"


async def test_before_its_job_is_settled_a_paid_photo_can_be_replayed(shop: Shop) -> None:
    """Its share is still owed as a photo, not as money."""
    shop.provider.on_ask = _fail_two
    hold: set[int] = set()

    async def wait(request: GenerationRequest) -> bytes | None:
        if request.prompt_index == 6:
            hold.add(request.task_id)
            raise RuntimeError("not yet")
        return None

    shop.provider.on_fetch = wait
    _, job = await shop.sold()
    for _ in range(3):
        await shop.round()
    assert (await shop.job(job.id))["status"] == "processing"
    shop.provider.on_ask = shop.provider.on_fetch = None
    replays = await replay_letters(shop.darkroom, None, provider=None)
    assert replays.replayed == 2
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert await shop.value("SELECT count(*) FROM refunds") == 0
