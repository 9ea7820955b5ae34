"""The steps in the order a payment takes them: the whole way of an order on one page."""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.flow.ask_refunds import ask_unknown_refunds
from darkroom.flow.check_bucket import check_bucket
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.delete_selfies import delete_selfies
from darkroom.flow.empty_avatars import empty_avatars
from darkroom.flow.erase_pictures import erase_pictures
from darkroom.flow.fall_back import fall_back
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.forget_history import forget_history
from darkroom.flow.forget_me import forget_leavers
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.read_balances import read_balances, read_costs
from darkroom.flow.reconcile import reconcile_today
from darkroom.flow.return_unused import return_unused_money
from darkroom.flow.send_mail import send_due_mail
from darkroom.flow.send_refunds import send_due_refunds
from darkroom.flow.settle_unknown import settle_unknown_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.sweep import sweep
from darkroom.flow.sweep_bucket import sweep_bucket
from darkroom.flow.take_notices import take_due_notices
from darkroom.flow.upload_directly import remove_ended_uploads
from darkroom.flow.watch_providers import watch_providers
from darkroom.flow.watch_store import watch_store


class Step(NamedTuple):
    """A bounded round that anyone may call at any time, and how often a worker looks for work.

    Attributes:
        lanes: rounds of this step that one worker runs side by side, so that one slow row does not
            keep the next batch waiting.
        idle_seconds: the pause when there was nothing to do; a doorbell cuts it short.
        leads_to: the steps that may have work at once when this one has done some.
    """

    name: str
    run: Callable[[Darkroom], Awaitable[int]]
    lanes: int
    idle_seconds: float
    leads_to: tuple[str, ...] = ()


WORK_STEPS: Final = (
    Step("notice", take_due_notices, 2, 1),
    Step("submit", submit_due_tasks, 2, 1, ("poll", "finish")),
    Step("settle", settle_unknown_tasks, 1, 1, ("submit", "poll", "finish")),
    Step("poll", poll_due_tasks, 2, 1, ("collect", "submit", "finish")),
    Step("collect", collect_due_photos, 2, 1, ("finish", "submit")),
    Step("finish", finish_due_jobs, 1, 1, ("refund",)),
    Step("refund", send_due_refunds, 1, 1, ("outcome", "finish")),
    Step("outcome", ask_unknown_refunds, 1, 1, ("refund", "finish")),
    Step("mail", send_due_mail, 1, 1),
)
"""What moves an order forward, and what somebody waits for at a door."""

CHORES: Final = (
    Step("store", watch_store, 1, 60),
    Step("unused", return_unused_money, 1, 60),
    Step("sweep", sweep, 1, 60),
    Step("reconcile", reconcile_today, 1, 600),
    Step("selfies", delete_selfies, 1, 60),
    Step("avatars", empty_avatars, 1, 60),
    Step("forget", forget_leavers, 1, 60),
    Step("erase", erase_pictures, 1, 60),
    Step("history", forget_history, 1, 60),
    Step("uploads", remove_ended_uploads, 1, 60),
    Step("fallback", fall_back, 1, 30),
    Step("providers", watch_providers, 1, 30),
    Step("costs", read_costs, 1, 60),
    Step("balances", read_balances, 1, 60),
    Step("check", check_bucket, 1, 60),
    Step("unneeded", sweep_bucket, 1, 60),
)
"""What no customer waits for. A worker does them one after the other, in one lane that no doorbell wakes: they
must not take connections from those who write answers down."""

ENTRANCES: Final = frozenset({"notice", "submit"})
"""Where what comes from outside begins: what the bank and the providers tell, and what customers start."""

HOUSE_STEPS: Final = (Step("ask", ask_silent_payments, 1, 5), *CHORES)
"""What finds what was lost, forgets what is old, and lets go who leaves."""
