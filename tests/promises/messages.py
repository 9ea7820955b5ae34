"""Every message that a door of today takes, as it is sent to one order. What it changes, `ends.py` says."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID, uuid4, uuid5

from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.make_avatar import AvatarRequest, call_avatar, make_avatar
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.pay_back import (
    GoodwillRequest,
    ask_refund_again,
    look_again,
    note_paid_by_hand,
    pay_back,
)
from darkroom.flow.receive import (
    QueueFailure,
    receive_generation_callback,
    receive_payment_notice,
    receive_queue_failure,
    receive_queue_message,
)
from darkroom.flow.remove import remove_avatar
from darkroom.flow.replay_letters import replay_letters
from darkroom.flow.start_generation import start_generation
from darkroom.flow.take_notices import take_due_notices
from darkroom.flow.work_in_calls import house_rounds, work_rounds
from darkroom.ports.money import Money
from darkroom.ports.payments import Notice, PaidState
from tests.promises.ends import Effect
from tests.promises.stage import ONE_PHOTO, STYLE, Case, Stage
from tests.scripted import ScriptedBank, picture_of

NOBODY: Final = 9_000_000_000
"""An id that no row has."""
OTHER_AMOUNT: Final = "another-amount"
GIVEN: Final = UUID("2b0b8a3c-57f4-4c53-9d2e-5f3c0f2a9d11")
"""An operator's wish is one wish, however often it is typed."""

LOOK: Final = """
SELECT p.id AS payment_id, j.id AS job_id, t.token, t.provider_task_id,
       (SELECT coalesce(array_agg(d.id), '{}') FROM generation_dead_letter_queue d
        WHERE d.job_id = j.id AND d.replayed_at IS NULL) AS letters,
       (SELECT coalesce(array_agg(r.id), '{}') FROM refunds r WHERE r.payment_id = p.id) AS refunds,
       p.succeeded_at IS NOT NULL AND p.amount_minor > 0 AS has_money
FROM payments p
LEFT JOIN generation_jobs j ON j.payment_id = p.id
LEFT JOIN LATERAL (
    SELECT a.token, a.provider_task_id FROM kie_tasks k JOIN task_attempts a ON a.task_id = k.id
    WHERE k.job_id = j.id ORDER BY k.status IN ('completed', 'failed'), k.id, a.number DESC LIMIT 1
) t ON TRUE
WHERE p.id = ANY(%s)
"""
"""What a sender knows of an order: the newest attempt of its first open photo, and its dead letters."""


