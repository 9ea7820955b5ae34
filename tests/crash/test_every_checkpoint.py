"""A crash at every checkpoint of the code, then the rest of the day: nothing lost, nothing doubled.

The names are read from the code. A checkpoint that this story never passes fails the test, so that a new
one cannot be forgotten.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from darkroom.core.audit import run_audit
from darkroom.core.tasks import fail_task
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.make_avatar import AvatarRequest, make_avatar
from darkroom.flow.receive import receive_generation_callback, receive_queue_message
from darkroom.flow.remove import remove_avatar
from darkroom.flow.replay_letters import replay_letters
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import GenerationRequest, NoAnswer
from tests.scripted import picture_of
from tests.shop import Customer, Shop

SOURCE = Path("src/darkroom")
NAMES = sorted(
    {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r"""checkpoint\(\s*["']([a-z_.]+)["']\s*\)""", path.read_text())
    }
)


class CrashError(BaseException):
    """The process is gone: no handler of the program catches this."""


class Crash:
    """Lets everything pass until the chosen name, then ends everything, once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.happened = False

    async def __call__(self, name: str) -> None:
        if self.happened:
            return
        if name == self.name:
            self.happened = True
            raise CrashError(name)


@asynccontextmanager
async def _dying(crash: Crash) -> AsyncGenerator[None]:
    """Run a part of the story in a process that may die; the next part runs in a new one."""
    try:
        with checkpoints_handled_by(crash):
            yield
    except CrashError:
        pass
    except BaseExceptionGroup as group:
        if group.subgroup(CrashError) is None:
            raise


async def _spare_avatar(shop: Shop, customer: Customer, crash: Crash) -> None:
    """A second avatar comes, gets a selfie, and goes; each wish is sent again after a crash."""
    user_id = customer.user_id
    wish = AvatarRequest(user_id, "Spare", idempotency_key="spare", request_id=uuid4())
    spare = "SELECT max(id) FROM avatars WHERE name = 'Spare'"
    for _ in range(2):
        async with _dying(crash):
            await make_avatar(shop.darkroom, wish)
    avatar_id = await shop.value(spare)
    for _ in range(2):
        async with _dying(crash):
            await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture_of(-99))
    for _ in range(2):
        async with _dying(crash):
            await remove_avatar(shop.darkroom, user_id=user_id, avatar_id=avatar_id)
    assert await shop.rows(
        "SELECT count(*) AS avatars, count(*) FILTER (WHERE deleted_at IS NULL) AS live, "
        "(SELECT count(*) FROM reference_photos WHERE avatar_id = %s) AS selfies "
        "FROM avatars WHERE user_id = %s",
        avatar_id,
        user_id,
    ) == [{"avatars": 2, "live": 1, "selfies": 1}]


async def _story(shop: Shop, customer: Customer, crash: Crash) -> None:
    """Every door and every step once; after a crash the outside does what it does: it tries again."""
    await _spare_avatar(shop, customer, crash)
    for _ in range(2):
        async with _dying(crash):
            payment_id = await shop.ordered(customer, order_style="signature")
            break
    else:
        payment_id = await shop.value("SELECT max(id) FROM payments")
    if payment_id not in shop.bank.facts:
        await shop.ordered(customer, order_style="signature")
        payment_id = await shop.value("SELECT max(id) FROM payments")
    for _ in range(2):
        async with _dying(crash):
            await shop.notify(payment_id)
            await take_due_notices(shop.darkroom)
    async with _dying(crash):
        await shop.round()
    for _ in range(2):
        async with _dying(crash):
            try:
                await shop.start(customer, style="creative")
            except RequestRefusedError as refusal:
                assert refusal.code == "PAYMENT_CONSUMED"
                break
    async with _dying(crash):
        await submit_due_tasks(shop.darkroom)
    job_id = await shop.value("SELECT max(id) FROM generation_jobs")
    for _ in range(2):
        async with _dying(crash):
            await receive_queue_message(shop.darkroom, message_id="m", job_id=job_id)
    letter_id = await _failed_grant(shop)
    for _ in range(2):
        async with _dying(crash):
            await replay_letters(shop.darkroom, letter_id, provider=None)
    for orphan, request in list(shop.provider.created.items())[:2]:
        async with _dying(crash):
            await receive_generation_callback(
                shop.darkroom,
                provider_name="scripted",
                token=request.token,
                provider_task_id=orphan,
            )


async def _failed_grant(shop: Shop) -> int:
    """A free set whose first photo has just become a dead letter; its id. No crash on the way here."""
    customer = await shop.customer()
    wish = shop.request(customer)
    with checkpoints_handled_by(_pass):
        await grant_photos(
            shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=wish.request_id
        )
        job = await shop.start(customer)
    async with shop.database.transaction() as tx:
        task = await (
            await tx.execute(
                "SELECT id, claim FROM kie_tasks WHERE job_id = %s ORDER BY id LIMIT 1", [job.id]
            )
        ).fetchone()
        assert task is not None
        await fail_task(
            tx, task_id=task[0], job_id=job.id, claim=task[1], source="queued", code="X", text="x"
        )
    letter = await shop.value("SELECT max(id) FROM generation_dead_letter_queue")
    return int(letter)


async def _pass(_name: str) -> None:
    return None


def _restarted(shop: Shop) -> None:
    """A new process: nothing of the old one's memory."""
    shop.darkroom = replace(
        shop.darkroom, leases=LeaseKeeper(shop.database, lease_seconds=10, renew_seconds=3)
    )


