"""Our ledger against the payment provider's own list. Says what differs, and mends nothing."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client import Gauge

from darkroom.core.differences import (
    Difference,
    close_difference,
    count_differences,
    list_differences,
)
from darkroom.core.ledger import Seen, Span, close_gone, compare_lines, note_missing, open_span
from darkroom.core.reconciliations import (
    claim_day,
    finish_day,
    finish_missed_days,
    list_missed_days,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.payments import LedgerPage, PaymentProvider, PaymentProviderUnavailableError

log = get_logger("flow")

DIFFERENCES_OPEN: Final = Gauge(
    "darkroom_differences_open",
    "Open differences between our ledger and the payment providers' own lists.",
)
UNREAD_DAYS: Final = Gauge(
    "darkroom_ledger_unread_days",
    "How long ago the earliest day was whose list of a payment provider was not read to its end; 0: none.",
    ["provider"],
)
DAYS: Final = 7
"""Each move is looked at on seven days: news that came late is made up for. Days without a look are, too, by
looks as of those days, each for seven of them: no look grows with what was missed."""
DAYS_MAX: Final = 366
"""Of `darkroom reconcile`: older money is nobody's to give back."""
MISSED_DAYS_QUIET: Final = 1
"""A bank is away for a day now and then. Two, and somebody is told."""
GRACE_SECONDS: Final = 900
"""A bank repeats a notice for minutes, and we ask after at most 10: sooner a move is not missing yet."""
LINES_MAX: Final = 200_000
"""Lines of one look. 1,000 sets a day, half of them paid back in part, are 1,500 lines a day: four months.
Each is remembered as one number in a set, 100 bytes at the most: 20 MB."""
LIST_MAX: Final = 200
"""A page a person still reads; what is not on it comes when those above are closed."""
JUDGE_SECONDS: Final = 120
"""Of one transaction that writes differences: when everything differs, some 100,000 statements."""


