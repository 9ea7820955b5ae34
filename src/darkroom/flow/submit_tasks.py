"""Due tasks are offered to their provider.

The attempt row is committed before the call, its answer is written by attempt id after it, and only the
move is fenced. An answer that did not come is the status `unknown`, never a second call.
"""

from collections.abc import Sequence
from typing import Final

from darkroom.core.answers import CreatedThere, write_created
from darkroom.core.attempts import begin_calls, record_refused
from darkroom.core.budget import (
    is_free,
    next_place_seconds,
    note_answer,
    note_silence,
    pause_provider,
    take_budget,
)
from darkroom.core.tasks import (
    TaskClaim,
    claim_queued,
    fail_task,
    move_to_queued,
    move_to_unknown,
)
from darkroom.db.database import Connection, DatabaseRefusedError, RowBusyError
from darkroom.flow.darkroom import Darkroom, request_of
from darkroom.flow.rounds import work_on_each
from darkroom.flow.watch_store import may_put
from darkroom.flow.write_together import WriteTogether
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError
from darkroom.ports.generation import (
    Again,
    Created,
    GenerationProvider,
    GenerationRequest,
    NoAnswer,
    Refused,
)

log = get_logger("flow")

PLACE_SECONDS: Final = 0.01
"""After a place came free: our clock and the database's differ by less, and a look too early is made again."""

MOVES_MADE: Final = (
    "job: pending -> processing",
    "task: queued -> submitting",
    "task: submitting -> pending",
    "task: submitting -> queued",
    "task: submitting -> unknown",
    "task: submitting -> failed",
)