async def _run(shop: Shop, name: str) -> Crash:
    """The story with a crash at `name`, then drained to the end."""
    lost_once = False

    async def lose_one(request: GenerationRequest) -> NoAnswer | None:
        nonlocal lost_once
        if not lost_once:
            lost_once = True
            shop.provider.make(request)
            return NoAnswer("timeout")
        return None

    shop.provider.on_create = lose_one
    customer = await shop.customer()
    await shop.paid(customer)
    shop.bank.silent = False
    crash = Crash(name)
    await _story(shop, customer, crash)
    _restarted(shop)
    silent = await shop.customer()
    waiting = await shop.ordered(silent, order_style="lifestyle")
    shop.bank.pays(waiting)
    idle = await shop.customer()
    await shop.paid(idle, order_style="professional")
    for _ in range(3):
        async with _dying(crash):
            await shop.drain()
    await shop.advance(11)
    await shop.drain()
    await shop.darkroom.leases.close()
    return crash


@pytest.mark.parametrize("name", NAMES)
async def test_after_a_crash_there_every_order_is_whole(shop: Shop, name: str) -> None:
    crash = await _run(shop, name)
    assert crash.happened, f"no crash case passes {name}"
    jobs = await shop.rows("SELECT status, payment_id FROM generation_jobs")
    assert {job["status"] for job in jobs} == {"completed"}
    paid = await shop.value(
        "SELECT count(*) FROM payments WHERE status = 'succeeded' AND NOT generation_consumed"
    )
    assert paid == 0, "paid and nothing started"
    photos = await shop.value("SELECT count(*) FROM generated_photos")
    assert photos == 7 * len(jobs)
    # A process that dies while it is creating takes the answers of all its open calls with it: each may
    # cost one more task. Nothing else may.
    spare = 7 if name.startswith("submit.") else 1
    assert len(shop.provider.created) <= photos + spare
    assert (await run_audit(shop.database)).clean


async def test_the_story_without_a_crash_wastes_at_most_the_one_lost_answer(shop: Shop) -> None:
    await _run(shop, "nowhere")
    photos = await shop.value("SELECT count(*) FROM generated_photos")
    assert len(shop.provider.created) <= photos + 1


def test_the_enumeration_is_not_empty() -> None:
    assert len(NAMES) >= 30, NAMES
