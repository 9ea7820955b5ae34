"""A stateful model: every promise holds after every step, whatever happens in whatever order.

Customers, bank, provider, workers, an operator, time and crashes move by chance; when all is quiet, each photo
is delivered or paid back.

The failing sequence is printed by Hypothesis, smallest first, and replays from its own database.
"""

import asyncio
import os
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.core import settle_jobs
from darkroom.core.audit import run_audit
from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.pay_back import (
    GoodwillRequest,
    ask_refund_again,
    pay_back,
    read_open_refunds,
)
from darkroom.flow.receive import receive_generation_callback, receive_queue_message
from darkroom.flow.replay_letters import replay_letters
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS
from darkroom.ports.generation import (
    Again,
    Created,
    FailedThere,
    GenerationRequest,
    NoAnswer,
    ProviderUnavailableError,
    Ready,
    Refused,
    Working,
)
from darkroom.ports.payments import (
    PaidState,
    RefundAnswer,
    RefundCall,
    RefundNoAnswer,
    RefundRefused,
    RefundUnderWay,
)
from tests.crash.places import Place, places
from tests.crash.vanishing import Crash, World
from tests.shop import Customer, Shop

CASES = places()
STEPS = {step.name: step.run for step in (*WORK_STEPS, *HOUSE_STEPS)}
CREATE_MOODS = ("fine", "slow down", "no credit", "silent", "silent but made", "never")
ASK_MOODS = ("fine", "working", "failed", "refused", "silent")
TIME_BOUND = frozenset({"stuck", "message_stuck"})
"""A model's clock leaps without anybody working: how long things stood is asked when all is quiet."""
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "6"))
"""Sequences of one run: some 20 s here; `MODEL_EXAMPLES=500` is a soak."""
STEPS_MAX = 25
PLACES = st.integers(0, 999)
WHO = st.integers(0, 1)
LEFT = """
SELECT (SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')) AS open_jobs,
    (SELECT count(*) FROM payments WHERE status = 'pending') AS open_payments,
    (SELECT count(*) FROM kie_tasks t WHERE t.share_minor > 0
     AND (SELECT count(*) FROM generated_photos p WHERE p.task_id = t.id)
       + (SELECT count(*) FROM refund_lines l WHERE l.task_id = t.id AND l.kind = 'shortfall') <> 1
     AND t.returned_minor < t.share_minor)
    AS unsettled_photos
"""
RETURNED = """
SELECT p.provider_payment_id, sum(s.amount_minor)::BIGINT AS minor FROM refund_settlements s
JOIN refunds r ON r.id = s.refund_id JOIN payments p ON p.id = r.payment_id GROUP BY p.id
"""
LONGEST_SECONDS = 6 * 86_400
"""Some money lies unused for longer than its reminder, none for as long as it goes back by itself."""
REFUND_MOODS = ("fine", "busy", "refuses", "silent", "silent but paid", "slow")
AMOUNTS = st.sampled_from([1, 100, 7129, 20_000, 49_900])


