"""Every status and every allowed move, on one page. Data only, no logic.

The database refuses what is not listed here (`legal_move`, `move_log`), a test compares both, tries
every ordered pair of statuses, and prints `docs/flow.md` from this page.
Not here: retry counts, call timeouts, prices, texts.
"""

from typing import Final, Literal, NamedTuple

Kind = Literal["payment", "job", "task", "refund", "delivery"]

NEW: Final = "new"
"""The status a row had before it existed; an INSERT is a move from here."""

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 60 * MINUTE_SECONDS
DAY_SECONDS: Final = 24 * HOUR_SECONDS


class Status(NamedTuple):
    """One status of one machine.

    Attributes:
        kind: whose status.
        name: as stored.
        meaning: who puts a row there, who takes it out, what a crash leaves.
        longest_stay_seconds: after this a row is a finding of the audit; None for a final status.
    """

    kind: Kind
    name: str
    meaning: str
    longest_stay_seconds: int | None


class Move(NamedTuple):
    """One allowed move: the fact that allows it, and the flow files that make it.

    `by` names them with a space between; it is empty for a move that is legal and that no flow of today makes.
    """

    kind: Kind
    source: str
    target: str
    when: str
    by: str


STATUSES: Final = (
    # --- payment: money in -----------------------------------------------------------------------
    Status(
        "payment",
        "pending",
        "The customer was sent to the provider's page; the row was committed before that call. A notice "
        "or our own question takes it out. A crash leaves it here, and the question is asked again.",
        2 * DAY_SECONDS,
    ),
    Status(
        "payment",
        "succeeded",
        "The provider says the money is ours. Starts at most one job. Resting place of a good payment.",
        None,
    ),
    Status(
        "payment",
        "canceled",
        "The provider says it will not be paid. Money that comes after all is still money.",
        None,
    ),
    Status(
        "payment",
        "expired",
        "Nobody paid for a day and the provider, asked, knew of no money. Late money still counts.",
        None,
    ),
    Status(
        "payment",
        "refunding",
        "Money that bought nothing is on its way back: it can no longer start a job. Entered in the "
        "transaction that writes the refund, left when the provider's books say that all of it is back. "
        "A refund that was refused waits here for a person.",
        14 * DAY_SECONDS,
    ),
    Status("payment", "refunded", "The whole price went back, by the provider's own books.", None),
    Status(
        "payment",
        "partially_refunded",
        "A part of the price of a set went back; more may follow.",
        None,
    ),
    # --- job: one payment's set ------------------------------------------------------------------
    Status(
        "job",
        "pending",
        "Inserted with its tasks in the transaction that consumed the payment. The first task that is "
        "submitted takes it out; the deadline does, if none ever is. Its stay is counted from there.",
        HOUR_SECONDS,
    ),
    Status(
        "job",
        "processing",
        "At least one task was offered to a provider. Left when every task is terminal or the deadline "
        "has passed, with the refund lines in the same transaction. A crash leaves it due. Its stay is "
        "counted from the deadline, and a replay sets another one.",
        HOUR_SECONDS,
    ),
    Status("job", "completed", "Every photo is stored.", None),
    Status(
        "job", "partial", "Some photos are stored, the money of the others is going back.", None
    ),
    Status("job", "failed", "No photo came; the money is going back.", None),
    Status("job", "cancelled", "Stopped before a provider was asked for anything.", None),
    # --- task: one photo -------------------------------------------------------------------------
    Status(
        "task",
        "queued",
        "Waits for a worker and for the provider's budget. The claim takes it out and writes the attempt "
        "row in the same statement.",
        2 * HOUR_SECONDS,
    ),
    Status(
        "task",
        "submitting",
        "A worker is calling the provider. A worker that died here leaves an attempt without an answer: "
        "when the lease ends the task becomes unknown, or moves by the fact the attempt row holds.",
        10 * MINUTE_SECONDS,
    ),
    Status(
        "task",
        "unknown",
        "Nobody knows whether the provider has the task. Waits for its callback during a grace period "
        "(none where creating is idempotent), then one more attempt is made.",
        30 * MINUTE_SECONDS,
    ),
    Status(
        "task",
        "pending",
        "The provider has it. Asked about with growing pauses; a callback only pulls the question "
        "forward. Time in the provider's own line is not the making's. A crash leaves it due.",
        HOUR_SECONDS,
    ),
    Status(
        "task",
        "storing",
        "The provider has a picture; it must be fetched, checked and stored before its link dies. A "
        "crash leaves it due; what was stored already is found by its hash.",
        2 * HOUR_SECONDS,
    ),
    Status(
        "task",
        "completed",
        "Bytes stored, hashed and decodable; the photo's row came in the same transaction. Never left.",
        None,
    ),
    Status(
        "task",
        "failed",
        "A dead letter with its reason. Left only by a replay, and only while its money stays.",
        None,
    ),
    # --- refund: money back ----------------------------------------------------------------------
    Status(
        "refund",
        "requested",
        "Written, with its lines, in the transaction that found the reason. Counts as owed from here. The "
        "claim takes it out, one refund of a payment at a time. Its stay, and that of the next two, is counted "
        "from when it was owed: sent, asked about and sent again it is still not back.",
        7 * DAY_SECONDS,
    ),
    Status(
        "refund",
        "sending",
        "A worker is calling the payment provider; a row in refund_attempts stands before the call. Left "
        "behind by a crash it becomes unknown when the lease ends.",
        7 * DAY_SECONDS,
    ),
    Status(
        "refund",
        "unknown",
        "No answer came, or the provider is still at it. Its books are read until they say what happened; "
        "it is told again only when they say that nothing did.",
        7 * DAY_SECONDS,
    ),
    Status(
        "refund",
        "succeeded",
        "The provider's books hold all of it (or a person paid by hand, with a note). Never left.",
        None,
    ),
    Status(
        "refund",
        "failed",
        "A definite no. Owed until a person asks again, pays by hand, or pays at the provider.",
        None,
    ),
    # --- delivery: a copy in the chat ------------------------------------------------------------
    Status(
        "delivery",
        "pending",
        "Written in the transaction that stored the photo. A worker takes it out.",
        DAY_SECONDS,
    ),
    Status(
        "delivery", "sending", "A worker is sending it. A crash may send it twice.", HOUR_SECONDS
    ),
    Status("delivery", "sent", "The chat has it; the message id is kept.", None),
    Status("delivery", "blocked", "The user blocked the bot or never wrote to it.", None),
    Status("delivery", "failed", "The chat will not take it. The gallery has it.", None),
)

