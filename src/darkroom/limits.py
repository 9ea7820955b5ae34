"""Bounds of the pipeline: what an operator does not set, each with its derivation."""

from pydantic import BaseModel, ConfigDict


class Limits(BaseModel):
    """Bounds of the pipeline. Not read from the environment: each is derived in its comment."""

    model_config = ConfigDict(frozen=True)

    recovery_seconds: float = 10
    """Promise 5: what a dead worker held goes on within this."""
    lease_seconds: float = 9
    """The promise, less the longest pause between two looks for work (1 s in `flow/steps`)."""
    renew_seconds: float = 3
    """Three renewals a lease: two may fail before the work is lost."""
    batch: int = 20
    """Rows of one claim: kie.ai takes 20 creations in 10 s (external-apis 1.5)."""
    lock_timeout_ms: int = 2000
    """A claim waits this long for another of the same user; a claim takes milliseconds, so a longer wait
    means a stalled peer, and the customer is better told to come back."""
    fallback_after_seconds: float = 600
    """A shut provider keeps its queue so long: ten looks of `paused_seconds`, time for a person to pay in, and
    five sixths of a set's hour are left for the fallback."""
    credits_every_seconds: float = 600
    """Between two readings of a balance: six questions an hour, and a leak is known the same hour."""
    links_alarm_seconds: float = 21_600
    """Six of a link's 24 hours: a night's alarm is heard in the morning."""
    unknown_grace_seconds: float = 90
    """After a lost answer: a callback comes within twice the slowest generations seen (DESIGN 3)."""
    pending_give_up_seconds: float = 900
    """kie.ai itself gives up on its upstream after 600 s (code 408); half as much again on top."""
    line_give_up_seconds: float = 1800
    """In the provider's line, and not begun: half of a set's hour. The other half is left for the fallback;
    where there is none it stands there until the deadline."""
    poll_first_seconds: float = 2.5
    """kie.ai advises the first question after 2 to 3 s."""
    poll_cap_seconds: float = 15
    """The longest pause between two questions: what a lost callback may cost a waiting customer."""
    retry_base_seconds: float = 1
    retry_cap_seconds: float = 60
    """1, 2, 4 ... 60 s: an hour's deadline leaves about 60 tries of a step."""
    paused_seconds: float = 60
    """Out of credit: look again every minute, without burning an attempt."""
    slowed_seconds: float = 2
    """After a 429 without Retry-After: a fifth of kie.ai's window."""
    bad_results_max: int = 3
    """Downloads of one result that were no picture before another generation is bought."""
    callback_tries_max: int = 6
    """Looks at a task that its provider does not know yet: 2 + 4 + ... + 64 s, longer than the grace."""
    payment_ask_first_seconds: float = 30
    """A notice comes within seconds of paying; paying takes longer than this."""
    payment_ask_cap_seconds: float = 600
    payment_expire_seconds: float = 86_400
    """The older system kept a pending generation for 24 h (domain facts)."""
    refund_ask_first_seconds: float = 5
    """A bank's own timeout is about as long: sooner its books may not hold what it is doing."""
    refund_ask_cap_seconds: float = 3600
    """SBP refunds take days (external-apis 4.2): once an hour is enough for those, a notice comes sooner."""
    refund_grace_seconds: float = 600
    """Without keys, a call that is not in the books may still be on its way: YooKassa's longest is 30 s
    (external-apis 5.1), twenty of those."""
    refund_tries_max: int = 30
    """"Not now" so often, an hour apart at the end, is more than a day: then a person looks."""
    dedupe_days: int = 7
    """QStash keeps a failed message at most 7 days; after that a redelivery cannot come."""
    request_key_days: int = 30
    open_jobs_max: int = 10
    """Sets of one customer at once, by hand: three avatars with three styles each, and one more."""
    payments_max: int = 10
    payments_window_seconds: float = 900
    """10 in 15 minutes, as the older system declared for opening payments, and never counted."""
    uploads_max: int = 60
    uploads_window_seconds: float = 3600
    """Three avatars of eight selfies, one file a request, twice over and a little."""
    session_days: int = 30
    """A customer comes back for the photos within a month; after that they open the Mini App again."""
    sign_in_link_seconds: float = 1800
    """Half an hour: a letter that waits in a queue still opens; one that is found a day later does not."""
    sign_in_links_max: int = 5
    sign_in_links_window_seconds: float = 3600
    """Five letters an hour to one address: enough for whoever looks into the wrong mailbox, and no flood."""
    sign_in_letters_max: int = 300
    """And to all strangers: anybody may ask, for anybody's address. A shop of a thousand sets a day writes some
    hundred at its best hour. Not counted to the letter: of two at once, both may be the last."""
    mail_retry_base_seconds: float = 5
    mail_retry_cap_seconds: float = 300
    mail_tries_max: int = 10
    """5, 10, 20 ... 300 s: nine pauses are 25 minutes; after that the letter's link is as good as dead."""
    mail_days: int = 7
    """Letters and links are kept so long as what a session leaves: for a customer who asks where theirs is."""
    look_seconds: float = 2
    """Between two looks at the jobs that are watched: what a lost NOTIFY costs a waiting customer. One
    statement a process, however many watch."""
    look_pause_seconds: float = 0.1
    """After a NOTIFY: ten looks a second at most, however many photos are stored in it."""
    heartbeat_seconds: float = 15
    """Half of the shortest idle time that proxies in front of us close a connection after (30 s)."""
    stream_seconds: float = 600
    """Then the client comes back by itself and shows its session again: an ended one lives on so long. Shorter
    than a link is good, so that none in a live page dies."""
    streams_per_user: int = 5
    """A browser opens 6 connections to one HTTP/1.1 host: one is left for everything else."""
    streams_per_process: int = 500
    """Half of the 1024 open files that a process has by default; the rest is for requests and the pool."""
    sweep_batch: int = 1000
    """Rows a sweep deletes in one statement: milliseconds, so that nobody waits behind it."""
    put_grace_seconds: float = 300
    """A put takes a minute at most (the adapter's own limits, 30 s in line, 30 s under way): after five times
    that none is under way."""
    bucket_check_seconds: float = 60
    """A batch of 20 photos a minute, 28,800 a day: a year of 100 sets a day (550,000 photos) is seen again
    every three weeks, for 0.7 MB read a second."""
    bucket_page: int = 500
    """Objects of one look of the sweeper: half of what one answer of S3 lists, and one statement."""
    bucket_sweep_seconds: float = 60
    """720,000 objects a day: that year's photos and thumbnails in two days, for one listing call a minute."""
    bucket_sweep_pause_seconds: float = 3600
    """At the end of the walk: what becomes a day old meanwhile is in no hurry."""
    orphan_seconds: float = 86_400
    """Anything under way ends within minutes; a day also bears two clocks that differ."""
    audit_seconds: float = 600
    """Every ten minutes, as the model for it does (style-models 2.1)."""