class Model(RuleBasedStateMachine):
    """One shop with two customers, small sets, and every mood of the outside."""

    server = ""
    template = ""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"darkroom_model_{uuid.uuid4().hex[:12]}"
        self._admin("CREATE DATABASE {name} TEMPLATE {template}")
        self.folder = tempfile.TemporaryDirectory(prefix="darkroom-model-")
        self.create_mood = "fine"
        self.ask_mood = "fine"
        self.refund_mood = "fine"
        self.clock = 0.0
        self.events = 0
        dsn = make_conninfo(self.server, dbname=self.name)
        self.world = World(dsn, self.server, Path(self.folder.name), Crash())
        self.world.provider.on_create = self._create
        self.world.provider.on_ask = self._ask
        self.world.bank.on_refund = self._refund
        self.customers = self.world.insist(self._open)

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as admin:
            text = SQL(statement).format(  # pyright: ignore[reportArgumentType] - two literals of this class
                name=Identifier(self.name), template=Identifier(self.template)
            )
            admin.execute(text)

    async def _open(self, shop: Shop) -> list[Customer]:
        await shop.rows("UPDATE tiers SET photo_count = 3 WHERE id = 'starter' RETURNING id")
        return [await shop.customer(), await shop.customer()]

    async def _create(self, request: GenerationRequest) -> Created | Refused | NoAnswer | None:
        match self.create_mood:
            case "slow down":
                return Refused("429", "slow", Again.LATER)
            case "no credit":
                return Refused("402", "broke", Again.PAUSED)
            case "silent":
                return NoAnswer("timeout")
            case "silent but made":
                self.world.provider.make(request)
                return NoAnswer("timeout")
            case "never":
                return Refused("400", "no", Again.NEVER)
            case _:
                return None

    async def _ask(self, _request: GenerationRequest) -> Working | Ready | FailedThere | None:
        match self.ask_mood:
            case "working":
                return Working()
            case "failed":
                return FailedThere("500", "failed", Again.LATER)
            case "refused":
                return FailedThere("400", "refused", Again.NEVER)
            case "silent":
                raise ProviderUnavailableError("silent")
            case _:
                return None

    async def _refund(self, call: RefundCall) -> RefundAnswer | None:
        match self.refund_mood:
            case "busy":
                return RefundRefused("429", "slow down", later=True)
            case "refuses":
                return RefundRefused("closed", "the account is closed")
            case "silent":
                return RefundNoAnswer("timeout")
            case "silent but paid":
                self.world.bank.pays_back(call)
                return RefundNoAnswer("timeout")
            case "slow":
                self.world.bank.pays_back(call)
                return RefundUnderWay()
            case _:
                return None

    def _event(self) -> str:
        self.events += 1
        return f"event-{self.events}"

    def _do(self, work: Callable[[Shop], Awaitable[object]], *, times: int = 1) -> None:
        """Somebody does something, `times` at once. A refusal is fine: the audit asks what it changed."""

        async def once(shop: Shop) -> None:
            with suppress(RequestRefusedError):
                await work(shop)

        async def all_at_once(shop: Shop) -> None:
            await asyncio.gather(*(once(shop) for _ in range(times)))

        self.world.attempt(all_at_once)

    @initialize()
    def begin(self) -> None:
        """Two customers are there."""

    @rule(who=WHO, ordered=st.booleans())
    def order(self, who: int, *, ordered: bool) -> None:
        style = "signature" if ordered else None
        self._do(lambda shop: shop.ordered(self.customers[who], order_style=style))

    @rule(
        who=WHO,
        create=st.sampled_from(CREATE_MOODS),
        ask=st.sampled_from(ASK_MOODS),
        rounds=st.integers(0, 5),
    )
    def sell(self, who: int, create: str, ask: str, rounds: int) -> None:
        """The usual way, under some mood: single steps alone would seldom get this far."""
        self.create_mood, self.ask_mood = create, ask

        async def pay(shop: Shop) -> None:
            payment_id = await shop.ordered(self.customers[who], order_style="lifestyle")
            self.world.bank.pays(payment_id)
            await shop.notify(payment_id, "paid", self._event())

        self._do(pay)
        for _ in range(rounds):
            self._do(lambda shop: shop.round())

    def _payment(self, which: int) -> int | None:
        """One that the bank knows of."""
        known = sorted(self.world.bank.facts)
        return known[which % len(known)] if known else None

    # What is drawn never depends on what is there: rivals race for real, and a replay must draw the same.
    @rule(which=PLACES, state=st.sampled_from(["paid", "canceled"]), times=st.integers(1, 3))
    def notice(self, which: int, state: str, times: int) -> None:
        payment_id = self._payment(which)
        if payment_id is not None:
            if state == "paid":
                self.world.bank.pays(payment_id)
            event = self._event()
            self._do(lambda shop: shop.notify(payment_id, state, event), times=times)

    @rule(which=PLACES)
    def pay_without_a_word(self, which: int) -> None:
        payment_id = self._payment(which)
        if payment_id is not None:
            self.world.bank.pays(payment_id)

    @rule(silent=st.booleans())
    def bank_is_silent(self, *, silent: bool) -> None:
        self.world.bank.silent = silent

    @rule(who=WHO, times=st.integers(1, 4))
    def generate(self, who: int, times: int) -> None:
        self._do(lambda shop: shop.start(self.customers[who], style="creative"), times=times)

    @rule(who=WHO)
    def operator_grants(self, who: int) -> None:
        request_id = uuid.uuid4()
        self._do(
            lambda shop: grant_photos(
                shop.darkroom,
                user_id=self.customers[who].user_id,
                tier_id="starter",
                request_id=request_id,
            ),
            times=2,
        )

    @rule(who=WHO, which=PLACES, times=st.integers(1, 2))
    def customer_asks_back(self, who: int, which: int, times: int) -> None:
        payment_id = self._payment(which)
        if payment_id is not None:
            self._do(
                lambda shop: ask_back(
                    shop.darkroom, user_id=self.customers[who].user_id, payment_id=payment_id
                ),
                times=times,
            )

    @rule(which=PLACES, amount=AMOUNTS, whole=st.booleans(), times=st.integers(1, 2))
    def operator_pays_back(self, which: int, amount: int, times: int, *, whole: bool) -> None:
        payment_id = self._payment(which)
        if payment_id is not None:
            wish = GoodwillRequest(payment_id, None if whole else amount, "sorry", uuid.uuid4())
            self._do(lambda shop: pay_back(shop.darkroom, wish), times=times)

    @rule(times=st.integers(1, 2))
    def operator_asks_again(self, times: int) -> None:
        self._do(_ask_every_refusal_again, times=times)

    @rule(which=PLACES, amount=AMOUNTS, chargeback=st.booleans(), told=st.booleans())
    def somebody_at_the_bank_pays_back(
        self, which: int, amount: int, *, chargeback: bool, told: bool
    ) -> None:
        """Never more than the bank has of it; the notice may be lost."""
        payment_id = self._payment(which)
        if payment_id is None:
            return
        fact = self.world.bank.facts[payment_id]
        left = fact.price.amount_minor - self.world.bank.returned_minor(fact.provider_payment_id)
        if fact.state is PaidState.PAID and left > 0:
            self.world.bank.gives_back(payment_id, min(amount, left), chargeback=chargeback)
        if told:
            event = self._event()
            self._do(lambda shop: shop.notify(payment_id, "money_back", event))

    @rule(mood=st.sampled_from(REFUND_MOODS), keys=st.booleans())
    def bank_pays_back_like_this(self, mood: str, *, keys: bool) -> None:
        self.refund_mood = mood
        self.world.bank.refund_key_seconds = 86_400 if keys else None

    @rule(times=st.integers(1, 2))
    def operator_replays(self, times: int) -> None:
        self._do(lambda shop: replay_letters(shop.darkroom, None, provider=None), times=times)

    @rule(step=st.sampled_from(sorted(STEPS)), times=st.integers(1, 3))
    def work(self, step: str, times: int) -> None:
        self._do(lambda shop: STEPS[step](shop.darkroom), times=times)

    @rule(rounds=st.integers(1, 4))
    def work_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self._do(lambda shop: shop.round())

    @rule(create=st.sampled_from(CREATE_MOODS), ask=st.sampled_from(ASK_MOODS))
    def mood(self, create: str, ask: str) -> None:
        self.create_mood, self.ask_mood = create, ask

    @rule(which=PLACES, times=st.integers(1, 2))
    def callback(self, which: int, times: int) -> None:
        created = sorted(self.world.provider.created)
        if not created:
            return
        task_id = created[which % len(created)]
        token = self.world.provider.token_of(task_id)
        self._do(
            lambda shop: receive_generation_callback(
                shop.darkroom, provider_name="scripted", token=token, provider_task_id=task_id
            ),
            times=times,
        )

    @rule(job_id=st.integers(1, 6), message=st.integers(1, 4), times=st.integers(1, 2))
    def queue(self, job_id: int, message: int, times: int) -> None:
        self._do(
            lambda shop: receive_queue_message(
                shop.darkroom, message_id=f"m{message}", job_id=job_id
            ),
            times=times,
        )

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0, 61.0, 95.0, 1000.0, 4000.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        if self.clock + seconds < LONGEST_SECONDS:
            self.clock += seconds
            self.world.insist(lambda shop: shop.advance(seconds))

    @rule(place=st.sampled_from(CASES), step=st.sampled_from(sorted(STEPS)))
    def crash(self, place: Place, step: str) -> None:
        """The next time that anybody passes this place, the process is gone or the connection lost."""
        self.world.crash = Crash(place)
        self._do(lambda shop: STEPS[step](shop.darkroom))

    @invariant()
    def every_promise_holds(self) -> None:
        report = self.world.insist(lambda shop: run_audit(shop.database))
        broken = [finding for finding in report.findings if finding.name not in TIME_BOUND]
        assert not broken, broken

    @invariant()
    def the_bank_never_pays_back_more_than_it_took(self) -> None:
        """Conservation, by its own books and not by ours."""
        for fact in self.world.bank.facts.values():
            returned = self.world.bank.returned_minor(fact.provider_payment_id)
            assert returned <= fact.price.amount_minor, fact

    def teardown(self) -> None:
        try:
            self._end_of_the_day()
        finally:
            self.world.close()
            self.folder.cleanup()
            self._admin("DROP DATABASE {name} WITH (FORCE)")

    def _end_of_the_day(self) -> None:
        """Everything calm, everybody heard: nothing is open, and each photo is here or its money on its way."""
        self.create_mood = self.ask_mood = self.refund_mood = "fine"
        self.world.crash = Crash()
        self.world.bank.silent = False
        self.world.bank.closes_what_waits()
        self.world.insist(lambda shop: shop.drain())
        for payment_id in sorted(self.world.bank.facts):
            event = self._event()
            self._do(
                lambda shop, one=payment_id, event=event: shop.notify(one, "money_back", event)
            )
        self._do(_ask_every_refusal_again)
        self.world.insist(lambda shop: shop.drain())
        self._compare_the_books()
        report = self.world.insist(lambda shop: run_audit(shop.database))
        assert report.clean, report.findings
        left = self.world.insist(lambda shop: shop.rows(LEFT))
        assert left == [{"open_jobs": 0, "open_payments": 0, "unsettled_photos": 0}], left

    def _compare_the_books(self) -> None:
        """Nothing is owed any more, and what went back is the same in the bank's books and in ours."""
        rows = self.world.insist(lambda shop: shop.rows(RETURNED))
        ours = {row["provider_payment_id"]: row["minor"] for row in rows}
        bank = self.world.bank
        theirs = {one: bank.returned_minor(one) for one in bank.returned}
        assert ours == {one: minor for one, minor in theirs.items() if minor}
        open_refunds = self.world.insist(lambda shop: read_open_refunds(shop.darkroom))
        assert open_refunds == []


async def _ask_every_refusal_again(shop: Shop) -> None:
    for refund in await read_open_refunds(shop.darkroom):
        await ask_refund_again(shop.darkroom, refund.id)


@pytest.mark.timeout(max(300, EXAMPLES * 20))
def test_every_promise_holds_after_every_step(server: str, template: str) -> None:
    Model.server, Model.template = server, template
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.timeout(300)
def test_twin_a_settlement_without_refund_lines_is_found(
    server: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: the model must be able to fail."""
    broken = settle_jobs.SETTLE_JOB.replace(
        "WHERE t.share_minor > t.returned_minor",
        "WHERE FALSE AND t.share_minor > t.returned_minor",
        1,
    )
    assert broken != settle_jobs.SETTLE_JOB
    monkeypatch.setattr(settle_jobs, "SETTLE_JOB", broken)
    Model.server, Model.template = server, template
    # Flaky: the failing order of rivals did not come again at the replay. It failed all the same.
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=60,
                stateful_step_count=STEPS_MAX,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
