"""A photo that its provider has not begun is not lost: another one would stand behind it, and cost again."""

from dataclasses import replace

from darkroom.ports.generation import GenerationRequest, Ready, Working
from tests.scripted import ScriptedProvider
from tests.shop import Shop

LOOK_SECONDS = 30


async def _looks(shop: Shop, seconds: float) -> None:
    """Time goes by, and the provider is asked as often as the flow likes."""
    for _ in range(int(seconds / LOOK_SECONDS)):
        await shop.advance(LOOK_SECONDS)
        while await shop.round():
            pass


class Line:
    """A provider whose tasks stand in its line until it is told to begin, and are then made."""

    def __init__(self, shop: Shop) -> None:
        self.in_line = True
        self.making = True
        self._shop = shop
        shop.provider.on_ask = self._ask

    async def _ask(self, request: GenerationRequest) -> Working | Ready | None:
        number: int = await self._shop.value(
            "SELECT max(number) FROM task_attempts WHERE task_id = %s", request.task_id
        )
        if number > 1:
            return None
        if self.in_line:
            return Working(in_line=True)
        return Working() if self.making else None


async def test_a_photo_in_its_providers_line_is_not_bought_again(shop: Shop) -> None:
    """After fifteen minutes it was, although nobody had begun it: two were paid for, one was kept."""
    line = Line(shop)
    _, job = await shop.sold()
    await _looks(shop, shop.darkroom.limits.pending_give_up_seconds + 300)
    assert len(shop.provider.created) == 7
    line.in_line = False
    await _looks(shop, 300)
    assert len(shop.provider.created) == 7, "its time begins when it leaves the line"
    line.making = False
    await _looks(shop, 60)
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_photo_that_was_begun_and_never_ends_is_given_up(shop: Shop) -> None:
    line = Line(shop)
    _, job = await shop.sold()
    await _looks(shop, 300)
    line.in_line = False
    await _looks(shop, shop.darkroom.limits.pending_give_up_seconds + 90)
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 14


async def test_a_line_that_does_not_move_is_left_for_the_fallback_at_half_time(shop: Shop) -> None:
    """Bought again at the same provider it would stand in the same line, and the fallback came too late."""
    spare = ScriptedProvider(name="spare", account="spare")
    shop.darkroom = replace(
        shop.darkroom,
        generation={**shop.darkroom.generation, "spare": spare},
        generation_fallback=("spare",),
    )
    Line(shop)
    _, job = await shop.sold()
    await _looks(shop, shop.darkroom.limits.line_give_up_seconds - 60)
    assert (len(shop.provider.created), len(spare.created)) == (7, 0)
    await _looks(shop, 180)
    assert (await shop.job(job.id))["status"] == "completed"
    assert (len(shop.provider.created), len(spare.created)) == (7, 7)


async def test_without_a_fallback_a_long_line_is_waited_for(shop: Shop) -> None:
    """Fifty minutes of the hour: made late, and bought once."""
    line = Line(shop)
    _, job = await shop.sold()
    await _looks(shop, 50 * 60)
    assert len(shop.provider.created) == 7
    line.in_line = line.making = False
    await _looks(shop, 60)
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_line_that_never_moves_ends_with_the_set(shop: Shop) -> None:
    Line(shop)
    payment_id = await shop.ordered(await shop.customer(), order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await _looks(shop, 62 * 60)
    assert await shop.value("SELECT status FROM generation_jobs") == "failed"
    await shop.drain()
    assert await shop.value("SELECT status FROM payments") == "refunded"
    assert len(shop.provider.created) == 7


async def test_the_next_attempts_time_is_its_own(shop: Shop) -> None:
    """When an earlier attempt stood in line says nothing about the one under way."""
    line = Line(shop)
    await shop.sold()
    await _looks(shop, 60)
    assert await shop.value("SELECT count(*) FROM kie_tasks WHERE in_line_at > status_since") == 7
    line.in_line = False
    await _looks(shop, shop.darkroom.limits.pending_give_up_seconds + 90)
    assert await shop.value("SELECT count(*) FROM kie_tasks WHERE in_line_at > status_since") == 0
