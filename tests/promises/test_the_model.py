"""A stateful model: every promise holds after every step, whatever happens in whatever order.

Customers, bank, provider, workers, time and crashes move by chance; when all is quiet, each photo is
delivered or paid back.

The failing sequence is printed by Hypothesis, smallest first, and replays from its own database.
"""

import asyncio
import os
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

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

from darkroom.core import jobs
from darkroom.core.audit import run_audit
from darkroom.db.database import Database
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.receive import receive_generation_callback, receive_queue_message
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS
from darkroom.kit.checkpoint import checkpoints_handled_by
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
from tests.crash.test_every_checkpoint import NAMES, CrashError
from tests.shop import Customer, Shop, open_shop

T = TypeVar("T")
STEPS = {step.name: step.run for step in (*WORK_STEPS, *HOUSE_STEPS)}
CREATE_MOODS = ("fine", "slow down", "no credit", "silent", "silent but made", "never")
ASK_MOODS = ("fine", "working", "failed", "refused", "silent")
TIME_BOUND = frozenset({"stuck", "message_stuck"})
"""A model's clock leaps without anybody working: how long things stood is asked when all is quiet."""
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "6"))
"""Sequences of one run: some 20 s here; `MODEL_EXAMPLES=500` is a soak."""
STEPS_MAX = 25
PLACES = st.integers(0, 999)
LONGEST_SECONDS = 2 * 86_400
"""Refunds are not sent yet and may wait three days."""


