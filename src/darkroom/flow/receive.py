"""Messages from outside are checked and kept. Nothing is done here: a step acts later."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from darkroom.core.attempts import token_is_known
from darkroom.core.inbox import store_message
from darkroom.core.jobs import ring_job
from darkroom.core.queue_messages import accept_message
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found, unauthorized
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.generation import SignedCallbacks
from darkroom.ports.payments import (
    MoneyBackNotice,
    Notice,
    NoticeRefusedError,
    PaymentFact,
)

log = get_logger("flow")

EXTERNAL_ID_MAX: Final = 255
CALLBACKS_REFUSED: Final = Counter(
    "darkroom_callbacks_refused_total", "Callbacks without a good signature.", ["provider"]
)


@dataclass(frozen=True, slots=True)
class QueueFailure:
    """A message that the outside queue gave up on, as it told us.

    Attributes:
        message_id: the queue's id of the message; the failure's own where that is missing.
        job_id: what the message was about; None: whatever was due, or nobody can read it.
        status: what the last delivery was answered; 0 is no answer.
    """

    message_id: str
    dlq_id: str | None
    job_id: int | None
    status: int
    retried: int


def fact_payload(fact: PaymentFact) -> dict[str, object]:
    """A payment's fact as the inbox keeps it."""
    return {
        "payment_id": fact.payment_id,
        "provider_payment_id": fact.provider_payment_id,
        "state": fact.state.value,
        "amount_minor": fact.price.amount_minor,
        "currency": fact.price.currency,
    }


def asked_id(payment_id: int, fact: PaymentFact) -> str:
    """What an answer that we asked for is kept under: the same answer again is the same message."""
    price = f"{fact.price.amount_minor}{fact.price.currency}"
    return external_id_of(
        f"asked-{payment_id}-{fact.provider_payment_id}-{fact.state.value}-{price}"
    )


def money_back_payload(notice: MoneyBackNotice) -> dict[str, object]:
    """A doorbell about money back as the inbox keeps it."""
    return {
        "payment_id": notice.payment_id,
        "provider_payment_id": notice.provider_payment_id,
    }


def external_id_of(text: str) -> str:
    """An outside id in our column: itself, or its hash when it is too long."""
    if 0 < len(text) <= EXTERNAL_ID_MAX:
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


async def receive_payment_notice(
    darkroom: Darkroom, *, provider_name: str, headers: Mapping[str, str], body: bytes
) -> str:
    """Keep a provider's signed notice, once. Returns the exact reply the provider wants.

    When it returns, the notice survives any crash. Any number of the same notice is one row.

    Raises:
        RequestRefusedError: 404 for a provider that is off, 401 for what it did not sign.
        DatabaseUnavailableError: not kept; the provider sends it again.
    """
    provider = darkroom.payments.get(provider_name)
    if provider is None:
        raise not_found("provider")
    try:
        notice: Notice = provider.verify(headers, body)
    except NoticeRefusedError as error:
        log.warning("payment notice refused", provider=provider_name, reason=str(error))
        raise unauthorized() from error
    fact = notice.fact
    if isinstance(fact, MoneyBackNotice):
        kind, payload = "money_back", money_back_payload(fact)
    else:
        kind, payload = "payment", fact_payload(fact)
    async with darkroom.database.connection() as tx:
        fresh = await store_message(
            tx,
            source=provider_name,
            external_id=external_id_of(notice.external_id),
            kind=kind,
            payload=payload,
        )
    await checkpoint("receive.notice_stored")
    if fresh:
        await darkroom.doorbell.ring(step="notice")
    return provider.notice_reply


async def receive_generation_callback(
    darkroom: Darkroom,
    *,
    provider_name: str,
    token: UUID,
    provider_task_id: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Keep a doorbell: "look at this task". No signature covers its body, so nothing in it is believed.

    `provider_name` is an account: the callbacks of all its models come here.

    Raises:
        RequestRefusedError: 401 where a signature is asked for and this one is missing, wrong or old.
        RequestRefusedError: 404 for a provider that is off or a token that we never gave out:
            nothing is stored for strangers.
        DatabaseUnavailableError: not kept; polling finds the task without it.
    """
    provider = darkroom.generation.get(provider_name)
    if provider is None:
        raise not_found("provider")
    if isinstance(provider, SignedCallbacks) and not provider.callback_is_genuine(
        headers or {}, provider_task_id
    ):
        CALLBACKS_REFUSED.labels(provider_name).inc()
        log.warning("generation callback refused", provider=provider_name)
        raise unauthorized()
    async with darkroom.database.connection() as tx:
        if not await token_is_known(tx, account=provider_name, token=token):
            raise not_found("task")
        await store_message(
            tx,
            source=f"{provider_name}-callback",
            external_id=external_id_of(f"{token}/{provider_task_id}"),
            kind="generation",
            payload={
                "provider": provider_name,
                "token": str(token),
                "provider_task_id": provider_task_id,
            },
        )
    await checkpoint("receive.callback_stored")
    await darkroom.doorbell.ring(step="notice")


async def receive_queue_message(
    darkroom: Darkroom, *, message_id: str | None, job_id: int | None
) -> bool:
    """Act on a delivery of the outside queue, once: ring the job. False: it was here before.

    No job means whatever is due: that is woken, and no row changes. The dedupe row commits with the effect; a
    crash before that leaves neither, and the redelivery acts. Without a message id the message is processed:
    ringing twice changes nothing. Only this process is woken: told on, the ring would come back for ever.
    """
    async with darkroom.database.transaction() as tx:
        if message_id is not None and not await accept_message(tx, message_id):
            log.info(
                "[Jobs/Process] Duplicate QStash message (idempotency), skipping", job_id=job_id
            )
            return False
        await checkpoint("receive.queue_accepted")
        if job_id is not None:
            await ring_job(tx, job_id)
        await checkpoint("receive.queue_before_commit")
    await darkroom.doorbell.wake()
    return True


async def receive_queue_failure(darkroom: Darkroom, failure: QueueFailure) -> bool:
    """Keep what the outside queue says it gave up on, once a message. False: it was here before.

    When it returns, it survives any crash; a step acts on it.

    Raises:
        DatabaseUnavailableError: not kept; the queue tells it again.
    """
    async with darkroom.database.connection() as tx:
        fresh = await store_message(
            tx,
            source="qstash",
            external_id=external_id_of(failure.message_id),
            kind="queue_failure",
            payload=asdict(failure),
        )
    await checkpoint("receive.queue_failure_stored")
    await darkroom.doorbell.wake()
    return fresh