class TalkativeBank(ScriptedBank):
    """A bank whose notice may name another amount than the one it was asked for."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> Notice:
        *asked, last = body.decode().split()
        if last != OTHER_AMOUNT:
            return super().verify(headers, body)
        notice = super().verify(headers, " ".join(asked).encode())
        return replace(notice, fact=replace(notice.fact, price=Money(1, self.currency)))


@dataclass(frozen=True)
class Facts:
    """What a sender knows of an order at this moment."""

    case: Case
    job_id: int | None
    token: UUID | None
    provider_task_id: str | None
    letters: tuple[int, ...]
    refunds: tuple[int, ...]
    has_money: bool


async def look(stage: Stage, cases: list[Case]) -> dict[Case, Facts]:
    """What is known of these orders now."""
    rows = await stage.shop.rows(LOOK, [case.payment_id for case in cases])
    known = {row["payment_id"]: row for row in rows}
    found: dict[Case, Facts] = {}
    for case in cases:
        row = known[case.payment_id]
        found[case] = Facts(
            case,
            row["job_id"],
            row["token"],
            row["provider_task_id"],
            tuple(row["letters"]),
            tuple(row["refunds"]),
            row["has_money"],
        )
    return found


Send = Callable[[Stage, Facts], Awaitable[object]]
Adds = Literal["payments", "avatars"]


@dataclass(frozen=True)
class Message:
    """One kind of message.

    Attributes:
        door: where it comes in.
        effect: what it does to an order; None: it changes nothing but time.
        adds: what a delivery adds beside the order.
        keyed: two deliveries say that they are the same wish, and add it once.
        to_all: concerns whatever is due, not one order.
    """

    name: str
    door: str
    send: Send
    effect: Effect | None = None
    adds: Adds | None = None
    keyed: bool = False
    to_all: bool = False

    async def deliver(self, stage: Stage, facts: Facts) -> None:
        """Send it once. A refusal is an answer, and must change nothing."""
        with suppress(RequestRefusedError):
            await self.send(stage, facts)


def _notice(
    state: PaidState, *, wrong_amount: bool = False, fresh: bool = False, signed: bool = True
) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        payment_id = facts.case.payment_id
        if payment_id not in stage.shop.bank.facts:
            return  # a free set: no bank knows of it
        event = f"{state.value}-{payment_id}-{stage.next_id() if fresh else wrong_amount}"
        await receive_payment_notice(
            stage.shop.darkroom,
            provider_name="bank",
            headers={"signed": "yes"} if signed else {},
            body=f"{payment_id} {state.value} {event} {OTHER_AMOUNT * wrong_amount}".encode(),
        )

    return send


EFFECTS: Final[dict[PaidState, Effect | None]] = {
    PaidState.WAITING: None,
    PaidState.PAID: "money",
    PaidState.CANCELED: "no money",
}


def _queue(message_id: Callable[[Stage, Facts], str | None]) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        await receive_queue_message(
            stage.shop.darkroom,
            message_id=message_id(stage, facts),
            job_id=facts.job_id or NOBODY,
        )

    return send


async def _any_queue(stage: Stage, _facts: Facts) -> None:
    """Whatever is due, and no job in particular."""
    await receive_queue_message(
        stage.shop.darkroom, message_id=f"any-{stage.next_id()}", job_id=None
    )


async def _gave_up(stage: Stage, facts: Facts) -> None:
    job_id = facts.job_id or NOBODY
    await receive_queue_failure(
        stage.shop.darkroom,
        QueueFailure(f"gave-up-{facts.case.payment_id}", "dlq-1", job_id, status=500, retried=3),
    )


def _callback(
    task: Callable[[Stage, Facts], str], token: Callable[[Facts], UUID | None] = lambda f: f.token
) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        await receive_generation_callback(
            stage.shop.darkroom,
            provider_name=stage.shop.provider.name,
            token=token(facts) or uuid4(),
            provider_task_id=task(stage, facts),
        )

    return send


def _theirs(stage: Stage, facts: Facts) -> str:
    """The provider's task of this attempt, whether or not we heard of it."""
    made = (one for one, asked in stage.shop.provider.created.items() if asked.token == facts.token)
    return next(made, "nobody's")


def _orphan(stage: Stage, facts: Facts) -> str:
    """A task that carries our token, and that nobody told us of."""
    made = stage.shop.provider.created
    known = next((asked for asked in made.values() if asked.token == facts.token), None)
    if facts.provider_task_id is None or known is None:
        return _theirs(stage, facts)
    key = str(facts.token)
    if key not in stage.gifts:
        stage.gifts[key] = stage.shop.provider.make(known).provider_task_id
    return stage.gifts[key]


def _generate(*, by_payment: bool = False, key: str | None = None) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        payment_id = facts.case.payment_id if by_payment else None
        await start_generation(
            stage.shop.darkroom,
            stage.shop.request(facts.case.customer, payment_id=payment_id, style=STYLE, key=key),
        )

    return send


def _order(key: str | None = None) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        user_id = facts.case.customer.user_id
        await order_photos(
            stage.shop.darkroom,
            OrderRequest(user_id, ONE_PHOTO, "bank", None, None, key, uuid4()),
        )

    return send