class Model(RuleBasedStateMachine):
    """One shop with two customers, small sets, and every mood of the outside."""

    server = ""
    template = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.name = f"darkroom_model_{uuid.uuid4().hex[:12]}"
        self._admin("CREATE DATABASE {name} TEMPLATE {template}")
        self.folder = tempfile.TemporaryDirectory(prefix="darkroom-model-")
        self.stack = AsyncExitStack()
        self.create_mood = "fine"
        self.ask_mood = "fine"
        self.clock = 0.0
        self.events = 0
        self.payments: list[int] = []
        self.shop = self._run(self._open())

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as admin:
            text = SQL(statement).format(  # pyright: ignore[reportArgumentType] - two literals of this class
                name=Identifier(self.name), template=Identifier(self.template)
            )
            admin.execute(text)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _open(self) -> Shop:
        database = Database(make_conninfo(self.server, dbname=self.name), pool_size=8)
        await database.open()
        self.stack.push_async_callback(database.close)
        shop = await self.stack.enter_async_context(open_shop(database, Path(self.folder.name)))
        async with database.connection() as tx:
            await tx.execute("UPDATE tiers SET photo_count = 3 WHERE id = 'starter'")
        shop.provider.on_create = self._create
        shop.provider.on_ask = self._ask
        self.customers = [await shop.customer(), await shop.customer()]
        return shop

    async def _create(self, request: GenerationRequest) -> Created | Refused | NoAnswer | None:
        match self.create_mood:
            case "slow down":
                return Refused("429", "slow", Again.LATER)
            case "no credit":
                return Refused("402", "broke", Again.PAUSED)
            case "silent":
                return NoAnswer("timeout")
            case "silent but made":
                self.shop.provider.make(request)
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

    def _event(self) -> str:
        self.events += 1
        return f"event-{self.events}"

    async def _try(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        # A refusal changes nothing: the audit after this rule says whether that is so.
        with suppress(RequestRefusedError):
            await work()

    @initialize()
    def begin(self) -> None:
        """Two customers are there."""

    @rule(who=st.integers(0, 1), ordered=st.booleans())
    def order(self, who: int, *, ordered: bool) -> None:
        async def go() -> None:
            style = "signature" if ordered else None
            self.payments.append(await self.shop.ordered(self._customer(who), order_style=style))

        self._run(self._try(go))

    @rule(
        who=st.integers(0, 1),
        create=st.sampled_from(CREATE_MOODS),
        ask=st.sampled_from(ASK_MOODS),
        rounds=st.integers(0, 5),
    )
    def sell(self, who: int, create: str, ask: str, rounds: int) -> None:
        """The usual way, under some mood: single steps alone would seldom get this far."""
        self.create_mood, self.ask_mood = create, ask

        async def go() -> None:
            with suppress(RequestRefusedError):
                payment_id = await self.shop.ordered(self._customer(who), order_style="lifestyle")
                self.payments.append(payment_id)
                await self.shop.notify(payment_id, "paid", self._event())
            for _ in range(rounds):
                await self.shop.round()

        self._run(go())

    def _customer(self, who: int) -> Customer:
        return self.customers[who]

    # What is drawn never depends on what is there: rivals race for real, and a replay must draw the same.
    @rule(which=PLACES, state=st.sampled_from(["paid", "canceled"]), times=st.integers(1, 3))
    def notice(self, which: int, state: str, times: int) -> None:
        if not self.payments:
            return
        payment_id = self.payments[which % len(self.payments)]
        event = self._event()

        async def go() -> None:
            await asyncio.gather(
                *(self.shop.notify(payment_id, state, event) for _ in range(times))
            )

        self._run(go())

    @rule(which=PLACES)
    def pay_without_a_word(self, which: int) -> None:
        if self.payments:
            self.shop.bank.pays(self.payments[which % len(self.payments)])

    @rule(who=st.integers(0, 1), times=st.integers(1, 4))
    def generate(self, who: int, times: int) -> None:
        async def go() -> None:
            one = lambda: self.shop.start(self._customer(who), style="creative")  # noqa: E731
            await asyncio.gather(*(self._try(one) for _ in range(times)))

        self._run(go())

    @rule(step=st.sampled_from(sorted(STEPS)), times=st.integers(1, 3))
    def work(self, step: str, times: int) -> None:
        async def go() -> None:
            await asyncio.gather(*(STEPS[step](self.shop.darkroom) for _ in range(times)))

        self._run(go())

    @rule(rounds=st.integers(1, 4))
    def work_on(self, rounds: int) -> None:
        async def go() -> None:
            for _ in range(rounds):
                await self.shop.round()

        self._run(go())

    @rule(create=st.sampled_from(CREATE_MOODS), ask=st.sampled_from(ASK_MOODS))
    def mood(self, create: str, ask: str) -> None:
        self.create_mood, self.ask_mood = create, ask

    @rule(which=PLACES)
    def callback(self, which: int) -> None:
        created = sorted(self.shop.provider.created)
        if not created:
            return
        task_id = created[which % len(created)]
        token = self.shop.provider.token_of(task_id)
        self._run(
            receive_generation_callback(
                self.shop.darkroom, provider_name="scripted", token=token, provider_task_id=task_id
            )
        )

    @rule(job_id=st.integers(1, 6), message=st.integers(1, 4))
    def queue(self, job_id: int, message: int) -> None:
        self._run(
            receive_queue_message(self.shop.darkroom, message_id=f"m{message}", job_id=job_id)
        )

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0, 61.0, 95.0, 1000.0, 4000.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        if self.clock + seconds < LONGEST_SECONDS:
            self.clock += seconds
            self._run(self.shop.advance(seconds))

    @rule(name=st.sampled_from(NAMES), step=st.sampled_from(sorted(STEPS)))
    def crash(self, name: str, step: str) -> None:
        """A worker dies at this checkpoint, if its step passes it; another is started."""

        async def at(passed: str) -> None:
            if passed == name:
                raise CrashError(name)

        async def go() -> None:
            try:
                with checkpoints_handled_by(at):
                    await STEPS[step](self.shop.darkroom)
            except CrashError:
                pass
            except BaseExceptionGroup as group:
                if group.subgroup(CrashError) is None:
                    raise
            leases = LeaseKeeper(self.shop.database, lease_seconds=10, renew_seconds=3)
            self.shop.darkroom = replace(self.shop.darkroom, leases=leases)

        self._run(go())

    @invariant()
    def every_promise_holds(self) -> None:
        report = self._run(run_audit(self.shop.database))
        broken = [finding for finding in report.findings if finding.name not in TIME_BOUND]
        assert not broken, broken

    def teardown(self) -> None:
        try:
            self.create_mood = self.ask_mood = "fine"
            self.shop.bank.closes_what_waits()
            self._run(self.shop.drain())
            report = self._run(run_audit(self.shop.database))
            assert report.clean, report.findings
            open_rows = self._run(
                self.shop.value(
                    "SELECT (SELECT count(*) FROM generation_jobs "
                    "WHERE status IN ('pending', 'processing')) + (SELECT count(*) FROM payments "
                    "WHERE status = 'pending')"
                )
            )
            assert open_rows == 0
        finally:
            self._run(self.stack.aclose())
            self.runner.close()
            self.folder.cleanup()
            self._admin("DROP DATABASE {name} WITH (FORCE)")


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
    broken = jobs.SETTLE_JOB.replace(
        "WHERE t.share_minor > 0", "WHERE FALSE AND t.share_minor > 0", 1
    )
    assert broken != jobs.SETTLE_JOB
    monkeypatch.setattr(jobs, "SETTLE_JOB", broken)
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
