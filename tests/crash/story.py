"""One day at a shop: every door and every step, told so that whoever gets no answer asks again."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from uuid import UUID, uuid4

from darkroom.core.jobs import StartedJob
from darkroom.core.tasks import fail_task
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.ask_back import ask_back
from darkroom.flow.check_bucket import audit_bucket
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.delete_selfies import delete_selfies
from darkroom.flow.erase_pictures import erase_pictures
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.fall_back import fall_back
from darkroom.flow.favorites import mark_favorite, read_favorites
from darkroom.flow.forget_history import forget_history
from darkroom.flow.forget_me import forget_telegram_user
from darkroom.flow.gather_evidence import gather_evidence
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.hand_out_photos import find_photo_file
from darkroom.flow.make_avatar import AvatarRequest, call_avatar, make_avatar
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.pay_back import (
    GoodwillRequest,
    ask_refund_again,
    look_again,
    note_paid_by_hand,
    pay_back,
    read_open_refunds,
)
from darkroom.flow.place_dev_order import place_dev_order
from darkroom.flow.prepare import prepare
from darkroom.flow.read_avatars import (
    read_avatars,
    read_avatars_ever,
    read_selfie_image,
    read_selfies,
)
from darkroom.flow.read_back import (
    know_user,
    read_job,
    read_messages,
    read_payment,
    read_photos,
)
from darkroom.flow.read_balances import read_last_balances, read_ledger
from darkroom.flow.read_policy import read_promised
from darkroom.flow.read_sets import read_catalog, read_payments, read_refunds_of, read_sets
from darkroom.flow.receive import (
    QueueFailure,
    receive_generation_callback,
    receive_queue_failure,
    receive_queue_message,
)
from darkroom.flow.recognize_store import adopt_store
from darkroom.flow.reconcile import Look, close_by_hand, read_differences, reconcile
from darkroom.flow.redo_photo import redo_photo, redos_left
from darkroom.flow.remove import remove_avatar, remove_selfie
from darkroom.flow.replay_letters import read_dead_letters, replay_letters
from darkroom.flow.send_mail import send_due_mail
from darkroom.flow.share_photos import end_share, open_share, read_shares, share
from darkroom.flow.sign_in import (
    know_person,
    open_demo_session,
    read_session,
    set_locale,
    sign_in,
    sign_out,
    whose_session,
)
from darkroom.flow.sign_in_by_link import (
    ask_sign_in_link,
    find_person,
    make_sign_in_link,
    peek_sign_in_link,
    sign_in_by_link,
)
from darkroom.flow.start_generation import start_generation
from darkroom.flow.stock_catalog import export_catalog
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.flow.upload_directly import keep_uploads, open_uploads
from darkroom.flow.watch_jobs import JobWatch
from darkroom.flow.work_in_calls import work_in_call
from darkroom.flow.zip_photos import zip_photos
from darkroom.ports.generation import (
    Again,
    FailedThere,
    GenerationRequest,
    LinkDeadError,
    NoAnswer,
    ProviderUnavailableError,
    Refused,
    Working,
)
from darkroom.ports.identity import Person
from darkroom.ports.mail import Mail, MailUnavailableError
from darkroom.ports.payments import (
    RefundAnswer,
    RefundCall,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
)
from darkroom.ports.storage import ObjectStore
from darkroom.wiring import bundled_catalog
from tests.crash.vanishing import Crash, World
from tests.scripted import LinkedStore, ScriptedProvider, picture_of
from tests.shop import Customer, Shop

SPARE = "SELECT max(id) FROM avatars WHERE name = 'Spare'"
LONG_DAYS = 3650
"""Who keeps the history so long keeps it in this story."""
SMALL, LARGER = 3, 5
"""Photos of a set, and of the one larger set: as few as have a first, a second and a third that differ."""


def tell(world: World, crash: Crash) -> None:
    """The whole day, with one crash in it. On return nothing is due any more."""
    unreliable = _Unreliable(world)
    world.provider.on_create = unreliable.create
    world.provider.on_ask = unreliable.ask
    world.provider.on_fetch = unreliable.fetch
    for tier, count in (("starter", SMALL), ("standard", LARGER)):
        world.insist(_sized(tier, count))
    customer = world.insist(lambda shop: shop.customer())
    world.insist(lambda shop: shop.paid(customer))
    # A day of the bank's list that was not read to its end: it is made up for.
    world.insist(
        lambda shop: shop.rows(
            "INSERT INTO reconciliations (provider, day, started_at) SELECT 'bank', day::DATE, day "
            "FROM (SELECT darkroom_now() - INTERVAL '2 days' AS day) missed RETURNING id"
        )
    )
    world.crash = crash
    world.insist(lambda shop: prepare(shop.darkroom, bundled_catalog()))
    world.insist(lambda shop: adopt_store(shop.darkroom))
    # A note of an older version does not say where the database is; the next start completes it.
    world.insist(lambda shop: shop.rows("UPDATE store_mark SET server = NULL RETURNING number"))
    world.insist(lambda shop: prepare(shop.darkroom, bundled_catalog()))
    _come_and_go(world)
    _spare_avatar(world, customer)
    _paid_by_notice(world, customer)
    _started_by_hand(world, customer)
    _granted_and_replayed(world)
    _called_back(world)
    _asked_back(world)
    _made_again(world)
    _end_of_day(world)
    _looked_at(world, customer)
    _liked_shown_and_made_again(world, customer)
    _by_people(world, customer)
    left = _left_behind(world, customer)
    _weeks_later(world)
    _swept(world, left)
    _leaving(world)


def _sized(tier: str, count: int) -> Callable[[Shop], Awaitable[object]]:
    async def size(shop: Shop) -> object:
        return await shop.rows(
            "UPDATE tiers SET photo_count = %s WHERE id = %s RETURNING id", count, tier
        )

    return size


class _Unreliable:
    """A provider on a bad day: each thing that may go wrong does so once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._creations = 0
        self._asks = 0
        self._fetches = 0

    async def create(self, request: GenerationRequest) -> NoAnswer | Refused | None:
        """The first task is made and nobody hears of it; the second wish is refused for now.

        Of a larger set, of which the day has one, the last photo is refused for good.
        """
        if request.prompt_index == LARGER - 1:
            return Refused("400", "against the rules", Again.NEVER)
        self._creations += 1
        if self._creations == 1:
            self._world.provider.make(request)
            return NoAnswer("timeout")
        if self._creations == 2:
            return Refused("429", "too many", Again.LATER, 1)
        return None

    async def ask(self, _request: GenerationRequest) -> FailedThere | Working | None:
        """The first task that is asked about has failed there, the second is not done, the third unanswered."""
        self._asks += 1
        if self._asks == 1:
            return FailedThere("500", "upstream", Again.LATER)
        if self._asks == 3:
            raise ProviderUnavailableError("503")
        return Working() if self._asks == 2 else None

    async def fetch(self, _request: GenerationRequest) -> bytes | None:
        """The first link is dead, the second picture is not given out now; downloads outlive a renewal."""
        self._fetches += 1
        number = self._fetches
        await self._world.shop.darkroom.leases.renew()
        if number == 1:
            raise LinkDeadError
        if number == 2:
            raise ProviderUnavailableError("503")
        return None


