"""Every status that the flows of today reach, as a moment: how fresh orders come to stand there.

Nothing here writes a status: customers order, the bank's notices arrive, single steps run, workers die.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from darkroom.core.attempts import begin_calls
from darkroom.core.inbox import claim_messages
from darkroom.core.jobs import claim_due_jobs
from darkroom.core.leases import LeaseKind
from darkroom.core.lifecycle import Kind
from darkroom.core.payments import claim_silent_payments
from darkroom.core.people import references_of_jobs
from darkroom.core.refunds import claim_requested
from darkroom.core.tasks import claim_pending, claim_queued, claim_storing
from darkroom.flow.ask_back import ask_back
from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.flow.ask_refunds import ask_unknown_refunds
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.darkroom import request_of
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.send_refunds import send_due_refunds
from darkroom.flow.settle_unknown import settle_unknown_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.ports.generation import (
    Again,
    FailedThere,
    GenerationRequest,
    LinkDeadError,
    Refused,
    Working,
)
from darkroom.ports.payments import (
    RefundAnswer,
    RefundCall,
    RefundFact,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
    RefundState,
    RefundUnderWay,
)
from tests.promises.ends import State
from tests.promises.stage import ONE_PHOTO, TWO_PHOTOS, Case, Stage

LEASE_SECONDS: Final = 10
HELD_SECONDS: Final = 600
"""A worker that is alive and slow: its lease outlasts the messages, and lapses in the drain."""
DEADLINE_SECONDS: Final = 3601
DAY_SECONDS: Final = 90_000


Bring = Callable[[Stage, int], Awaitable[list[Case]]]


@dataclass(frozen=True)
class Moment:
    """A place in an order's life.

    Attributes:
        rows: the statuses its rows stand in; the matrix must have every reachable one.
        at: the same in the words of the rules.
        held: the kind of row that another worker, alive, has in its hands.
        more: another way to a status that a moment has already: with MATRIX=full.
        fresh: its customers come without the order that everybody else has placed already.
        chat: whether photos also go to the chat.
    """

    name: str
    rows: frozenset[tuple[Kind, str]]
    at: State
    bring: Bring
    held: LeaseKind | None
    more: bool
    fresh: bool
    chat: bool


MOMENTS: Final[list[Moment]] = []


def moment(
    name: str,
    *rows: tuple[Kind, str],
    at: State,
    held: LeaseKind | None = None,
    more: bool = False,
    fresh: bool = False,
    chat: bool = False,
) -> Callable[[Bring], Bring]:
    """Put a recipe on the list."""

    def listed(bring: Bring) -> Bring:
        MOMENTS.append(Moment(name, frozenset(rows), at, bring, held, more, fresh, chat))
        return bring

    return listed


MAKING, SHORT = State("making"), State("short")


@moment("payment-pending", ("payment", "pending"), at=State("open"))
async def _pending(stage: Stage, count: int) -> list[Case]:
    return await stage.order(count)


@moment("payment-pending-asked", ("payment", "pending"), at=State("open"), held="payment")
async def _asked(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count)
    await stage.shop.advance(31)
    async with stage.shop.database.connection() as tx:
        await claim_silent_payments(
            tx, limit=10 * count, lease_seconds=HELD_SECONDS, old_after_seconds=DAY_SECONDS
        )
    return cases


@moment("payment-pending-notice-read", ("payment", "pending"), at=State("coming"), held="message")
async def _being_read(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count)
    await stage.hear(cases, "paid")
    async with stage.shop.database.connection() as tx:
        await claim_messages(tx, limit=10 * count, lease_seconds=HELD_SECONDS)
    return cases


@moment("payment-succeeded", ("payment", "succeeded"), at=State("ready"), fresh=True)
async def _ready(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count, style=None)
    await stage.hear(cases, "paid")
    await stage.run(take_due_notices)
    return cases


@moment("payment-succeeded-no-selfie", ("payment", "succeeded"), at=State("waits", "bare"))
async def _waits(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count)
    for case in cases:
        await stage.remove_selfies(case)
    await stage.hear(cases, "paid")
    await stage.run(take_due_notices)
    return cases


@moment("payment-canceled", ("payment", "canceled"), at=State("dead"))
async def _canceled(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count)
    await stage.hear(cases, "canceled")
    await stage.run(take_due_notices)
    return cases


@moment("payment-expired", ("payment", "expired"), at=State("dead"))
async def _expired(stage: Stage, count: int) -> list[Case]:
    cases = await stage.order(count)
    await stage.shop.advance(DAY_SECONDS)
    await stage.run(ask_silent_payments)
    return cases


@moment("job-pending", ("job", "pending"), ("task", "queued"), ("payment", "succeeded"), at=MAKING)
async def _job_pending(stage: Stage, count: int) -> list[Case]:
    return await stage.paid(count)


@moment("job-pending-settled-late", ("job", "pending"), at=MAKING, held="job")
async def _job_overdue(stage: Stage, count: int) -> list[Case]:
    cases = await stage.paid(count)
    await stage.shop.advance(DEADLINE_SECONDS)
    await _take_jobs(stage, count)
    return cases


async def _take_jobs(stage: Stage, count: int) -> None:
    async with stage.shop.database.connection() as tx:
        await claim_due_jobs(tx, limit=10 * count, lease_seconds=HELD_SECONDS)


@moment("job-processing-settled", ("job", "processing"), at=MAKING, held="job")
async def _job_settling(stage: Stage, count: int) -> list[Case]:
    cases = await _storing(stage, count)
    await stage.run(collect_due_photos)
    await _take_jobs(stage, count)
    return cases


@moment("job-completed", ("job", "completed"), ("task", "completed"), at=State("made"))
async def _completed(stage: Stage, count: int) -> list[Case]:
    cases = await _storing(stage, count)
    await stage.run(collect_due_photos, finish_due_jobs)
    return cases


@moment("delivery-pending", ("delivery", "pending"), at=State("made"), chat=True)
async def _delivering(stage: Stage, count: int) -> list[Case]:
    return await _completed(stage, count)


async def _fail_first(request: GenerationRequest) -> FailedThere | None:
    if request.prompt_index == 0:
        return FailedThere("400", "against the rules", Again.NEVER)
    return None


async def _end_short(stage: Stage) -> None:
    with stage.mood(on_ask=_fail_first):
        await stage.run(submit_due_tasks, poll_due_tasks, collect_due_photos, finish_due_jobs)


@moment("job-partial", ("job", "partial"), ("refund", "requested"), at=SHORT, fresh=True)
async def _partial(stage: Stage, count: int) -> list[Case]:
    cases = await stage.paid(count, TWO_PHOTOS)
    await _end_short(stage)
    return cases


@moment("job-failed", ("job", "failed"), ("refund", "requested"), at=SHORT)
async def _failed(stage: Stage, count: int) -> list[Case]:
    cases = await stage.paid(count)
    await _end_short(stage)
    return cases


@moment("payment-refunding", ("payment", "refunding"), at=State("back"), fresh=True)
async def _refunding(stage: Stage, count: int) -> list[Case]:
    cases = await _ready(stage, count)
    for case in cases:
        await ask_back(
            stage.shop.darkroom, user_id=case.customer.user_id, payment_id=case.payment_id
        )
    return cases


@moment("payment-partially-refunded", ("payment", "partially_refunded"), at=State("gift"))
async def _partly_back(stage: Stage, count: int) -> list[Case]:
    cases = await _completed(stage, count)
    for case in cases:
        stage.shop.bank.gives_back(case.payment_id, 100)
    await _hear_of_money_back(stage, cases)
    return cases


async def _hear_of_money_back(stage: Stage, cases: list[Case]) -> None:
    for case in cases:
        await stage.shop.notify(case.payment_id, "money_back", f"came-back-{case.payment_id}")
    await stage.run(take_due_notices)


@moment("refund-sending", ("refund", "sending"), at=State("sending"), held="refund")
async def _on_the_telephone(stage: Stage, count: int) -> list[Case]:
    cases = await _failed(stage, count)
    async with stage.shop.database.connection() as tx:
        await claim_requested(tx, providers=["bank"], limit=10 * count, lease_seconds=HELD_SECONDS)
    return cases


async def _paid_unheard(stage: Stage, count: int) -> list[Case]:
    async def unheard(call: RefundCall) -> RefundAnswer:
        stage.shop.bank.pays_back(call)
        return RefundNoAnswer("timeout")

    cases = await _failed(stage, count)
    with stage.bank_mood(unheard):
        await stage.run(send_due_refunds)
    return cases


moment("refund-unknown", ("refund", "unknown"), at=State("unsure"))(_paid_unheard)


@moment("refund-failed", ("refund", "failed"), at=State("short back"))
async def _refused_there(stage: Stage, count: int) -> list[Case]:
    async def refuse(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("closed", "the account is closed")

    cases = await _failed(stage, count)
    with stage.bank_mood(refuse):
        await stage.run(send_due_refunds, ask_unknown_refunds)
    return cases


@moment(
    "refund-succeeded", ("refund", "succeeded"), ("payment", "refunded"), at=State("short back")
)
async def _paid_back(stage: Stage, count: int) -> list[Case]:
    cases = await _failed(stage, count)
    await stage.run(send_due_refunds)
    return cases


@moment("refund-settled-outside", ("refund", "succeeded"), at=State("short back"), more=True)
async def _paid_by_somebody(stage: Stage, count: int) -> list[Case]:
    cases = await _failed(stage, count)
    for case in cases:
        price = stage.shop.bank.facts[case.payment_id].price.amount_minor
        stage.shop.bank.gives_back(case.payment_id, price)
    await _hear_of_money_back(stage, cases)
    return cases


@moment("refund-failed-unsent", ("refund", "failed"), at=State("short back"), more=True)
async def _cannot_be_sent(stage: Stage, count: int) -> list[Case]:
    """A bank that cannot pay back at all: nobody is called, a person has it."""
    cases = await _failed(stage, count)
    stage.shop.bank.refund_forms = RefundForms.NONE
    await stage.run(send_due_refunds)
    stage.shop.bank.refund_forms = RefundForms.PARTIAL
    return cases


@moment("refund-requested-again", ("refund", "requested"), at=SHORT, more=True)
async def _not_now(stage: Stage, count: int) -> list[Case]:
    async def later(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("429", "slow down", later=True)

    cases = await _failed(stage, count)
    with stage.bank_mood(later):
        await stage.run(send_due_refunds)
    return cases


@moment("refund-unknown-never-there", ("refund", "unknown"), at=SHORT, more=True)
async def _never_arrived(stage: Stage, count: int) -> list[Case]:
    async def lost(_call: RefundCall) -> RefundAnswer:
        return RefundNoAnswer("timeout")

    cases = await _failed(stage, count)
    with stage.bank_mood(lost):
        await stage.run(send_due_refunds)
    return cases


@moment("refund-unknown-refused-there", ("refund", "unknown"), at=State("unsure"), more=True)
async def _refused_unheard(stage: Stage, count: int) -> list[Case]:
    async def refuses_later(call: RefundCall) -> RefundAnswer:
        stage.shop.bank.returned[call.provider_payment_id] = [
            RefundFact(f"no-{call.key}", call.amount, RefundState.REFUSED, call.key)
        ]
        return RefundUnderWay()

    cases = await _failed(stage, count)
    with stage.bank_mood(refuses_later):
        await stage.run(send_due_refunds)
    return cases


async def _granted(stage: Stage, count: int, tier: str) -> list[Case]:
    cases: list[Case] = []
    for _ in range(count):
        customer = stage.people.pop()
        payment_id = await grant_photos(
            stage.shop.darkroom, user_id=customer.user_id, tier_id=tier, request_id=uuid4()
        )
        await stage.shop.start(customer, payment_id=payment_id)
        cases.append(Case(customer, payment_id))
    await _end_short(stage)
    return cases


@moment("job-partial-free", ("job", "partial"), ("task", "failed"), at=State("free"), fresh=True)
async def _free_partial(stage: Stage, count: int) -> list[Case]:
    return await _granted(stage, count, TWO_PHOTOS)


@moment(
    "job-failed-free",
    ("job", "failed"),
    ("task", "failed"),
    at=State("free"),
    more=True,
    fresh=True,
)
async def _free_failed(stage: Stage, count: int) -> list[Case]:
    return await _granted(stage, count, ONE_PHOTO)


@moment("task-queued", ("task", "queued"), ("job", "processing"), at=MAKING)
async def _queued_again(stage: Stage, count: int) -> list[Case]:
    """It failed at the provider, and waits for its next attempt: no doorbell cuts that short."""

    async def fails(_request: GenerationRequest) -> FailedThere:
        return FailedThere("500", "upstream", Again.LATER)

    cases = await _task_pending(stage, count)
    with stage.mood(on_ask=fails):
        await stage.run(poll_due_tasks)
    return cases


@moment("task-submitting", ("task", "submitting"), at=MAKING, held="task")
async def _submitting(stage: Stage, count: int) -> list[Case]:
    cases = await stage.paid(count)
    await _call(stage, count, HELD_SECONDS)
    return cases


async def _call(
    stage: Stage, count: int, lease_seconds: float, *, called: bool = True, made: bool = True
) -> None:
    """A worker claims, calls, and is not heard of: the provider has the task (`made`), we don't know."""
    async with stage.shop.database.connection() as tx:
        tasks = await claim_queued(
            tx, provider=stage.shop.provider.name, limit=10 * count, lease_seconds=lease_seconds
        )
        if not called:
            return
        jobs = sorted({task.job_id for task in tasks})
        await begin_calls(tx, tasks)
        references = await references_of_jobs(tx, jobs)
    for task in tasks if made else ():
        stage.shop.provider.make(request_of(task, references[task.job_id]))


