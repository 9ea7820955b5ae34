"""What is left lying is picked up or forgotten, in bounded rounds."""

from darkroom.core.budget import providers_waited_for
from darkroom.core.mail_outbox import sweep_mail
from darkroom.core.payments import list_idle_orders, lock_payment
from darkroom.core.queue_messages import sweep_messages
from darkroom.core.refunds import refund_providers_waited_for
from darkroom.core.selfies import sweep_uploads
from darkroom.core.sessions import sweep_sessions
from darkroom.core.shares import sweep_shares
from darkroom.core.sign_in_links import sweep_links
from darkroom.core.sweeping import forget_idempotency_keys
from darkroom.db.database import DatabaseRefusedError, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.take_notices import start_paid_order
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")


async def sweep(darkroom: Darkroom) -> int:
    """One bounded round: start paid orders that could not start, forget old ids, keys, letters and shares.

    Returns how many rows it touched. Safe at any time, any number of times, by anyone.
    """
    limits = darkroom.limits
    started = await _start_idle_orders(darkroom)
    await _alarm_about_missing_providers(darkroom)
    async with darkroom.database.connection() as tx:
        messages = await sweep_messages(
            tx, older_than_days=limits.dedupe_days, limit=limits.sweep_batch
        )
        keys = await forget_idempotency_keys(
            tx, older_than_days=limits.request_key_days, limit=limits.sweep_batch
        )
        uploads = await sweep_uploads(
            tx, older_than_seconds=limits.uploads_window_seconds, limit=limits.sweep_batch
        )
        sessions = await sweep_sessions(tx, limit=limits.sweep_batch)
        # Letters first: a link stays as long as a letter names it.
        letters = await sweep_mail(tx, older_than_days=limits.mail_days, limit=limits.sweep_batch)
        links = await sweep_links(tx, older_than_days=limits.mail_days, limit=limits.sweep_batch)
        shares = await sweep_shares(tx, limit=limits.sweep_batch)
    return started + messages + keys + sessions + uploads + letters + links + shares


async def _start_idle_orders(darkroom: Darkroom) -> int:
    """Paid orders whose avatar had no selfies when the money came, and has some now."""
    async with darkroom.database.connection() as tx:
        idle = await list_idle_orders(tx, limit=darkroom.limits.batch)
    started = 0
    for payment_id, provider in idle:
        try:
            async with darkroom.database.transaction() as tx:
                payment = await lock_payment(tx, payment_id=payment_id, provider=provider)
                job = None if payment is None else await start_paid_order(darkroom, tx, payment)
                await checkpoint("sweep.before_commit")
        except (RowBusyError, DatabaseRefusedError):
            # One customer who is busy must not keep those behind waiting.
            log.exception("idle order not started", payment_id=payment_id)
            continue
        if job is not None:
            started += 1
            log.info("idle order started", payment_id=payment_id, job_id=job.id)
    return started


async def _alarm_about_missing_providers(darkroom: Darkroom) -> None:
    """Photos and refunds that wait for a provider nobody configured: our fault, not theirs (bugbook C18)."""
    async with darkroom.database.connection() as tx:
        waited_for = await providers_waited_for(tx)
        owed_by = await refund_providers_waited_for(tx)
    missing = [one for one in waited_for if one not in darkroom.generation]
    # Money goes back by the way it came, and by no other that happens to be there (bugbook D16).
    missing += [one for one in owed_by if one not in darkroom.payments]
    for provider in missing:
        log.error("provider not configured", provider=provider)