def _come_and_go(world: World) -> None:
    """Somebody signs in and out, and a developer tries the door."""
    person = Person(telegram_user_id=77, locale="en")

    async def visit(shop: Shop) -> None:
        await know_person(shop.darkroom, person)
        session = await sign_in(shop.darkroom, person)
        assert await whose_session(shop.darkroom, session.token) == session.user_id
        await sign_out(shop.darkroom, session.token)

    async def try_it(shop: Shop) -> None:
        await place_dev_order(
            shop.darkroom,
            telegram_user_id=78,
            avatar_id=456,
            tier_id=None,
            selfie=picture_of(-456),
        )

    world.insist(visit)
    world.insist(try_it)
    _signed_in_by_letter(world)


LETTER_TRIES: Final = 3
"""Several who died with it, one after the other, on a day of several crashes."""


def _signed_in_by_letter(world: World) -> None:
    """Somebody asks for a letter until they hear that it was written, gets it, and uses what is in it."""
    wish = uuid4()
    email = "ann@example.com"
    world.insist(
        lambda shop: ask_sign_in_link(shop.darkroom, email=email, locale="en", now_request=wish)
    )
    for _ in range(LETTER_TRIES):
        world.attempt(lambda shop: shop.step("mail"))
        # Whoever died with it lets go of it when the lease ends.
        world.insist(lambda shop: shop.advance(11))
    world.insist(lambda shop: shop.step("mail"))
    letters = world.insist(
        lambda shop: shop.rows(
            "SELECT id, link_id, status FROM mail_outbox WHERE address = %s", email
        )
    )
    assert [letter["status"] for letter in letters] == ["sent"], "one wish, one letter"
    assert [file.name for file in (world.folder / "outbox").glob("*.eml")] == [
        f"{letters[0]['id']}.eml"
    ]

    async def use(shop: Shop) -> None:
        token = shop.darkroom.tokens.make("sign-in", letters[0]["link_id"])
        if not await peek_sign_in_link(shop.darkroom, token):
            # Used by a process that did not live to say so: an operator helps with another one.
            user_id = await find_person(shop.darkroom, email=email)
            token = (await make_sign_in_link(shop.darkroom, user_id)).rpartition("/")[2]
        opened = await sign_in_by_link(shop.darkroom, token)
        await set_locale(shop.darkroom, user_id=opened.user_id, locale="ru")
        seen = await read_session(shop.darkroom, opened.token)
        assert seen is not None
        assert (seen.origin, seen.locale, seen.email) == ("link", "ru", email)

    world.insist(use)
    # The first time by the letter, the second by an operator's link.
    world.insist(use)
    world.insist(lambda shop: open_demo_session(shop.darkroom, None))


