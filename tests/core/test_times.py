"""Every time the program keeps, held against the others: no two of them may contradict each other."""

from darkroom.adapters import qstash_doorbell
from darkroom.config import Settings
from darkroom.core.ledger import CLOCK_SECONDS
from darkroom.core.lifecycle import STATUSES
from darkroom.flow import work_in_calls
from darkroom.flow.reconcile import DAYS, GRACE_SECONDS
from darkroom.flow.steps import WORK_STEPS
from darkroom.flow.work_in_calls import ROUND_SECONDS
from darkroom.limits import Limits
from tests.shop import Shop

SERVERLESS_SECONDS = 60
SLOWEST_CALL_SECONDS = 30


async def test_the_times_fit_together(shop: Shop) -> None:
    """bugbook C5, bugbook C11: 10, 12 and 15 minutes, each in another place, and the shortest one won."""
    limits = Limits()
    deadline = await shop.value("SELECT job_deadline_seconds FROM refund_policies")
    stays = {
        (status.kind, status.name): status.longest_stay_seconds or 0
        for status in STATUSES
        if status.longest_stay_seconds is not None
    }
    # A dead worker's rows go on within the promise; a live one may miss two renewals.
    slowest_look = max(step.idle_seconds for step in WORK_STEPS)
    assert limits.lease_seconds + slowest_look <= limits.recovery_seconds
    assert 3 * limits.renew_seconds <= limits.lease_seconds
    # All paid attempts of a photo fit into its set's deadline, each given up no sooner than its provider does.
    attempts = Settings.model_fields["max_generation_attempts"].default
    assert attempts * limits.pending_give_up_seconds < deadline
    # Who is taken out of the provider's line still has time at the fallback.
    assert limits.line_give_up_seconds + limits.pending_give_up_seconds < deadline
    # Nobody is called stuck while the rules still let it wait.
    for status in ("queued", "storing"):
        assert stays["task", status] > deadline, status
    # Counted from the deadline itself.
    for status in ("pending", "processing"):
        assert stays["job", status] > limits.recovery_seconds, status
    assert stays["task", "unknown"] > limits.unknown_grace_seconds
    assert stays["task", "pending"] > limits.line_give_up_seconds + limits.pending_give_up_seconds
    assert stays["task", "submitting"] > limits.lease_seconds
    asked_by = limits.payment_expire_seconds + limits.payment_ask_cap_seconds
    assert stays["payment", "pending"] > asked_by
    # A cron call that lets its last round finish still ends before the host ends it.
    assert ROUND_SECONDS + SLOWEST_CALL_SECONDS < SERVERLESS_SECONDS
    assert (
        ROUND_SECONDS + work_in_calls.GRACE_SECONDS + qstash_doorbell.CALL_SECONDS
        < SERVERLESS_SECONDS
    )
    # What is judged as missing was asked about by ourselves before, and is older than two clocks may differ.
    assert limits.payment_ask_cap_seconds < GRACE_SECONDS
    assert CLOCK_SECONDS < GRACE_SECONDS
    # A payment whose news came as late as it may is still looked at.
    assert stays["payment", "pending"] < DAYS * 86_400
    # No link dies in a page that is still told things: two thirds of its time are left at the least.
    assert limits.stream_seconds <= Settings.model_fields["link_minutes"].default * 60 * 2 / 3


async def test_a_deadline_is_the_one_that_was_sold(shop: Shop) -> None:
    """bugbook C11: the constant was declared, and another number was used."""
    earlier, later = await shop.customer(), await shop.customer()
    await shop.paid(earlier)
    await shop.rows(
        "INSERT INTO refund_policies (whole_price_below_percent, job_deadline_seconds) "
        "VALUES (70, 120) RETURNING id"
    )
    await shop.paid(later)
    for customer, seconds in ((earlier, 3600), (later, 120)):
        job = await shop.start(customer)
        assert (
            await shop.value(
                "SELECT extract(epoch FROM deadline_at - created_at)::INTEGER FROM generation_jobs "
                "WHERE id = %s",
                job.id,
            )
            == seconds
        )
    await shop.drain()