@moment("task-unknown", ("task", "unknown"), at=MAKING)
async def _unknown(stage: Stage, count: int) -> list[Case]:
    return await _lapsed(stage, count)


async def _lapsed(
    stage: Stage, count: int, *, called: bool = True, made: bool = True
) -> list[Case]:
    cases = await stage.paid(count)
    await _call(stage, count, LEASE_SECONDS, called=called, made=made)
    await stage.shop.advance(LEASE_SECONDS + 1)
    await stage.run(settle_unknown_tasks)
    return cases


@moment("task-unknown-never-made", ("task", "unknown"), at=MAKING, more=True)
async def _unknown_and_not_there(stage: Stage, count: int) -> list[Case]:
    return await _lapsed(stage, count, made=False)


@moment("task-queued-never-sent", ("task", "queued"), ("job", "pending"), at=MAKING, more=True)
async def _never_sent(stage: Stage, count: int) -> list[Case]:
    return await _lapsed(stage, count, called=False)


@moment("task-pending", ("task", "pending"), ("job", "processing"), at=MAKING)
async def _task_pending(stage: Stage, count: int) -> list[Case]:
    cases = await stage.paid(count)
    await stage.run(submit_due_tasks)
    return cases


@moment("task-pending-asked", ("task", "pending"), at=MAKING, held="task")
async def _task_asked(stage: Stage, count: int) -> list[Case]:
    cases = await _task_pending(stage, count)
    async with stage.shop.database.connection() as tx:
        await claim_pending(tx, limit=10 * count, lease_seconds=HELD_SECONDS)
    return cases