def _spare_avatar(world: World, customer: Customer) -> None:
    """A second avatar comes, gets a selfie, and goes."""
    wish = AvatarRequest(customer.user_id, "Spare", idempotency_key="spare", request_id=uuid4())
    world.insist(lambda shop: make_avatar(shop.darkroom, wish))
    avatar_id = world.insist(lambda shop: shop.value(SPARE))
    world.insist(
        lambda shop: call_avatar(
            shop.darkroom, user_id=customer.user_id, avatar_id=avatar_id, name="Spare"
        )
    )
    world.insist(_adding_directly(customer.user_id, avatar_id, picture_of(-99)))
    selfie_id = world.insist(_adding(avatar_id, picture_of(-98)))
    world.insist(
        lambda shop: _gone(
            remove_selfie(
                shop.darkroom, user_id=customer.user_id, avatar_id=avatar_id, selfie_id=selfie_id
            )
        )
    )
    world.insist(
        lambda shop: remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=avatar_id)
    )
    there = world.insist(
        lambda shop: shop.rows(
            "SELECT (SELECT count(*) FROM avatars WHERE user_id = %s) AS avatars, "
            "(SELECT count(*) FROM avatars WHERE user_id = %s AND deleted_at IS NULL) AS live, "
            "(SELECT count(*) FROM reference_photos WHERE avatar_id = %s) AS selfies, "
            "(SELECT count(*) FROM reference_photos "
            "WHERE avatar_id = %s AND deleted_at IS NULL) AS live_selfies",
            *(customer.user_id, customer.user_id, avatar_id, avatar_id),
        )
    )
    assert there == [{"avatars": 2, "live": 1, "selfies": 2, "live_selfies": 1}], there


def _adding(avatar_id: int, picture: bytes) -> Callable[[Shop], Awaitable[int]]:
    async def add(shop: Shop) -> int:
        return await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture)

    return add


def _adding_directly(
    user_id: int, avatar_id: int, picture: bytes
) -> Callable[[Shop], Awaitable[object]]:
    async def add(shop: Shop) -> object:
        store = cast("ObjectStore", LinkedStore(shop.darkroom.store))
        linked = replace(shop.darkroom, store=store)
        (link,) = await open_uploads(
            linked, user_id=user_id, avatar_id=avatar_id, file_names=["me.jpg"]
        )
        await store.put_once(f"uploads/{avatar_id}/{link.id}", picture, "image/jpeg")
        return await keep_uploads(
            linked, user_id=user_id, avatar_id=avatar_id, upload_ids=[link.id]
        )

    return add


