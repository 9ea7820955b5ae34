"""How an order ends, and what a message changes about that: the rules of the matrix, as one table."""

from typing import Any, Final, Literal, NamedTuple, get_args

from tests.shop import Shop

# fmt: off
Money = Literal[
    "open", "coming", "crossed", "crossed let go", "dead", "let go", "ready", "waits",
    "making", "made", "failing", "short", "free",
    "back", "bound back", "gifting", "giving", "gift", "failing back", "sending", "unsure", "short back",
]
# fmt: on
Avatar = Literal["ready", "bare", "gone"]
# fmt: off
Effect = Literal[
    "money", "no money", "start", "selfie", "no selfie", "bury", "replay", "time",
    "ask back", "give", "outside", "told", "mend",
]
# fmt: on


class State(NamedTuple):
    """An order as a customer would tell it.

    Attributes:
        money: `open` not paid yet; `coming` paid, and a worker holds the notice; `crossed` and
            besides, a "not paid" was read before it; `dead` closed unpaid; `let go` the same, and its avatar
            was removed (`crossed let go` likewise); `ready` paid and free to use; `waits` paid, and
            its avatar has no selfie; `making`, `made` the set; `failing`, `short` the set with a photo that
            failed, paid back at the end; `free` the same of a free set: nothing to pay back.
            `back`: the unused money goes back, `bound back` while its avatar waits for that; `gifting`,
            `giving`, `gift`: a set whose price goes back all the same, while made, on its way, at the end;
            `failing back` the same of a set with a photo that failed; `sending`: short, and a worker is on
            the telephone; `unsure`: short, the bank has paid, and nobody heard it; `short back`: it is back,
            or a person has it.
        avatar: of the order; `bare` has no selfie.
    """

    money: Money
    avatar: Avatar = "ready"


class Rule(NamedTuple):
    """At such a state this effect leads there. None: stays what it was."""

    effect: Effect
    money: tuple[Money, ...]
    avatar: tuple[Avatar, ...]
    then_money: Money | None
    then_avatar: Avatar | None


ANY_AVATAR: Final[tuple[Avatar, ...]] = get_args(Avatar)
ANY_MONEY: Final[tuple[Money, ...]] = get_args(Money)

# fmt: off
RULES: Final = (
    # Money that came is a fact, whenever it came, and starts its order.
    Rule("money", ("open", "coming", "crossed", "dead"), ("ready",), "making", None),
    Rule("money", ("open", "coming", "crossed", "dead"), ("bare",), "waits", None),
    Rule("money", ("let go", "crossed let go"), ("gone",), "ready", None),
    # "Not paid" ends what is open, and undoes nothing.
    Rule("no money", ("open",), ANY_AVATAR, "dead", None),
    Rule("no money", ("coming",), ANY_AVATAR, "crossed", None),
    # One payment, one set: whoever asks for it, as often as they like.
    Rule("start", ("ready", "waits"), ("ready",), "making", None),
    Rule("selfie", ANY_MONEY, ("bare",), None, "ready"),
    Rule("no selfie", ANY_MONEY, ("ready",), None, "bare"),
    # An avatar goes when nothing paid for needs it any more.
    Rule("bury", ("dead",), ("ready", "bare"), "let go", "gone"),
    Rule("bury", ("crossed",), ("ready", "bare"), "crossed let go", "gone"),
    Rule("bury", ("ready", "made", "free", "back", "gift", "short back"), ("ready", "bare"), None, "gone"),
    # A failed photo is tried again only while its money stays.
    Rule("replay", ("failing", "free"), ANY_AVATAR, "making", None),
    # What happens by itself, with no message at all.
    Rule("time", ("open",), ANY_AVATAR, "dead", None),
    Rule("time", ("coming", "crossed", "waits"), ("ready",), "made", None),
    Rule("time", ("coming", "crossed"), ("bare",), "waits", None),
    Rule("time", ("crossed let go",), ("gone",), "ready", None),
    Rule("time", ("making",), ANY_AVATAR, "made", None),
    Rule("time", ("failing", "failing back", "short", "sending", "unsure"), ANY_AVATAR, "short back", None),
    Rule("time", ("bound back",), ANY_AVATAR, "back", None),
    Rule("time", ("gifting", "giving"), ANY_AVATAR, "gift", None),
    # Unused money: a customer or an operator asks it back, or somebody at the bank gives it.
    Rule("ask back", ("ready",), ANY_AVATAR, "back", None),
    Rule("ask back", ("waits",), ANY_AVATAR, "bound back", None),
    Rule("give", ("ready",), ANY_AVATAR, "back", None),
    Rule("give", ("waits",), ANY_AVATAR, "bound back", None),
    Rule("outside", ("ready", "waits", "bound back"), ANY_AVATAR, "back", None),
    # A set's price: what is delivered is a gift then. What is owed anyway is settled by it.
    Rule("give", ("making",), ANY_AVATAR, "gifting", None),
    Rule("give", ("made",), ANY_AVATAR, "giving", None),
    Rule("give", ("failing",), ANY_AVATAR, "failing back", None),
    Rule("outside", ("making",), ANY_AVATAR, "gifting", None),
    Rule("outside", ("made", "giving"), ANY_AVATAR, "gift", None),
    Rule("outside", ("failing",), ANY_AVATAR, "failing back", None),
    Rule("outside", ("short", "unsure"), ANY_AVATAR, "short back", None),
    # The bank's own books say that our refund was made.
    Rule("told", ("unsure",), ANY_AVATAR, "short back", None),
)
# fmt: on
"""Whatever is not listed changes nothing. Doorbells, and messages that nobody signed, have no effect at
all, so that they appear in no rule."""


