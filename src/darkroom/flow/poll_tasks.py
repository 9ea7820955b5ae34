"""Providers are asked about the tasks they have.

A callback only pulls the question forward; with none at all the growing pauses finish every order.
"""

from collections.abc import Sequence
from typing import Final

from darkroom.core.answers import ReadyThere, write_ready
from darkroom.core.attempts import record_failed, record_lost
from darkroom.core.people import references_of_jobs
from darkroom.core.tasks import (
    TaskClaim,
    claim_pending,
    fail_task,
    move_to_queued,
    release,
)
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom, attempts_allowed, fallback_of, request_of
from darkroom.flow.rounds import work_on_each
from darkroom.flow.write_together import WriteTogether
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError
from darkroom.ports.generation import (
    Again,
    FailedThere,
    GenerationRequest,
    ProviderUnavailableError,
    Ready,
    Working,
)

log = get_logger("flow")

MOVES_MADE: Final = (
    "task: pending -> storing",
    "task: pending -> queued",
    "task: pending -> failed",
)


async def poll_due_tasks(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many tasks were claimed. A crash leaves them due again."""
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        tasks = await claim_pending(tx, limit=limits.batch, lease_seconds=limits.lease_seconds)
    if not tasks:
        return 0
    if len(tasks) == limits.batch:
        await darkroom.doorbell.wake("poll")
    await checkpoint("poll.claimed")
    async with darkroom.database.connection() as tx:
        references = await references_of_jobs(tx, sorted({task.job_id for task in tasks}))

    async def write(answers: Sequence[ReadyThere]) -> Sequence[bool]:
        return await _write_ready(darkroom, answers)

    async with WriteTogether(write) as together:

        async def poll(task: TaskClaim) -> None:
            await _poll(darkroom, task, request_of(task, references[task.job_id]), together)

        await work_on_each("poll", darkroom.leases, "task", tasks, poll)
    return len(tasks)


async def _write_ready(darkroom: Darkroom, answers: Sequence[ReadyThere]) -> Sequence[bool]:
    async with darkroom.database.statement() as tx:
        moved = await write_ready(tx, answers)
    await checkpoint("poll.after_commit")
    return [one.task.id in moved for one in answers]


async def _poll(
    darkroom: Darkroom,
    task: TaskClaim,
    request: GenerationRequest,
    together: WriteTogether[ReadyThere, bool],
) -> None:
    provider = darkroom.generation.get(task.provider)
    if provider is None or task.kie_task_id is None:
        log.error("provider not configured", provider=task.provider, task_id=task.id)
        await _ask_later(darkroom, task, error="NOT_CONFIGURED")
        return
    await checkpoint("poll.before_call")
    try:
        answer = await provider.ask(request, task.kie_task_id)
    except ProviderUnavailableError as error:
        await _ask_later(darkroom, task, error=str(error))
        return
    except TransactionOpenError:
        raise
    except Exception as error:
        # A broken adapter says no more about the task than silence does.
        log.exception("ask raised", provider=task.provider, task_id=task.id)
        await _ask_later(darkroom, task, error=type(error).__name__)
        return
    await checkpoint("poll.after_call")
    if isinstance(answer, Ready):
        await together(ReadyThere(task, answer.result_url, answer.credits, answer.dies_at))
        return
    async with darkroom.database.transaction() as tx:
        await _write_answer(darkroom, tx, task, answer)
        await checkpoint("poll.other_before_commit")
    await checkpoint("poll.other_after_commit")


async def _write_answer(
    darkroom: Darkroom, tx: Connection, task: TaskClaim, answer: Working | FailedThere
) -> None:
    match answer:
        case FailedThere(code, text, again, credits_used):
            await record_failed(
                tx, task.attempt_id, code=code, text=text, credits_used=credits_used
            )
            await try_again_or_fail(
                darkroom,
                tx,
                task,
                source="pending",
                code=code,
                text=text,
                final=again is Again.NEVER,
            )
        case Working(in_line):
            fallback = fallback_of(darkroom, task.provider)
            if in_line and fallback is not None and _waits_too_long(darkroom, task):
                await record_lost(tx, task.attempt_id, "still in its provider's line")
                await move_to_queued(
                    tx, task, "pending", error="IN_LINE", pause_seconds=0, provider=fallback
                )
            elif not in_line and task.begun_age_seconds > darkroom.limits.pending_give_up_seconds:
                text = "never heard of again"
                await record_lost(tx, task.attempt_id, text)
                await try_again_or_fail(
                    darkroom, tx, task, source="pending", code="NEVER_DONE", text=text, final=False
                )
            else:
                await release(
                    tx,
                    task,
                    pause_seconds=_pause_seconds(darkroom, task),
                    error=None,
                    hold_doorbells=False,
                    in_line=in_line,
                )


def _waits_too_long(darkroom: Darkroom, task: TaskClaim) -> bool:
    """Another creation would stand behind this one in the same line: only another provider is quicker.

    Where there is none it stands there until it is made, or until its set's deadline gives the money back.
    """
    return task.status_age_seconds > darkroom.limits.line_give_up_seconds


def _pause_seconds(darkroom: Darkroom, task: TaskClaim) -> float:
    """Half the time waited so far: about eight questions for a photo of a minute."""
    limits = darkroom.limits
    return min(max(limits.poll_first_seconds, task.status_age_seconds / 2), limits.poll_cap_seconds)


async def _ask_later(darkroom: Darkroom, task: TaskClaim, *, error: str) -> None:
    """No answer says nothing about the task: keep it, and keep the pause even if a doorbell rings."""
    pause = backoff_seconds(
        task.attempts,
        base_seconds=darkroom.limits.retry_base_seconds,
        cap_seconds=darkroom.limits.retry_cap_seconds,
    )
    async with darkroom.database.transaction() as tx:
        await release(tx, task, pause_seconds=pause, error=error, hold_doorbells=True)


async def try_again_or_fail(
    darkroom: Darkroom,
    tx: Connection,
    task: TaskClaim,
    *,
    source: str,
    code: str,
    text: str,
    final: bool,
) -> None:
    """Another generation while attempts are left, then the fallback's, else a dead letter.

    In the caller's transaction. What is `final` is refused for what it is, and goes nowhere else.
    """
    used_up = task.paid_attempts >= attempts_allowed(darkroom, task.attempts_forgiven)
    fallback = fallback_of(darkroom, task.provider) if used_up else None
    if final or (used_up and fallback is None):
        await fail_task(
            tx,
            task_id=task.id,
            job_id=task.job_id,
            claim=task.claim,
            source=source,
            code=code,
            text=text,
        )
        return
    pause = backoff_seconds(
        task.paid_attempts - 1,
        base_seconds=darkroom.limits.retry_base_seconds,
        cap_seconds=darkroom.limits.retry_cap_seconds,
    )
    if fallback is not None:
        log.warning(
            "photo goes to the fallback",
            task_id=task.id,
            provider=fallback,
            instead_of=task.provider,
        )
    await move_to_queued(tx, task, source, error=code, pause_seconds=pause, provider=fallback)