def _order(world: World, customer: Customer, *, style: str, key: str, tier: str = "starter") -> int:
    """An order whose customer presses the button until there is an answer; the payment's id."""
    request_id = uuid4()

    async def press(shop: Shop) -> int:
        payment = await order_photos(
            shop.darkroom,
            OrderRequest(
                user_id=customer.user_id,
                tier_id=tier,
                provider="bank",
                avatar_id=customer.avatar_id,
                style_id=style,
                idempotency_key=key,
                request_id=request_id,
            ),
        )
        return payment.id

    return world.insist(press)


def _paid_by_notice(world: World, customer: Customer) -> None:
    """An order that the bank's notice starts; the bank repeats it until it hears OK."""
    payment_id = _order(world, customer, style="signature", key="first")
    world.bank.pays(payment_id)
    assert world.insist(lambda shop: shop.notify(payment_id)) == "OK"
    world.attempt(lambda shop: take_due_notices(shop.darkroom))
    world.attempt(lambda shop: shop.round())


def _started_by_hand(world: World, customer: Customer) -> None:
    """A payment without an order, a customer who starts the set, a queue that delivers twice."""

    async def start_twice(shop: Shop) -> list[StartedJob | BaseException]:
        both = await asyncio.gather(
            *(shop.start(customer, style="creative") for _ in range(2)), return_exceptions=True
        )
        for one in both:
            if not isinstance(one, StartedJob | RequestRefusedError):
                raise one
        return both

    started = world.insist(start_twice)
    refusals = {one.code for one in started if isinstance(one, RequestRefusedError)}
    assert refusals == {"PAYMENT_CONSUMED"}, started
    world.attempt(lambda shop: submit_due_tasks(shop.darkroom))
    job_id = world.insist(lambda shop: shop.value("SELECT max(id) FROM generation_jobs"))
    for _ in range(2):
        world.insist(
            lambda shop: receive_queue_message(shop.darkroom, message_id="m", job_id=job_id)
        )
    # A call that has no time left hands over; the rounds themselves are those of everybody else.
    world.attempt(lambda shop: work_in_call(shop.darkroom, seconds=0))
    # A delivery that the queue gave up on, told twice.
    given_up = QueueFailure("msg_1", "dlq_1", job_id, status=500, retried=3)
    for _ in range(2):
        world.insist(lambda shop: receive_queue_failure(shop.darkroom, given_up))
    _read_notices(world)


def _granted_and_replayed(world: World) -> None:
    """A free set whose first photo becomes a dead letter, and an operator who gives it another try.

    The provider that it was started for is shut for long: its queue goes to the fallback.
    """
    customer = world.insist(lambda shop: shop.customer())
    wish = world.shop.request(customer, key="granted")
    grant_id = uuid4()

    async def grant(shop: Shop) -> StartedJob:
        await grant_photos(
            shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=grant_id
        )
        return await start_generation(_with_one_that_is_shut(shop), wish)

    job = world.insist(grant)

    async def fail_first(shop: Shop) -> int:
        async with shop.database.transaction() as tx:
            task = await (
                await tx.execute(
                    "SELECT id, claim FROM kie_tasks WHERE job_id = %s ORDER BY id LIMIT 1",
                    [job.id],
                )
            ).fetchone()
            assert task is not None
            await fail_task(
                tx,
                task_id=task[0],
                job_id=job.id,
                claim=task[1],
                source="queued",
                code="X",
                text="x",
            )
        return int(await shop.value("SELECT max(id) FROM generation_dead_letter_queue"))

    letter_id = world.insist(fail_first)
    world.insist(lambda shop: replay_letters(shop.darkroom, letter_id, provider=None))
    world.insist(
        lambda shop: shop.rows(
            "INSERT INTO provider_budgets (provider, shut_since, paused_until) "
            "VALUES ('shut', darkroom_now() - INTERVAL '1 hour', darkroom_now()) "
            "ON CONFLICT DO NOTHING RETURNING provider"
        )
    )
    world.insist(lambda shop: fall_back(_with_one_that_is_shut(shop)))
    left = world.insist(
        lambda shop: shop.value("SELECT count(*) FROM kie_tasks WHERE provider = 'shut'")
    )
    assert left == 0


def _with_one_that_is_shut(shop: Shop) -> Darkroom:
    """The program with another provider first, and the usual one behind it."""
    other = ScriptedProvider(name="shut", account="shut")
    return replace(
        shop.darkroom,
        generation={**shop.darkroom.generation, other.name: other},
        new_tasks_go_to=other.name,
        generation_fallback=("scripted",),
    )