def after(state: State, *effects: Effect | None) -> State:
    """The state when these have happened in this order."""
    for effect in effects:
        for rule in RULES:
            if rule.effect == effect and state.money in rule.money and state.avatar in rule.avatar:
                state = State(rule.then_money or state.money, rule.then_avatar or state.avatar)
                break
    return state


END_OF: Final = """
SELECT p.id AS payment_id, p.user_id, p.status, p.generation_consumed AS consumed,
       p.order_avatar_id IS NOT NULL AS bound, p.provider = 'grant' AS free, a.deleted_at IS NOT NULL AS gone,
       j.status AS job_status, j.total_photos,
       (SELECT count(*) FROM generation_jobs o WHERE o.user_id = p.user_id) AS jobs,
       (SELECT count(*) FROM payments o WHERE o.user_id = p.user_id) AS payments,
       (SELECT count(*) FROM avatars o WHERE o.user_id = p.user_id AND o.deleted_at IS NULL) AS avatars,
       (SELECT count(*) FROM reference_photos r
        WHERE r.avatar_id = a.id AND r.deleted_at IS NULL) AS selfies,
       (SELECT count(*) FROM generated_photos g WHERE g.job_id = j.id) AS photos,
       (SELECT count(*) FROM kie_tasks t WHERE t.job_id = j.id AND t.status = 'failed') AS failed,
       (SELECT count(*) FROM telegram_message_queue q WHERE q.job_id = j.id) AS deliveries,
       (SELECT count(*) FROM refunds r WHERE r.payment_id = p.id) AS refunds,
       (SELECT coalesce(sum(b.amount_minor), 0) FROM provider_refunds b WHERE b.payment_id = p.id) AS returned,
       (SELECT count(*) FROM customer_messages m WHERE m.payment_id = p.id) AS told,
       (SELECT count(*) FROM kie_tasks t WHERE t.job_id = j.id AND t.status = 'failed'
        AND t.returned_minor < t.share_minor) AS unpaid,
       p.provider_payment_id AS theirs,
       (SELECT array_agg(m.to_status ORDER BY m.id) FROM move_log m
        WHERE m.kind = 'payment' AND m.row_id = p.id) AS payment_path,
       (SELECT array_agg(m.to_status ORDER BY m.id) FROM move_log m
        WHERE m.kind = 'job' AND m.row_id = j.id) AS job_path
FROM unnest(%s::BIGINT[], %s::BIGINT[]) AS c (payment_id, avatar_id)
JOIN payments p ON p.id = c.payment_id
JOIN avatars a ON a.id = c.avatar_id
LEFT JOIN generation_jobs j ON j.payment_id = p.id
"""
"""An order and all that belongs to it, one row a case."""

