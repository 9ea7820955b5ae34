"""Outsides that answer as a test tells them: at the ports, where no protocol matters."""

import hashlib
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from PIL import Image

from darkroom.adapters.pictures import read_picture
from darkroom.kit.outside import assert_no_transaction
from darkroom.ports.generation import (
    Adoption,
    Created,
    FailedThere,
    GenerationRequest,
    NoAnswer,
    Ready,
    Refused,
    Working,
)
from darkroom.ports.intake import Measures, RefusalCode, Selfie
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    Checkout,
    LedgerLine,
    LedgerPage,
    MoneyBackNotice,
    Notice,
    NoticeRefusedError,
    PaidState,
    PaymentFact,
    PaymentMoney,
    PaymentProviderUnavailableError,
    PaymentRequest,
    RefundAlready,
    RefundAnswer,
    RefundCall,
    RefundDone,
    RefundFact,
    RefundForms,
    RefundRefused,
    RefundState,
)
from darkroom.ports.pictures import Developed
from darkroom.ports.storage import ObjectStore

Answer = Created | Refused | NoAnswer


def picture_of(task_id: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """A small JPEG that differs by task."""
    colour = hashlib.sha256(str(task_id).encode()).digest()[:3]
    out = io.BytesIO()
    Image.new("RGB", size, (colour[0], colour[1], colour[2])).save(out, "JPEG")
    return out.getvalue()


async def only_read(data: bytes) -> Developed:
    """For those who make many photos and look at none of them small."""
    return Developed(await read_picture(data), None, "not asked for")


@dataclass
class ScriptedProvider:
    """A generation provider without idempotency, as kie.ai is.

    `on_create`, `on_ask`, `on_fetch` replace an answer; they get the request and may return, raise or wait.
    `created` holds every task the provider would bill, by its id; `given` the hashes of what was fetched of
    each. `ids` begins each id: processes that share a database take different ones, as one real provider
    never gives an id twice.
    """

    name: str = "scripted"
    account: str = "scripted"
    model: str = "script"
    ids: str = "task"
    price_credits: float | None = 1.0
    day_credits_max: float | None = None
    credits_low: float = 0
    credits_left: float = 10_000
    create_is_idempotent: bool = False
    needs_good_selfie: bool = False
    call_seconds: float = 5
    fetch_seconds: float = 5
    first_ask_seconds: float = 0
    window_requests: int | None = None
    window_seconds: float = 10
    created: dict[str, GenerationRequest] = field(default_factory=dict[str, GenerationRequest])
    given: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    on_create: Callable[[GenerationRequest], Awaitable[Answer | None]] | None = None
    on_ask: (
        Callable[[GenerationRequest], Awaitable[Working | Ready | FailedThere | None]] | None
    ) = None
    on_fetch: Callable[[GenerationRequest], Awaitable[bytes | None]] | None = None
    on_credits: Callable[[], Awaitable[None]] | None = None

    def make(self, request: GenerationRequest) -> Created:
        """A task is made there, whoever hears of it."""
        task_id = f"{self.ids}-{len(self.created) + 1}"
        self.created[task_id] = request
        self.credits_left -= 1
        return Created(task_id)

    async def create(self, request: GenerationRequest) -> Answer:
        assert_no_transaction("scripted.create")
        if self.on_create is not None:
            answer = await self.on_create(request)
            if answer is not None:
                return answer
        return self.make(request)

    async def ask(
        self, request: GenerationRequest, provider_task_id: str
    ) -> Working | Ready | FailedThere:
        assert_no_transaction("scripted.ask")
        if self.on_ask is not None:
            answer = await self.on_ask(request)
            if answer is not None:
                return answer
        return Ready(f"https://results.example/{provider_task_id}", 1.0)

    async def fetch(
        self, request: GenerationRequest, provider_task_id: str, result_url: str
    ) -> bytes:
        """What lies at the address, as at a real provider: whoever brings another's gets another's picture."""
        assert_no_transaction("scripted.fetch")
        named = result_url.rpartition("/")[2]
        made = named if named in self.created else provider_task_id
        data = None if self.on_fetch is None else await self.on_fetch(request)
        if data is None:
            data = picture_of(self.created.get(made, request).task_id)
        self.given.setdefault(provider_task_id, set())
        self.given.setdefault(made, set()).add(hashlib.sha256(data).hexdigest())
        return data

    async def whose(self, provider_task_id: str) -> Adoption | None:
        request = self.created.get(provider_task_id)
        return None if request is None else Adoption(provider_task_id, request.token)

    async def close(self) -> None:
        return None

    async def read_credits(self) -> float:
        assert_no_transaction("scripted.credits")
        left = self.credits_left
        if self.on_credits is not None:
            await self.on_credits()
        return left

    async def read_cost(self, provider_task_id: str) -> float | None:
        assert_no_transaction("scripted.cost")
        return 1.0 if provider_task_id in self.created else None

    def token_of(self, provider_task_id: str) -> UUID:
        """The token a task was made with."""
        return self.created[provider_task_id].token


@dataclass
class ScriptedIntake:
    """Takes every file for a good selfie, as it is; `answers` says otherwise for some."""

    answers: dict[bytes, Selfie | RefusalCode] = field(
        default_factory=dict[bytes, Selfie | RefusalCode]
    )
    looked_at: int = 0

    async def look(self, read: Callable[[], bytes]) -> Selfie | RefusalCode:
        assert_no_transaction("intake.look")
        self.looked_at += 1
        data = read()
        return self.answers.get(data) or scripted_selfie(data)

    async def warm(self) -> None:
        return None

    async def close(self) -> None:
        return None


def scripted_selfie(data: bytes, *, dhash: int | None = None) -> Selfie:
    """A good selfie made of these bytes; its 64 bits are far from those of other bytes."""
    far = int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)
    return Selfie(
        data=data,
        width=48,
        height=64,
        dhash=far if dhash is None else dhash,
        warnings=(),
        severe=(),
        measures=Measures(1, 300.0, 0.1, 0.5, 0.0, 0.0),
    )