# One move a line:
# fmt: off
MOVES: Final = (
    Move("payment", NEW, "pending", "an order was placed, before the provider is called", "order_photos"),
    Move("payment", NEW, "succeeded", "a grant: no money; or the second money for an order",
         "grant_photos finish_jobs take_notices redo_photo"),
    Move("payment", "pending", "succeeded", "the provider confirms the money", "take_notices"),
    Move("payment", "pending", "canceled", "the provider says it will not be paid",
         "take_notices order_photos"),
    Move("payment", "pending", "expired", "a day without money, and the provider was asked", "ask_payments"),
    # Money that arrived is a fact, not our choice.
    Move("payment", "canceled", "succeeded", "it came late, it is still money", "take_notices"),
    Move("payment", "expired", "succeeded", "it came late, it is still money", "take_notices"),
    Move("payment", "succeeded", "refunding", "money that bought nothing goes back",
         "ask_back return_unused take_notices pay_back forget_me"),
    Move("payment", "refunding", "refunded", "the whole price went back",
         "send_refunds ask_refunds take_notices pay_back"),
    Move("payment", "refunding", "succeeded", "the money stays after all", ""),
    Move("payment", "succeeded", "partially_refunded", "a part went back",
         "send_refunds ask_refunds take_notices pay_back"),
    Move("payment", "succeeded", "refunded", "all of it went back at once, or there was nothing to",
         "send_refunds ask_refunds take_notices pay_back return_unused forget_me"),
    Move("payment", "partially_refunded", "succeeded", "a part that was believed back never left", ""),
    Move("payment", "partially_refunded", "refunded", "the rest went back",
         "send_refunds ask_refunds take_notices pay_back"),
    Move("job", NEW, "pending", "its payment was consumed in the same statement",
         "start_generation redo_photo"),
    Move("job", "pending", "processing", "a task is being submitted", "submit_tasks finish_jobs"),
    Move("job", "processing", "completed", "every task is completed", "finish_jobs"),
    Move("job", "processing", "partial", "no task is open, some failed", "finish_jobs"),
    Move("job", "processing", "failed", "no task is open, all failed", "finish_jobs"),
    Move("job", "pending", "failed", "the deadline passed before anything was submitted", "finish_jobs"),
    Move("job", "pending", "cancelled", "stopped by an operator before anything was submitted", ""),
    Move("job", "partial", "processing", "a failed task is replayed", "replay_letters"),
    Move("job", "failed", "processing", "a failed task is replayed", "replay_letters"),
    Move("task", NEW, "queued", "its job was inserted in the same statement",
         "start_generation redo_photo"),
    Move("task", "queued", "submitting", "claimed; the attempt row stands, the call follows", "submit_tasks"),
    Move("task", "submitting", "pending", "the provider has it", "submit_tasks settle_unknown"),
    Move("task", "submitting", "queued", "a definite no that may change: 429, 402, 455",
         "submit_tasks settle_unknown"),
    # The call may have reached the provider even if no answer came back.
    Move("task", "submitting", "unknown", "no answer, or the worker died before it",
         "submit_tasks settle_unknown"),
    Move("task", "unknown", "pending", "its callback came: the orphan is adopted", "settle_unknown"),
    Move("task", "unknown", "queued", "the grace is over: one more attempt", "settle_unknown"),
    Move("task", "pending", "storing", "the provider has a picture", "poll_tasks"),
    Move("task", "pending", "queued", "it failed there, or was never heard of again", "poll_tasks"),
    Move("task", "storing", "completed", "stored, with its photo's row", "collect_photos"),
    Move("task", "storing", "queued", "its link died before the bytes were here", "collect_photos"),
    Move("task", "queued", "failed", "the job's deadline passed", "finish_jobs"),
    Move("task", "submitting", "failed", "refused for good, or the deadline passed",
         "submit_tasks finish_jobs"),
    Move("task", "unknown", "failed", "attempts used up, or the deadline passed", "settle_unknown finish_jobs"),
    Move("task", "pending", "failed", "attempts used up, or the deadline passed", "poll_tasks finish_jobs"),
    Move("task", "storing", "failed", "attempts used up, or the deadline passed", "collect_photos finish_jobs"),
    Move("task", "failed", "queued", "replayed; its money is not going back", "replay_letters"),
    Move("refund", NEW, "requested", "photos or a price that are owed back",
         "finish_jobs ask_back return_unused take_notices pay_back forget_me"),
    Move("refund", "requested", "sending", "claimed, before the call", "send_refunds"),
    Move("refund", "sending", "succeeded", "the provider says it is done", "send_refunds"),
    Move("refund", "sending", "unknown", "no answer, or the worker died before it",
         "send_refunds ask_refunds"),
    Move("refund", "sending", "failed", "a definite no", "send_refunds"),
    Move("refund", "sending", "requested", "nothing was begun there: its books could not be read, or "
         "it wants to be asked later", "send_refunds"),
    Move("refund", "unknown", "succeeded", "asked: it is done", "ask_refunds take_notices"),
    Move("refund", "unknown", "requested", "asked: it never happened", "ask_refunds"),
    Move("refund", "unknown", "failed", "asked: it was refused", "ask_refunds take_notices"),
    Move("refund", "failed", "requested", "a person asked again: a new key, the same row", "pay_back"),
    # Money that moves outside settles the rows that wait for it.
    Move("refund", "requested", "succeeded", "it was paid back at the provider, by somebody else",
         "take_notices send_refunds ask_refunds"),
    Move("refund", "failed", "succeeded", "paid at the provider by somebody, or by hand",
         "take_notices ask_refunds pay_back"),
    Move("delivery", NEW, "pending", "a photo was stored", "collect_photos"),
    Move("delivery", "pending", "sending", "claimed, before the call", ""),
    Move("delivery", "sending", "sent", "the chat answered with a message id", ""),
    Move("delivery", "sending", "pending", "not now: 429, 5xx, no answer", ""),
    Move("delivery", "sending", "blocked", "the user blocked the bot", ""),
    Move("delivery", "sending", "failed", "refused for good", ""),
    Move("delivery", "blocked", "pending", "the user wrote /start", ""),
)
# fmt: on

TABLES: Final[dict[Kind, str]] = {
    "payment": "payments",
    "job": "generation_jobs",
    "task": "kie_tasks",
    "refund": "refunds",
    "delivery": "telegram_message_queue",
}