@moment("task-storing", ("task", "storing"), at=MAKING)
async def _storing(stage: Stage, count: int) -> list[Case]:
    cases = await _task_pending(stage, count)
    await stage.run(poll_due_tasks)
    return cases


@moment("task-storing-fetched", ("task", "storing"), at=MAKING, held="task")
async def _fetching(stage: Stage, count: int) -> list[Case]:
    cases = await _storing(stage, count)
    async with stage.shop.database.connection() as tx:
        await claim_storing(tx, limit=10 * count, lease_seconds=HELD_SECONDS, dying_seconds=0)
    return cases


@moment("task-queued-link-dead", ("task", "queued"), ("job", "processing"), at=MAKING, more=True)
async def _link_died(stage: Stage, count: int) -> list[Case]:
    async def dead(_request: GenerationRequest) -> bytes:
        raise LinkDeadError

    cases = await _storing(stage, count)
    with stage.mood(on_fetch=dead):
        await stage.run(collect_due_photos)
    return cases


@moment("task-completed", ("task", "completed"), ("task", "pending"), at=MAKING, fresh=True)
async def _one_of_two(stage: Stage, count: int) -> list[Case]:
    async def second_works(request: GenerationRequest) -> Working | None:
        return Working() if request.prompt_index == 1 else None

    cases = await stage.paid(count, TWO_PHOTOS)
    with stage.mood(on_ask=second_works):
        await stage.run(submit_due_tasks, poll_due_tasks, collect_due_photos)
    return cases


@moment("task-failed", ("task", "failed"), ("task", "pending"), at=State("failing"), fresh=True)
async def _one_refused(stage: Stage, count: int) -> list[Case]:
    async def refuse_first(request: GenerationRequest) -> Refused | None:
        if request.prompt_index == 0:
            return Refused("400", "against the rules", Again.NEVER)
        return None

    cases = await stage.paid(count, TWO_PHOTOS)
    with stage.mood(on_create=refuse_first):
        await stage.run(submit_due_tasks)
    return cases


def _overdue(name: str, bring: Bring) -> None:
    """The deadline passes at this status, and the job is settled with what it has: nothing."""

    async def past(stage: Stage, count: int) -> list[Case]:
        cases = await bring(stage, count)
        await stage.shop.advance(DEADLINE_SECONDS)
        await stage.run(finish_due_jobs)
        return cases

    moment(f"job-failed-{name}", ("job", "failed"), ("task", "failed"), at=SHORT, more=True)(past)


_overdue("queued", _job_pending)
_overdue("submitting", _submitting)
_overdue("unknown", _unknown)
_overdue("pending", _task_pending)
_overdue("storing", _storing)