STANDING: Final = """
WITH c AS (SELECT p.id AS payment_id, j.id AS job_id FROM payments p
           LEFT JOIN generation_jobs j ON j.payment_id = p.id WHERE p.id = ANY(%s)),
stands AS (
    SELECT c.payment_id, 'payment' AS kind, p.status, p.lease_until
    FROM c JOIN payments p ON p.id = c.payment_id
    UNION ALL SELECT c.payment_id, 'job', j.status, j.lease_until
    FROM c JOIN generation_jobs j ON j.id = c.job_id
    UNION ALL SELECT c.payment_id, 'task', t.status, t.lease_until
    FROM c JOIN kie_tasks t ON t.job_id = c.job_id
    UNION ALL SELECT c.payment_id, 'refund', r.status, r.lease_until
    FROM c JOIN refunds r ON r.payment_id = c.payment_id
    UNION ALL SELECT c.payment_id, 'delivery', q.status, NULL
    FROM c JOIN telegram_message_queue q ON q.job_id = c.job_id
    UNION ALL SELECT c.payment_id, 'message', '', i.lease_until
    FROM c JOIN inbox i ON i.payload ->> 'payment_id' = c.payment_id::TEXT
)
SELECT payment_id, kind, status, coalesce(lease_until > darkroom_now(), FALSE) AS held FROM stands
"""
"""Every row of these orders: its status, and whether a worker that is alive has it in its hands."""

MADE_FOR: Final = """
SELECT j.payment_id, a.token FROM task_attempts a
JOIN kie_tasks t ON t.id = a.task_id JOIN generation_jobs j ON j.id = t.job_id
WHERE j.payment_id = ANY(%s)
"""
"""The tokens that were given to a provider for each order."""

OVERSPENT: Final = """
SELECT t.id AS task_id, 'too many paid attempts' AS what FROM kie_tasks t
WHERE (SELECT count(*) FROM task_attempts a WHERE a.task_id = t.id AND a.refusal_code IS NULL)
      > %s + t.attempts_forgiven
UNION ALL
SELECT a.task_id, 'written off before its grace was over' FROM task_attempts a
WHERE a.end_state = 'lost' AND a.provider_task_id IS NULL
  AND a.ended_at < a.called_at + make_interval(secs => %s)
"""
"""Provider's money that no rule allows: more tries than a photo has, or one that was not waited for."""


class End(NamedTuple):
    """One order as it stands in the database.

    Attributes:
        state: in the words of the rules.
        counts: everything a repeated message could have doubled, by name.
        photos: stored ones.
        theirs, returned: the payment's id at the bank, and what went back of it by our books.
        wrong: what is broken in itself, whatever was expected.
    """

    state: State
    counts: dict[str, Any]
    photos: int
    theirs: str | None
    returned: int
    wrong: list[str]


async def read_ends(shop: Shop, cases: dict[int, int]) -> dict[int, End]:
    """How the orders stand, by payment. `cases` gives each payment's avatar."""
    rows = await shop.rows(END_OF, list(cases), list(cases.values()))
    return {
        row["payment_id"]: End(
            _state(row),
            _counts(row),
            row["photos"],
            row["theirs"],
            int(row["returned"]),
            _wrong(row),
        )
        for row in rows
    }


def _state(row: dict[str, Any]) -> State:
    avatar: Avatar = "gone" if row["gone"] else "ready" if row["selfies"] else "bare"
    return State(_money(row), avatar)


def _money(row: dict[str, Any]) -> Money:
    was_paid = row["status"] not in ("pending", "canceled", "expired")
    money: Money
    match row["status"], row["job_status"]:
        case ("pending", _):
            money = "open"
        case ("canceled" | "expired", _):
            money = "dead" if row["bound"] else "let go"
        case ("succeeded", None):
            money = "waits" if row["bound"] else "ready"
        case ("refunding" | "refunded", None):
            money = "back"
        case (_, "completed") if was_paid:
            money = "made" if row["status"] == "succeeded" else "gift"
        case (_, "partial" | "failed") if was_paid:
            money = "free" if row["free"] else "short back"
        case ("succeeded", "pending" | "processing"):
            money = "failing" if row["failed"] else "making"
        case odd:
            raise AssertionError(f"a state without a name: {odd}")
    return money


def _counts(row: dict[str, Any]) -> dict[str, Any]:
    left_out = ("payment_id", "user_id", "bound", "gone", "theirs")
    return {name: value for name, value in row.items() if name not in left_out}


def _wrong(row: dict[str, Any]) -> list[str]:
    """What no order may ever be: asked when nothing is under way any more."""
    wrong: list[str] = []
    if row["consumed"] is (row["job_status"] is None):
        wrong.append("a consumed payment has its job, and no other has one")
    if row["jobs"] != (0 if row["job_status"] is None else 1):
        wrong.append("more jobs than payments that were paid")
    if row["job_status"] in ("completed", "partial", "failed"):
        if row["photos"] + row["failed"] != row["total_photos"]:
            wrong.append("photos and failures are not the set")
        if row["unpaid"]:
            wrong.append("every photo, or its money")
    return wrong