def _avatar(key: str | None = None) -> Send:
    async def send(stage: Stage, facts: Facts) -> None:
        await make_avatar(
            stage.shop.darkroom, AvatarRequest(facts.case.customer.user_id, "Again", key, uuid4())
        )

    return send


async def _rename(stage: Stage, facts: Facts) -> None:
    one = facts.case.customer
    await call_avatar(
        stage.shop.darkroom, user_id=one.user_id, avatar_id=one.avatar_id, name="Else"
    )


async def _selfie(stage: Stage, facts: Facts) -> None:
    avatar_id = facts.case.customer.avatar_id
    await add_selfie(
        stage.shop.darkroom, avatar_id=avatar_id, data=picture_of(-1_000_000 - avatar_id)
    )


async def _no_selfies(stage: Stage, facts: Facts) -> None:
    await stage.remove_selfies(facts.case)


async def _bury(stage: Stage, facts: Facts) -> None:
    one = facts.case.customer
    await remove_avatar(stage.shop.darkroom, user_id=one.user_id, avatar_id=one.avatar_id)


async def _replay(stage: Stage, facts: Facts) -> None:
    for letter_id in facts.letters or (NOBODY,):
        await replay_letters(stage.shop.darkroom, letter_id, provider=None)


async def _ask_back(stage: Stage, facts: Facts) -> None:
    await ask_back(
        stage.shop.darkroom,
        user_id=facts.case.customer.user_id,
        payment_id=facts.case.payment_id,
    )


async def _money_back(stage: Stage, facts: Facts) -> None:
    payment_id = facts.case.payment_id
    if payment_id in stage.shop.bank.facts:
        await stage.shop.notify(payment_id, "money_back", f"back-{payment_id}")


async def _outside(stage: Stage, facts: Facts) -> None:
    """Somebody at the bank gives back all that it still has; its notice comes as often as it likes."""
    fact = stage.shop.bank.facts.get(facts.case.payment_id)
    if fact is None or not facts.has_money:
        return
    left = fact.price.amount_minor - stage.shop.bank.returned_minor(fact.provider_payment_id)
    if left > 0:
        stage.shop.bank.gives_back(facts.case.payment_id, left)
    await stage.shop.notify(facts.case.payment_id, "money_back", f"outside-{facts.case.payment_id}")
    await stage.run(take_due_notices)


async def _give(stage: Stage, facts: Facts) -> None:
    payment_id = facts.case.payment_id
    wish = GoodwillRequest(payment_id, None, "sorry", uuid5(GIVEN, str(payment_id)))
    await pay_back(stage.shop.darkroom, wish)


async def _again(stage: Stage, facts: Facts) -> None:
    for refund_id in facts.refunds or (NOBODY,):
        await ask_refund_again(stage.shop.darkroom, refund_id)


async def _look_again(stage: Stage, facts: Facts) -> None:
    await look_again(stage.shop.darkroom, facts.case.payment_id)


async def _by_hand(stage: Stage, facts: Facts) -> None:
    for refund_id in facts.refunds or (NOBODY,):
        await note_paid_by_hand(stage.shop.darkroom, refund_id, note="transfer 4711")


async def _poll(stage: Stage, _facts: Facts) -> None:
    await work_rounds(stage.shop.darkroom)


async def _sweep(stage: Stage, _facts: Facts) -> None:
    await house_rounds(stage.shop.darkroom)


BANK = "POST /api/webhooks/payments/{provider}"
PROVIDER = "POST /api/webhooks/generation/{provider}/{token}"
QUEUE = "POST /api/jobs/process"
GENERATE = "POST /api/generate"
PAYMENTS = "POST /api/payments"
PAYMENT = "/api/payments/{payment_id}"
AVATARS = "POST /api/avatars"
AVATAR = "/api/avatars/{avatar_id}"