async def submit_due_tasks(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many tasks were claimed.

    A crash before the calls are begun costs nothing. After that, it leaves attempts without an answer:
    `settle_unknown` goes on from there. While the store is known to be another one nothing is bought: it could
    not be kept, and its link may die before somebody mends that.
    """
    if not await may_put(darkroom):
        return 0
    tasks: list[TaskClaim] = []
    for name in darkroom.generation:
        tasks += await _claim_within_budget(darkroom, name)
    if not tasks:
        return 0
    await checkpoint("submit.claimed")
    async with darkroom.database.statement() as tx:
        begun = await begin_calls(tx, tasks)
    await checkpoint("submit.begun")
    ours = [task for task in tasks if task.attempt_id in begun]

    async def write(answers: Sequence[CreatedThere]) -> Sequence[bool]:
        return await _write_created(darkroom, answers)

    async with WriteTogether(write) as together:

        async def submit(task: TaskClaim) -> None:
            await _submit(darkroom, task, request_of(task, begun[task.attempt_id]), together)

        await work_on_each("submit", darkroom.leases, "task", ours, submit)
    return len(tasks)


async def _claim_within_budget(darkroom: Darkroom, provider: str) -> list[TaskClaim]:
    """Take what the provider's budget allows, and the tasks whose turn it is."""
    one = darkroom.generation[provider]
    wanted = granted = darkroom.limits.batch
    claimed: list[TaskClaim] | None = None
    if one.window_requests is None and one.day_credits_max is None:
        async with darkroom.database.statement() as tx:
            claimed = await _claim(darkroom, tx, provider, limit=wanted, while_free=one.account)
            if not claimed and not await is_free(tx, one.account, model=one.model):
                claimed = None
    if claimed is None:
        async with darkroom.database.transaction() as tx:
            budget = await take_budget(
                tx, one.account, wanted=wanted, model=one.model, price_credits=one.price_credits
            )
            granted, claimed = budget.granted, []
            if granted > 0 and budget.is_probe:
                # One set that is never answered must not be asked with again and again: all others wait for it.
                claimed = await _claim(darkroom, tx, provider, limit=granted, is_probe=True)
            if granted > 0 and not claimed:
                claimed = await _claim(darkroom, tx, provider, limit=granted)
    if granted <= 0:
        await _look_when_there_is_a_place(darkroom, one.account)
    if len(claimed) == wanted:
        await darkroom.doorbell.wake("submit")
    return claimed


async def _claim(
    darkroom: Darkroom,
    tx: Connection,
    provider: str,
    *,
    limit: int,
    while_free: str | None = None,
    is_probe: bool = False,
) -> list[TaskClaim]:
    one = darkroom.generation[provider]
    return await claim_queued(
        tx,
        provider=provider,
        limit=limit,
        lease_seconds=darkroom.limits.lease_seconds,
        model=one.model,
        price_credits=one.price_credits,
        while_free=while_free,
        is_probe=is_probe,
    )


async def _look_when_there_is_a_place(darkroom: Darkroom, account: str) -> None:
    async with darkroom.database.connection() as tx:
        place_in_seconds = await next_place_seconds(tx, account)
    if place_in_seconds is not None:
        # Looking every second, each place of the window would stand empty for half a second: a twentieth of
        # what the provider lets us have.
        await darkroom.doorbell.wake(after_seconds=place_in_seconds + PLACE_SECONDS)


async def _submit(
    darkroom: Darkroom,
    task: TaskClaim,
    request: GenerationRequest,
    together: WriteTogether[CreatedThere, bool],
) -> None:
    provider = darkroom.generation[task.provider]
    await checkpoint("submit.before_call")
    answer = await _call(provider, request)
    await checkpoint("submit.after_call")
    if isinstance(answer, Created):
        moved = await together(
            CreatedThere(task, answer.provider_task_id, provider.first_ask_seconds)
        )
        if not moved:
            _warn_of_lost_lease(task)
        return
    await _write_other(darkroom, task, answer)
    await _note_for_all(darkroom, task.provider, answer)


async def _write_created(darkroom: Darkroom, answers: Sequence[CreatedThere]) -> Sequence[bool]:
    """Facts that only this process knows: losing one may cost another task there, so they are tried again.

    Alone: whatever else hears of them comes after. Facts are written once by attempt, moves are guarded.
    """

    async def write(tx: Connection) -> set[int]:
        moved = await write_created(tx, answers)
        await checkpoint("submit.before_commit")
        return moved

    moved = await darkroom.database.settle(
        write, read_back=_written_twice_is_harmless, patient=True
    )
    await checkpoint("submit.after_commit")
    for provider in sorted({one.task.provider for one in answers}):
        await _note_for_all(darkroom, provider, Created(answers[0].provider_task_id))
    return [one.task.id in moved for one in answers]


async def _write_other(darkroom: Darkroom, task: TaskClaim, answer: Refused | NoAnswer) -> None:
    """A refusal, or that no answer came: as hard to get again as a creation."""

    async def write(tx: Connection) -> None:
        await _write_answer(darkroom, tx, task, answer)
        await checkpoint("submit.other_before_commit")

    await darkroom.database.settle(write, read_back=_written_twice_is_harmless, patient=True)
    await checkpoint("submit.other_after_commit")


async def _written_twice_is_harmless(_tx: Connection) -> None:
    return None


def _warn_of_lost_lease(task: TaskClaim) -> None:
    log.warning("answer came after the lease was lost; kept as a fact", task_id=task.id)


async def _note_for_all(
    darkroom: Darkroom, provider: str, answer: Created | Refused | NoAnswer
) -> None:
    """Tell every process what the answer says about the provider. Lost, it is learnt again by the next call."""
    # What is written after a creation is one statement; after others there may be more.
    database = darkroom.database
    place = database.statement() if isinstance(answer, Created) else database.transaction()
    try:
        async with place as tx:
            await _write_budget(darkroom, tx, provider, answer)
    except (RowBusyError, DatabaseRefusedError) as error:
        log.warning("budget not noted", provider=provider, error=type(error).__name__)


async def _write_budget(
    darkroom: Darkroom, tx: Connection, provider: str, answer: Created | Refused | NoAnswer
) -> None:
    one = darkroom.generation[provider]
    match answer:
        case NoAnswer():
            await note_silence(tx, one.account)
        case Refused(code, _, Again.PAUSED | Again.LATER as again, retry_after, only_model):
            # Out of credit, or shut: nobody tries until the pause is over, and no attempt is burned.
            seconds = (
                darkroom.limits.paused_seconds
                if again is Again.PAUSED
                else retry_after or darkroom.limits.slowed_seconds
            )
            await pause_provider(
                tx,
                one.account,
                seconds=seconds,
                reason=code,
                model=one.model if only_model else None,
            )
            await note_answer(tx, one.account)
        case _:
            # Also a photo that is refused for what it is: the provider is open.
            await note_answer(tx, one.account, model=one.model, created=True)


async def _call(
    provider: GenerationProvider, request: GenerationRequest
) -> Created | Refused | NoAnswer:
    try:
        return await provider.create(request)
    except TransactionOpenError:
        raise
    except Exception as error:
        # An adapter that broke while calling may have called: only `unknown` is honest.
        log.exception("create raised", provider=provider.name, task_id=request.task_id)
        return NoAnswer(type(error).__name__)


async def _write_answer(
    darkroom: Darkroom, tx: Connection, task: TaskClaim, answer: Refused | NoAnswer
) -> None:
    limits = darkroom.limits
    match answer:
        case Refused(code, text, Again.NEVER):
            await record_refused(tx, task.attempt_id, code, text)
            moved = await fail_task(
                tx,
                task_id=task.id,
                job_id=task.job_id,
                claim=task.claim,
                source="submitting",
                code=code,
                text=text,
            )
        case Refused(code, text, again, retry_after):
            await record_refused(tx, task.attempt_id, code, text)
            pause = (
                limits.paused_seconds
                if again is Again.PAUSED
                else retry_after
                or backoff_seconds(
                    task.attempts,
                    base_seconds=limits.retry_base_seconds,
                    cap_seconds=limits.retry_cap_seconds,
                )
            )
            moved = await move_to_queued(tx, task, "submitting", error=code, pause_seconds=pause)
        case NoAnswer(text):
            provider = darkroom.generation[task.provider]
            grace = 0 if provider.create_is_idempotent else limits.unknown_grace_seconds
            moved = await move_to_unknown(tx, task, error=text, grace_seconds=grace)
    if not moved:
        _warn_of_lost_lease(task)