def _called_back(world: World) -> None:
    """The provider calls back about the first two tasks it ever made: one of them nobody had heard of."""

    def ring(provider_task_id: str, token: UUID) -> None:
        world.insist(
            lambda shop: receive_generation_callback(
                shop.darkroom,
                provider_name="scripted",
                token=token,
                provider_task_id=provider_task_id,
            )
        )

    for orphan, request in list(world.provider.created.items())[:2]:
        ring(orphan, request.token)
        # Before its own records know of it, for all we can tell: looked at again later.
        ring("task-of-a-stranger", request.token)


def _end_of_day(world: World) -> None:
    """A new process; a customer whose bank is silent, one whose paid order nobody started; then time passes."""
    world.restart()
    silent = world.insist(lambda shop: shop.customer())
    world.bank.pays(_order(world, silent, style="lifestyle", key="silent"))
    idle = world.insist(lambda shop: shop.customer())
    idle_id = _order(world, idle, style="professional", key="idle")
    world.insist(
        lambda shop: shop.rows(
            "UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now() "
            "WHERE id = %s AND status = 'pending' RETURNING id",
            idle_id,
        )
    )
    _drain(world)


def _drain(world: World) -> None:
    """Everything runs to its end, also what somebody died with."""
    world.attempt(lambda shop: shop.drain())
    world.insist(lambda shop: shop.advance(11))
    world.insist(lambda shop: shop.drain())


def _pay(world: World, payment_id: int) -> None:
    """The customer pays, and the bank says so until it hears OK."""
    world.bank.pays(payment_id)
    world.insist(lambda shop: shop.notify(payment_id, event=f"paid-{payment_id}"))
    _read_notices(world)


def _read_notices(world: World) -> None:
    """Whoever dies with one in its hands lets go of it when its lease ends."""
    world.attempt(lambda shop: shop.step("notice"))
    world.insist(lambda shop: shop.advance(11))
    world.insist(lambda shop: shop.step("notice"))


def _unbound(world: World, customer: Customer, key: str) -> int:
    """A paid order that names no avatar: nothing starts by itself."""
    request_id = uuid4()

    async def press(shop: Shop) -> int:
        wish = OrderRequest(customer.user_id, "starter", "bank", None, None, key, request_id)
        return (await order_photos(shop.darkroom, wish)).id

    payment_id = world.insist(press)
    _pay(world, payment_id)
    return payment_id


def _asked_back(world: World) -> None:
    """Unused money is asked back; the bank pays, and its answer is lost. Somebody at the bank helps, too."""
    customer = world.insist(lambda shop: shop.customer())
    first, second = (_unbound(world, customer, key) for key in ("asked-back", "given-back"))
    lost = ["lost"]

    async def unheard(call: RefundCall) -> RefundAnswer | None:
        answer = world.bank.pays_back(call)
        return RefundNoAnswer(lost.pop()) if lost else answer

    world.bank.on_refund = unheard
    world.insist(lambda shop: ask_back(shop.darkroom, user_id=customer.user_id, payment_id=first))
    world.bank.gives_back(second, 100)
    world.insist(lambda shop: shop.notify(second, "money_back", "back-1"))
    _drain(world)
    told = world.insist(lambda shop: read_messages(shop.darkroom, **_page(customer)))
    assert all(message.payment_id in (first, second) for message in told)


def _page(customer: Customer) -> dict[str, Any]:
    return {"user_id": customer.user_id, "before_id": None, "limit": 50}


def _made_again(world: World) -> None:
    """A bank without parts, a photo that fails, and a customer without selfies: none can be made again."""
    world.insist(
        lambda shop: shop.rows("UPDATE refund_policies SET without_partial = 'grant' RETURNING id")
    )
    customer = world.insist(lambda shop: shop.customer())
    world.bank.refund_forms = RefundForms.WHOLE
    _pay(world, _order(world, customer, style="creative", key="larger", tier="standard"))
    world.insist(
        lambda shop: shop.rows(
            "UPDATE reference_photos SET deleted_at = darkroom_now() WHERE avatar_id = %s RETURNING id",
            customer.avatar_id,
        )
    )