ALL_MESSAGES: Final = (
    *(Message(f"notice-{s.value}", BANK, _notice(s), effect=EFFECTS[s]) for s in PaidState),
    *(
        Message(f"notice-{s.value}-other-id", BANK, _notice(s, fresh=True), effect=EFFECTS[s])
        for s in PaidState
    ),
    *(
        Message(f"notice-{s.value}-wrong-amount", BANK, _notice(s, wrong_amount=True))
        for s in PaidState
    ),
    Message("notice-unsigned", BANK, _notice(PaidState.PAID, signed=False)),
    Message("queue-same-id", QUEUE, _queue(lambda _stage, facts: f"q{facts.case.payment_id}")),
    Message("queue-other-id", QUEUE, _queue(lambda stage, _facts: f"fresh-{stage.next_id()}")),
    Message("queue-no-id", QUEUE, _queue(lambda _stage, _facts: None)),
    Message("queue-whatever-is-due", QUEUE, _any_queue),
    Message("queue-gave-up", "POST /api/jobs/failed", _gave_up),
    Message("callback", PROVIDER, _callback(_theirs)),
    Message("callback-of-orphan", PROVIDER, _callback(_orphan)),
    Message("callback-wrong-token", PROVIDER, _callback(_theirs, token=lambda _facts: uuid4())),
    Message("callback-forged", PROVIDER, _callback(lambda _stage, facts: f"forged-{facts.token}")),
    Message("generate", GENERATE, _generate(), effect="start"),
    Message("generate-payment", GENERATE, _generate(by_payment=True), effect="start"),
    Message("generate-key", GENERATE, _generate(key="click"), effect="start"),
    Message("order", PAYMENTS, _order(), adds="payments"),
    Message("order-key", PAYMENTS, _order("click"), adds="payments", keyed=True),
    Message("avatar", AVATARS, _avatar(), adds="avatars"),
    Message("avatar-key", AVATARS, _avatar("click"), adds="avatars", keyed=True),
    Message("avatar-rename", f"PATCH {AVATAR}", _rename),
    Message("avatar-remove", f"DELETE {AVATAR}", _bury, effect="bury"),
    Message("selfie", f"POST {AVATAR}/references", _selfie, effect="selfie"),
    Message(
        "selfies-remove",
        f"DELETE {AVATAR}/references/{{reference_id}}",
        _no_selfies,
        effect="no selfie",
    ),
    Message("replay", "darkroom dead-letters replay", _replay, effect="replay"),
    Message("ask-back", f"POST {PAYMENT}/refund", _ask_back, effect="ask back"),
    Message("notice-money-back", BANK, _money_back, effect="told"),
    Message("refund-outside", BANK, _outside, effect="outside"),
    Message("refund-by-operator", "darkroom refunds pay", _give, effect="give"),
    Message("refund-again", "darkroom refunds again", _again, effect="mend"),
    Message("refund-look", "darkroom refunds look", _look_again, effect="told"),
    Message("refund-by-hand", "darkroom refunds by-hand", _by_hand, effect="mend"),
    Message("cron-poll", "GET /api/cron/poll-kie-tasks", _poll, to_all=True),
    Message("cron-sweep", "GET /api/cron/sweep", _sweep, to_all=True),
)
MESSAGES: Final = tuple(message for message in ALL_MESSAGES if not message.to_all)
TICKS: Final = tuple(message for message in ALL_MESSAGES if message.to_all)