@dataclass(frozen=True, slots=True)
class Look:
    """How far back, as of how many days ago, and how old a move must be before it is judged."""

    days: int = DAYS
    grace_seconds: float = GRACE_SECONDS
    ago_days: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a provider's list has come in: lines, and the share of the time that they cover."""

    provider: str
    lines: int
    share: float


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one look at one provider's list said.

    Attributes:
        failure: why the list could not be read to its end; None: it was.
        lines: of the list, read.
        found: differences that this look found.
        closed: those of earlier looks that are gone.
        open: how many are open now, whoever found them.
        differences: the first of those.
    """

    provider: str
    since: datetime
    until: datetime
    failure: str | None
    lines: int
    found: int
    closed: int
    open: int
    differences: list[Difference]

    @property
    def clean(self) -> bool:
        """Whether the list was read to its end and nothing differs."""
        return self.failure is None and self.open == 0


class LedgerTooLongError(Exception):
    """More lines than one look may hold: take fewer days."""


def _silent(_progress: Progress) -> None:
    """Nobody watches."""


async def reconcile(
    darkroom: Darkroom,
    provider_name: str,
    look: Look,
    *,
    report: Callable[[Progress], None] = _silent,
) -> Reconciled:
    """Hold the list of one provider against our rows, page by page, both ways.

    Changes nothing but `differences`. A list that breaks off closes none, and nothing is called missing by it;
    what its pages showed is written down. Harmless to repeat, and by many at once; a crash leaves differences
    that are true, and the next look goes on.

    Raises:
        RequestRefusedError: no such provider is configured.
        DatabaseUnavailableError: the database is gone; look again.
    """
    provider = darkroom.payments.get(provider_name)
    if provider is None:
        raise RequestRefusedError(
            404, "PROVIDER_NOT_FOUND", f"No payment provider {provider_name} is configured"
        )
    async with darkroom.database.connection() as tx:
        span = await open_span(
            tx,
            provider=provider_name,
            days=look.days,
            grace_seconds=look.grace_seconds,
            ago_days=look.ago_days,
        )
    seen = Seen()
    lines = closed = 0
    failure: str | None = None
    try:
        async for page in _read_pages(provider, span):
            lines += len(page.lines)
            await _compare(darkroom, provider_name, span, page, seen)
            report(Progress(provider_name, lines, _share(span, page)))
        closed = await _conclude(darkroom, provider_name, span, seen)
    except PaymentProviderUnavailableError as error:
        failure = f"no answer from {provider_name}: {error}"
    except LedgerTooLongError:
        failure = f"{provider_name} lists more than {LINES_MAX} lines: take fewer days"
    async with darkroom.database.connection() as tx:
        still_open = await count_differences(tx, provider=provider_name)
        differences = await list_differences(tx, provider=provider_name, limit=LIST_MAX)
    return Reconciled(
        provider=provider_name,
        since=span.since,
        until=span.until,
        failure=failure,
        lines=lines,
        found=seen.found,
        closed=closed,
        open=still_open,
        differences=differences,
    )


async def _read_pages(provider: PaymentProvider, span: Span) -> AsyncGenerator[LedgerPage]:
    cursor: str | None = None
    read = 0
    while True:
        page = await provider.read_ledger(span.read_from, span.read_until, cursor)
        await checkpoint("ledger.page_read")
        # An empty page counts, too: a list must come to its end.
        read += max(1, len(page.lines))
        if read > LINES_MAX:
            raise LedgerTooLongError
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


async def _compare(
    darkroom: Darkroom, provider_name: str, span: Span, page: LedgerPage, seen: Seen
) -> None:
    async with darkroom.database.transaction(timeout_seconds=JUDGE_SECONDS) as tx:
        await compare_lines(tx, page.lines, provider=provider_name, span=span, seen=seen)
        await checkpoint("ledger.page_before_commit")


async def _conclude(darkroom: Darkroom, provider_name: str, span: Span, seen: Seen) -> int:
    """The list is whole: what of ours it did not hold is missing there, and what is gone is closed."""
    async with darkroom.database.transaction(timeout_seconds=JUDGE_SECONDS) as tx:
        await note_missing(tx, provider=provider_name, span=span, seen=seen)
        closed = await close_gone(tx, provider=provider_name, span=span)
        await checkpoint("ledger.end_before_commit")
    return closed


def _share(span: Span, page: LedgerPage) -> float:
    """How far through its time the list is: it comes oldest first."""
    if page.next_cursor is None or not page.lines:
        return 1 if page.next_cursor is None else 0
    passed = (page.lines[-1].moved_at - span.read_from) / (span.read_until - span.read_from)
    return min(1, max(0, passed))


async def reconcile_today(darkroom: Darkroom) -> int:
    """Look at each provider's list once a day (UTC), whoever comes first. Returns how many were looked at.

    Cheap when it is done, and harmless from many workers at once. A day whose run died, or was not answered,
    is taken again after an hour; when a later day was read it is made up for, seven days a look. A crash
    leaves the rest of them to tomorrow.
    """
    looked = 0
    for provider_name in darkroom.payments:
        async with darkroom.database.connection() as tx:
            claim = await claim_day(tx, provider=provider_name)
            missed = await list_missed_days(tx, provider=provider_name) if claim else []
        if claim is None:
            continue
        await checkpoint("ledger.day_claimed")
        done = await _look(darkroom, provider_name, Look(), missed=missed)
        if done is None:
            continue
        async with darkroom.database.connection() as tx:
            await finish_day(tx, claim, lines=done.lines, found=done.found)
        looked += 1
        await _make_up_for_missed_days(darkroom, provider_name)
    async with darkroom.database.connection() as tx:
        DIFFERENCES_OPEN.set(await count_differences(tx))
        for provider_name in darkroom.payments:
            missed = await list_missed_days(tx, provider=provider_name)
            UNREAD_DAYS.labels(provider_name).set(max(missed, default=0))
    return looked


async def _make_up_for_missed_days(darkroom: Darkroom, provider_name: str) -> None:
    """Looks as of the days that had none, the latest first. One that fails leaves the rest to tomorrow."""
    # Each turn finishes the latest of at most MISSED_DAYS_MAX days and all within a week of it: fourteen turns.
    while True:
        async with darkroom.database.connection() as tx:
            missed = await list_missed_days(tx, provider=provider_name)
        if not missed:
            return
        await checkpoint("ledger.missed_days")
        latest = missed[0]
        done = await _look(darkroom, provider_name, Look(ago_days=latest), missed=missed)
        if done is None:
            return
        async with darkroom.database.connection() as tx:
            await finish_missed_days(
                tx,
                provider=provider_name,
                from_ago=latest,
                to_ago=max(ago for ago in missed if ago < latest + DAYS),
                lines=done.lines,
                found=done.found,
            )


async def _look(
    darkroom: Darkroom, provider_name: str, look: Look, *, missed: list[int]
) -> Reconciled | None:
    """One look that says what it found; None: the list was not read to its end, which is said, too."""
    done = await reconcile(darkroom, provider_name, look)
    if done.open:
        log.error("our ledger and the provider's differ", provider=provider_name, open=done.open)
    if done.failure is None:
        return done
    say = log.error if max(missed, default=0) > MISSED_DAYS_QUIET else log.warning
    say("the provider's list was not read", failure=done.failure, ago_days=look.ago_days)
    return None


async def read_differences(darkroom: Darkroom) -> list[Difference]:
    """What is open of all providers, oldest first. More than LIST_MAX: there are more."""
    async with darkroom.database.connection() as tx:
        return await list_differences(tx, limit=LIST_MAX + 1)


async def close_by_hand(darkroom: Darkroom, difference_id: int, *, note: str) -> bool:
    """A person has dealt with a difference, and says how. False: no such open one; nothing changed."""
    async with darkroom.database.connection() as tx:
        closed = await close_difference(tx, difference_id, note=note)
    log.info("difference closed", difference_id=difference_id, closed=closed)
    return closed