@dataclass
class ScriptedBank:
    """A payment provider whose answers a test sets."""

    name: str = "bank"
    currency: str = "RUB"
    notice_reply: str = "OK"
    facts: dict[int, PaymentFact] = field(default_factory=dict[int, PaymentFact])
    keys: list[str] = field(default_factory=list[str])
    asked_for: list[PaymentRequest] = field(default_factory=list[PaymentRequest])
    silent: bool = False
    refund_forms: RefundForms = RefundForms.PARTIAL
    refund_key_seconds: float | None = 86_400
    receipt_email_needed: bool = False
    checkout_base: str = "https://bank.example/"
    returned: dict[str, list[RefundFact]] = field(default_factory=dict[str, list[RefundFact]])
    refund_calls: list[RefundCall] = field(default_factory=list[RefundCall])
    on_refund: Callable[[RefundCall], Awaitable[RefundAnswer | None]] | None = None
    on_read: Callable[[PaymentMoney], Awaitable[None]] | None = None
    on_ledger: Callable[[list[LedgerLine], str | None], Awaitable[LedgerPage]] | None = None

    async def create(self, request: PaymentRequest) -> Checkout:
        assert_no_transaction("bank.create")
        self.keys.append(request.key)
        self.asked_for.append(request)
        self.facts.setdefault(
            request.payment_id,
            PaymentFact(
                request.payment_id, f"pay-{request.payment_id}", PaidState.WAITING, request.price
            ),
        )
        if self.silent:
            raise PaymentProviderUnavailableError("no answer")
        return Checkout(f"pay-{request.payment_id}", f"{self.checkout_base}{request.payment_id}")

    async def ask(self, payment_id: int, provider_payment_id: str | None) -> PaymentFact | None:
        assert_no_transaction("bank.ask")
        del provider_payment_id
        if self.silent:
            raise PaymentProviderUnavailableError("no answer")
        return self.facts.get(payment_id)

    def verify(self, headers: Mapping[str, str], body: bytes) -> Notice:
        if headers.get("signed") != "yes":
            raise NoticeRefusedError("unsigned")
        payment_id, state, event_id = body.decode().split()
        known = self.facts[int(payment_id)]
        if state == "money_back":
            return Notice(event_id, MoneyBackNotice(known.payment_id, known.provider_payment_id))
        fact = PaymentFact(
            known.payment_id, known.provider_payment_id, PaidState(state), known.price
        )
        return Notice(event_id, fact)

    async def refund(self, call: RefundCall) -> RefundAnswer:
        assert_no_transaction("bank.refund")
        self.refund_calls.append(call)
        if self.on_refund is not None:
            answer = await self.on_refund(call)
            if answer is not None:
                return answer
        return self.pays_back(call)

    def pays_back(self, call: RefundCall) -> RefundAnswer:
        """What an honest bank does: the same key once, and never more than came in."""
        books = self.returned.setdefault(call.provider_payment_id, [])
        for fact in books:
            if self.refund_key_seconds is not None and fact.key == call.key:
                return RefundDone(fact.provider_refund_id, fact.amount)
        left = call.price.amount_minor - self.returned_minor(call.provider_payment_id)
        if left == 0:
            return RefundAlready("already_refunded", "all of it went back")
        if call.amount.amount_minor > left:
            return RefundRefused("too_large", f"{left} are left")
        return self._write_refund(call.provider_payment_id, call.amount, call.key)

    def _write_refund(
        self, provider_payment_id: str, amount: Money, key: str | None, *, chargeback: bool = False
    ) -> RefundDone:
        books = self.returned.setdefault(provider_payment_id, [])
        refund_id = f"ref-{provider_payment_id}-{len(books) + 1}"
        books.append(RefundFact(refund_id, amount, RefundState.DONE, key, chargeback))
        return RefundDone(refund_id, amount)

    def gives_back(self, payment_id: int, amount_minor: int, *, chargeback: bool = False) -> None:
        """Somebody at the bank pays back; nobody has told us."""
        known = self.facts[payment_id]
        amount = Money(amount_minor, self.currency)
        self._write_refund(known.provider_payment_id, amount, None, chargeback=chargeback)

    def returned_minor(self, provider_payment_id: str) -> int:
        """What went back of a payment."""
        return sum(
            fact.amount.amount_minor
            for fact in self.returned.get(provider_payment_id, ())
            if fact.state is RefundState.DONE
        )

    async def read_refunds(self, money: PaymentMoney) -> tuple[RefundFact, ...]:
        assert_no_transaction("bank.read_refunds")
        if self.silent:
            raise PaymentProviderUnavailableError("no answer")
        if self.on_read is not None:
            await self.on_read(money)
        return tuple(self.returned.get(money.provider_payment_id, ()))

    async def read_ledger(self, since: datetime, until: datetime, cursor: str | None) -> LedgerPage:
        assert_no_transaction("bank.read_ledger")
        del since
        if self.silent:
            raise PaymentProviderUnavailableError("no answer")
        # When does not matter here: within any span, and old enough to be judged.
        moved_at = until - timedelta(hours=1)
        lines = [
            LedgerLine(fact.provider_payment_id, fact.payment_id, None, fact.price, moved_at)
            for fact in self.facts.values()
            if fact.state is PaidState.PAID
        ]
        lines += [
            LedgerLine(theirs, None, fact.provider_refund_id, fact.amount, moved_at)
            for theirs, books in self.returned.items()
            for fact in books
            if fact.state is RefundState.DONE
        ]
        if self.on_ledger is not None:
            return await self.on_ledger(lines, cursor)
        return LedgerPage(tuple(lines), None)

    async def close(self) -> None:
        return None

    def closes_what_waits(self) -> None:
        """Nobody will pay what was not paid by now."""
        for payment_id, fact in self.facts.items():
            if fact.state is PaidState.WAITING:
                self.facts[payment_id] = replace(fact, state=PaidState.CANCELED)

    def pays(self, payment_id: int) -> None:
        """The customer paid; nobody has told us."""
        known = self.facts[payment_id]
        self.facts[payment_id] = PaymentFact(
            known.payment_id,
            known.provider_payment_id,
            PaidState.PAID,
            Money(known.price.amount_minor, known.price.currency),
        )


@dataclass
class LinkedStore:
    """A store that gives addresses, as a bucket does: what is put there is put by the test."""

    inner: ObjectStore

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def writable_link(self, key: str, *, seconds: int) -> str:
        """Where one file may be put."""
        return f"https://store.test/{key}?seconds={seconds}"