NOT_MESSAGES: Final[dict[str, str]] = {
    "POST /api/session": "who somebody is, no order: tests/edges/test_identity.py",
    "DELETE /api/session": "who somebody is, no order: tests/edges/test_identity.py",
    # An order at every status, any number of times, at once: there.
    "DELETE /api/me": "ends everything: tests/edges/test_leaving.py",
    f"POST {AVATAR}/uploads": "promises an address, no order: tests/edges/test_direct_uploads.py",
    f"POST {AVATAR}/uploads/complete": "keeps selfies as `selfie` does: tests/edges/test_direct_uploads.py",
    # The same rounds, called by the queue's own schedules: tests/edges/test_queue_doors.py.
    "POST /api/cron/poll-kie-tasks": "the same as GET, signed by the queue",
    "POST /api/cron/sweep": "the same as GET, signed by the queue",
    # Of a set that is ready; at once, twice, by others: there.
    "POST /api/photos/{photo_id}/redo": "a set of its own, for no money: tests/flow/test_redo.py",
    "PUT /api/photos/{photo_id}/favorite": "a mark, no order: tests/edges/test_gallery.py",
    "DELETE /api/photos/{photo_id}/favorite": "a mark, no order: tests/edges/test_gallery.py",
    "POST /api/jobs/{job_id}/shares": "a link, no order: tests/flow/test_sharing.py",
    "DELETE /api/shares/{share_id}": "a link, no order: tests/flow/test_sharing.py",
    "GET /api/shares": "reads",
    "GET /api/catalog": "reads",
    "GET /api/jobs": "reads",
    "GET /api/payments": "reads",
    "GET /api/policy": "reads",
    "GET /api/openapi.json": "reads",
    "GET /api/payments/{payment_id}": "reads",
    "GET /api/messages": "reads",
    "GET /api/jobs/{job_id}": "reads",
    "GET /api/jobs/{job_id}/events": "reads",
    "GET /api/jobs/{job_id}/photos.zip": "reads",
    "GET /api/avatars": "reads",
    f"GET {AVATAR}/photos": "reads",
    f"GET {AVATAR}/references": "reads",
    f"GET {AVATAR}/references/{{reference_id}}/image": "reads",
    "GET /api/photos/{photo_id}/image": "reads",
    "GET /healthz": "reads",
    "GET /metrics": "reads",
    "GET /": "reads",
    **{
        f"GET {path}": "reads"
        for path in (
            "/assets/{name}", "/terms", "/privacy", "/sign-in", "/sign-in/{token}", "/left", "/s/{token}",
            "/s/{token}/{photo_id}", "/photos/{photo_id}/link",
            "/avatars", "/avatars/{avatar_id}", "/avatars/{avatar_id}/selfies",
            "/avatars/{avatar_id}/selfies/{selfie_id}", "/order", "/payments", "/payments/{payment_id}",
            "/payments/{payment_id}/now", "/payments/{payment_id}/receipt", "/sets", "/sets/{job_id}",
            "/sets/{job_id}/now", "/sets/{job_id}/link", "/favorites", "/shares", "/account",
        )
    },
    # The same flow as the API's doors in the matrix; what is the pages' own: tests/edges/test_pages.py.
    **{
        f"POST {path}": "a page's form"
        for path in (
            "/start", "/sign-in", "/sign-in/demo", "/sign-in/{token}", "/sign-out", "/avatars",
            "/avatars/{avatar_id}/selfies", "/avatars/{avatar_id}/selfies/{selfie_id}/remove",
            "/avatars/{avatar_id}/name", "/avatars/{avatar_id}/remove", "/order",
            "/payments/{payment_id}/ask-back", "/payments/{payment_id}/start", "/payments/{payment_id}/open",
            "/photos/{photo_id}/favorite",
            "/photos/{photo_id}/redo", "/sets/{job_id}/share", "/shares/{share_id}/end", "/account/forget",
        )
    },
    "GET /language/{locale}": "a taste, no order",
}  # fmt: skip
"""Every other door of the application, and why no message of the matrix comes in by it."""
BY_HAND: Final = frozenset(
    {
        "darkroom dead-letters replay",
        "darkroom refunds pay",
        "darkroom refunds again",
        "darkroom refunds by-hand",
        "darkroom refunds look",
    }
)
"""What an operator types."""
NO_DOOR_YET: Final = {"bot update": "telegram"}
"""Messages that no door of today takes, by a word that their door's address will have."""