def _by_people(world: World, customer: Customer) -> None:
    """An operator gives a little back, twice: once the bank is asked again, once it can't and a person pays."""
    payment_id = world.insist(
        lambda shop: shop.value(
            "SELECT payment_id FROM generation_jobs WHERE user_id = %s ORDER BY id LIMIT 1",
            customer.user_id,
        )
    )

    async def refuse(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("closed", "the account is closed")

    for forms, by_hand in ((RefundForms.PARTIAL, False), (RefundForms.WHOLE, True)):
        world.bank.refund_forms = RefundForms.PARTIAL
        world.bank.on_refund = refuse
        wish = GoodwillRequest(payment_id, 100, "sorry", uuid4())
        refund_id = world.insist(_giving(wish))
        world.bank.refund_forms = forms
        _drain(world)
        world.bank.on_refund = None
        open_refunds = world.insist(lambda shop: read_open_refunds(shop.darkroom))
        assert refund_id in [refund.id for refund in open_refunds]
        world.insist(_settling(refund_id, by_hand=by_hand))
        world.insist(lambda shop: look_again(shop.darkroom, payment_id))
        _drain(world)


def _giving(wish: GoodwillRequest) -> Callable[[Shop], Awaitable[int]]:
    async def give(shop: Shop) -> int:
        return (await pay_back(shop.darkroom, wish)).id

    return give


def _settling(refund_id: int, *, by_hand: bool) -> Callable[[Shop], Awaitable[object]]:
    async def settle(shop: Shop) -> object:
        if by_hand:
            return await note_paid_by_hand(shop.darkroom, refund_id, note="transfer 4711")
        return await ask_refund_again(shop.darkroom, refund_id)

    return settle


def _left_behind(world: World, customer: Customer) -> list[str]:
    """What two dead processes had put: a picture of a photo that came otherwise, and a selfie without a row."""
    # Which of the customer's orders began first, and so of which style it is, depends on who died when.
    place = world.insist(
        lambda shop: shop.value(
            "SELECT 'generated/' || avatar_id || '/' || style_id || '/' || id FROM generation_jobs "
            "WHERE user_id = %s ORDER BY id LIMIT 1",
            customer.user_id,
        )
    )
    keys = [f"{place}/0-{'0' * 16}.jpg", f"references/{customer.avatar_id}/{'0' * 64}.jpg"]

    async def put(shop: Shop) -> None:
        for key in keys:
            await shop.darkroom.store.put_once(key, b"left behind", "image/jpeg")

    world.insist(put)
    # The database's clock was moved on in this story and the store's was not: what was put just now is not from
    # before its order, as the times say.
    for since in (
        "UPDATE kie_tasks SET created_at = least(created_at, clock_timestamp()) RETURNING id",
        "UPDATE avatars SET created_at = least(created_at, clock_timestamp()) RETURNING id",
    ):
        world.insist(lambda shop, since=since: shop.rows(since))
    return keys


def _swept(world: World, keys: list[str]) -> None:
    """Days later, and the walk has come by, whoever died on it."""

    async def look(shop: Shop) -> list[str]:
        folders = {key.rpartition("/")[0] for key in keys}
        there = [await shop.darkroom.store.list_keys(folder) for folder in folders]
        report = await audit_bucket(shop.darkroom, limit=None)
        assert report.clean, report.rows
        return [key for page in there for key in page if key in keys]

    world.insist(lambda shop: shop.advance(3601))
    world.insist(lambda shop: shop.drain())
    assert world.insist(look) == []


def _weeks_later(world: World) -> None:
    """What nobody used is reminded of, and goes back; by a bank that knows no keys."""
    customer = world.insist(lambda shop: shop.customer())
    _unbound(world, customer, "forgotten")
    _letter_not_taken(world)
    world.bank.refund_key_seconds = None
    for days in (4, 11):
        world.insist(lambda shop, days=days: shop.advance(days * 86_400))
        for _ in range(3):
            world.attempt(lambda shop: shop.round())
    _drain(world)
    letters = "SELECT count(*) FROM mail_outbox WHERE status <> 'sent'"
    assert world.insist(lambda shop: shop.value(letters)) == 0
    _half_a_year_later(world)


def _half_a_year_later(world: World) -> None:
    """What was logged of that day is forgotten; its books are not."""
    days = world.shop.darkroom.history_days
    world.insist(lambda shop: shop.advance((days + 1) * 86_400))
    while world.insist(lambda shop: forget_history(shop.darkroom)):
        pass
    if days < LONG_DAYS:
        assert world.insist(lambda shop: shop.value("SELECT count(*) FROM move_log")) == 0


class _FullFolder:
    """A way of letters on which nothing leaves."""

    async def send(self, mail: Mail) -> None:
        raise MailUnavailableError(f"letter {mail.message_id} stays here")


def _letter_not_taken(world: World) -> None:
    """A letter that cannot be sent today, and is not worth it when time has passed."""
    wish = uuid4()
    world.insist(
        lambda shop: ask_sign_in_link(
            shop.darkroom, email="bob@example.com", locale="ru", now_request=wish
        )
    )
    world.insist(lambda shop: send_due_mail(replace(shop.darkroom, mailer=_FullFolder())))


async def _gone(work: Awaitable[None]) -> None:
    """A wish that was fulfilled without a word is refused when it is repeated: it is not there any more."""
    with contextlib.suppress(RequestRefusedError):
        await work


def _looked_at(world: World, customer: Customer) -> None:
    """The photos are there: everybody looks at everything. Whoever crashes here disturbs nobody."""
    who = {"user_id": customer.user_id}

    async def look_at_orders(shop: Shop) -> None:
        await know_user(shop.darkroom, customer.telegram_user_id)
        for row in await shop.rows(
            "SELECT id, payment_id FROM generation_jobs WHERE user_id = %s", customer.user_id
        ):
            await read_payment(shop.darkroom, **who, payment_id=row["payment_id"])
            await read_job(shop.darkroom, **who, job_id=row["id"])
            archive = await zip_photos(shop.darkroom, **who, job_id=row["id"])
            assert [piece async for piece in archive.read()]
            await _watch_to_the_end(JobWatch(shop.darkroom), customer.user_id, row["id"])

    async def look_at_avatar(shop: Shop) -> None:
        avatar = {**who, "avatar_id": customer.avatar_id}
        await read_avatars(shop.darkroom, **who)
        assert await read_avatars_ever(shop.darkroom, **who) > 0
        selfies = await read_selfies(shop.darkroom, **avatar)
        await read_selfie_image(shop.darkroom, **avatar, selfie_id=selfies[0].selfie.id)
        photos = await read_photos(shop.darkroom, **avatar, before_id=None, limit=1)
        file = await find_photo_file(shop.darkroom, **who, photo_id=photos[0].id, variant="full")
        pieces = [piece async for piece in await file.read(0, file.size_bytes)]
        assert hashlib.sha256(b"".join(pieces)).hexdigest() == file.sha256

    async def look_as_an_operator(shop: Shop) -> None:
        assert await read_ledger(shop.darkroom, days=400)
        assert await read_last_balances(shop.darkroom)
        letters = await read_dead_letters(shop.darkroom)
        assert [letter.replayable for letter in letters] == [False], (
            "it is to be made again for free"
        )
        assert await export_catalog(shop.database)
        # Some payments of this day were written without the bank: their money is missing in its list.
        done = await reconcile(shop.darkroom, "bank", Look(grace_seconds=0))
        assert done.failure is None
        for difference in await read_differences(shop.darkroom):
            await close_by_hand(shop.darkroom, difference.id, note="paid in cash")
        for row in await shop.rows("SELECT id FROM payments WHERE provider <> 'past'"):
            evidence = await gather_evidence(shop.darkroom, row["id"])
            assert evidence.record.adds_up
            assert set(evidence.stored.values()) <= {"same"}

    for look in (look_at_orders, look_at_avatar, look_as_an_operator):
        world.insist(look)


def _liked_shown_and_made_again(world: World, customer: Customer) -> None:
    """A photo is marked, shown to others by a link that is ended, and made again once."""
    who = {"user_id": customer.user_id}
    wish = uuid4()

    async def show(shop: Shop) -> int:
        (newest, *_) = await read_sets(shop.darkroom, **who, before_id=None, limit=1)
        assert newest.cover_photo_id is not None
        await mark_favorite(shop.darkroom, **who, photo_id=newest.cover_photo_id, favorite=True)
        (best,) = await read_favorites(shop.darkroom, **who, before_id=None, limit=1)
        link = await share(
            shop.darkroom, **who, job_id=newest.id, photo_id=best.id, days=1, request_id=wish
        )
        if await read_shares(shop.darkroom, **who):
            await open_share(shop.darkroom, link.url.rpartition("/")[2])
        await end_share(shop.darkroom, **who, share_id=link.id)
        await redos_left(shop.darkroom, **who, job_id=newest.id)
        return best.id

    async def look_at_money(shop: Shop) -> None:
        assert (await read_catalog(shop.darkroom)).styles
        for payment in await read_payments(shop.darkroom, **who, before_id=None, limit=9):
            await read_refunds_of(shop.darkroom, **who, payment_id=payment.id)

    photo_id = world.insist(show)
    world.insist(lambda shop: redo_photo(shop.darkroom, **who, photo_id=photo_id, request_id=wish))
    _drain(world)
    world.insist(look_at_money)
    made = world.insist(
        lambda shop: shop.rows(
            "SELECT j.status, (SELECT count(*) FROM photo_shares s "
            "WHERE s.user_id = p.user_id) AS shares FROM payments p "
            "JOIN generation_jobs j ON j.payment_id = p.id WHERE p.redoes_photo_id = %s",
            photo_id,
        )
    )
    assert made == [{"status": "completed", "shares": 1}], made


async def _watch_to_the_end(watch: JobWatch, user_id: int, job_id: int) -> None:
    stream = await watch.watch(user_id=user_id, job_id=job_id, seen=None)
    assert stream is not None
    try:
        async for change in stream:
            if change is not None and change.kind == "end":
                return
    finally:
        await stream.aclose()
        await watch.stop()


def _leaving(world: World) -> None:
    """A customer leaves with money that bought nothing; much later everybody's selfies have had their days."""
    leaver = world.insist(lambda shop: shop.customer(79))
    picture = picture_of(-97)
    first = world.insist(_adding(leaver.avatar_id, picture))
    ids = {"user_id": leaver.user_id, "avatar_id": leaver.avatar_id}
    world.insist(lambda shop: _gone(remove_selfie(shop.darkroom, **ids, selfie_id=first)))
    world.insist(_adding_around_an_eraser(leaver.avatar_id, picture))
    paid_late, paid_unseen = (
        _order(world, leaver, style="signature", key=key) for key in ("late", "unseen")
    )
    world.insist(lambda shop: forget_telegram_user(shop.darkroom, 79))
    # Paid after all: one notice comes, and one was taken by a process that did not know that they left.
    for payment_id in (paid_late, paid_unseen):
        world.bank.pays(payment_id)
    assert world.insist(lambda shop: shop.notify(paid_late)) == "OK"
    world.insist(
        lambda shop: shop.rows(
            "UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now() "
            "WHERE id = %s AND status = 'pending' RETURNING id",
            paid_unseen,
        )
    )
    promised = world.insist(lambda shop: read_promised(shop.darkroom))
    for seconds in (promised.selfie_days * 86_400, 600):
        world.insist(lambda shop: shop.drain())
        world.insist(lambda shop, seconds=seconds: shop.advance(seconds))
    world.insist(lambda shop: shop.drain())
    row = world.insist(
        lambda shop: shop.rows(
            "SELECT forgotten_at IS NOT NULL AS gone, (SELECT count(*) FROM reference_photos "
            "WHERE erased_at IS NULL) AS selfies FROM users WHERE id = %s",
            leaver.user_id,
        )
    )
    assert row == [{"gone": True, "selfies": 0}], row


@dataclass
class _MetByTheEraser:
    """A store that has the eraser come by, right after the bytes of a selfie were put."""

    inner: ObjectStore
    come_by: Callable[[], Awaitable[object]]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        await self.inner.put_once(key, data, content_type)
        await self.come_by()


def _adding_around_an_eraser(avatar_id: int, picture: bytes) -> Callable[[Shop], Awaitable[int]]:
    async def add(shop: Shop) -> int:
        async def erase() -> None:
            while await delete_selfies(shop.darkroom) + await erase_pictures(shop.darkroom):
                pass

        met = cast("ObjectStore", _MetByTheEraser(shop.darkroom.store, erase))
        return await add_selfie(
            replace(shop.darkroom, store=met), avatar_id=avatar_id, data=picture
        )

    return add
