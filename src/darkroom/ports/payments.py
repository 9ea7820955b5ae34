"""What we ask of a payment provider.

Creating a payment or a refund is a call where "twice" costs money: our row is committed first, and the
key of the call is made of our row's id. An unknown answer is asked about, never blindly repeated. What
T-Bank, Stars, YooKassa and Stripe need of this port: docs/decisions/0010.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from darkroom.ports.money import Money


class PaidState(Enum):
    """What a payment is at the provider, in our words."""

    WAITING = "waiting"
    PAID = "paid"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """One payment to be made. `key` is the idempotency key: our row id and a number, never time or amount.

    `receipt_email` is where the receipt goes, if the customer gave an address.
    """

    payment_id: int
    key: str
    price: Money
    title: str
    return_url: str
    notify_url: str
    receipt_email: str | None = None


@dataclass(frozen=True, slots=True)
class Checkout:
    """The provider knows the payment; the customer pays at `url`."""

    provider_payment_id: str
    url: str


@dataclass(frozen=True, slots=True)
class PaymentFact:
    """What the provider says about one payment."""

    payment_id: int
    provider_payment_id: str
    state: PaidState
    price: Money


@dataclass(frozen=True, slots=True)
class MoneyBackNotice:
    """Money of a payment went back, or is going: a doorbell. Its books are read before anything is believed."""

    payment_id: int
    provider_payment_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A verified message of the provider: its own id (for "once"), and what it says."""

    external_id: str
    fact: PaymentFact | MoneyBackNotice


class RefundForms(Enum):
    """What a provider can pay back."""

    PARTIAL = "partial"
    WHOLE = "whole"
    """All of a payment or nothing (Stars)."""
    NONE = "none"
    """Nothing: a person pays by hand (a chain)."""


@dataclass(frozen=True, slots=True)
class RefundCall:
    """One wish for money back.

    Attributes:
        key: the idempotency key, `{refund}-{n}`: n grows only after a definite no.
        amount: what is to go back now.
        price: of the whole payment.
        returned_minor: what its books gave back before, as far as we know: a provider that knows totals only
            tells our refund from others by it.
        title: for a receipt and the customer's statement.
        photo_count: how many photos it is for: the receipt's quantity.
        payer_telegram_id: who paid, where the provider asks for it (Stars).
        receipt_email: where the receipt of the money back goes; None: none was given, or its customer is
            forgotten by now.
    """

    payment_id: int
    provider_payment_id: str
    key: str
    amount: Money
    price: Money
    returned_minor: int
    title: str
    photo_count: int
    payer_telegram_id: int | None
    receipt_email: str | None = None


@dataclass(frozen=True, slots=True)
class RefundDone:
    """The money went back, under this id of theirs."""

    provider_refund_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class RefundUnderWay:
    """Accepted, and not done yet."""


@dataclass(frozen=True, slots=True)
class RefundAlready:
    """It says "already refunded": by this call's first try, or by somebody else. Only its books tell."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """A definite no: no money went back by this key.

    Attributes:
        later: the same wish may be granted later (too many requests, not enough money on the account).
    """

    code: str
    text: str
    later: bool = False


@dataclass(frozen=True, slots=True)
class RefundNoAnswer:
    """Timeout, lost connection, 5xx: the money may have gone back."""

    text: str


RefundAnswer = RefundDone | RefundUnderWay | RefundAlready | RefundRefused | RefundNoAnswer


class RefundState(Enum):
    """What a refund is in the provider's books."""

    DONE = "done"
    UNDER_WAY = "under_way"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class PaymentMoney:
    """Whose books are to be read.

    Attributes:
        returned_minor: what we know to have gone back.
        in_flight: key and amount of our refund whose answer is not known; None: none is.
    """

    payment_id: int
    provider_payment_id: str
    price: Money
    returned_minor: int
    in_flight: tuple[str, int] | None
    payer_telegram_id: int | None


@dataclass(frozen=True, slots=True)
class RefundFact:
    """One refund in the provider's books. A fact: done stays done, refused stays refused.

    Attributes:
        provider_refund_id: its id there; the same at each reading.
        key: our key, as the provider echoes it; None: begun by somebody else.
        is_chargeback: taken by the customer's bank.
    """

    provider_refund_id: str
    amount: Money
    state: RefundState
    key: str | None
    is_chargeback: bool = False


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One line of the provider's own list: money in, or (with a refund's id) money back."""

    provider_payment_id: str
    payment_id: int | None
    provider_refund_id: str | None
    amount: Money
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """A page of that list, oldest first. `next_cursor` None: it was the last."""

    lines: tuple[LedgerLine, ...]
    next_cursor: str | None


class NoticeRefusedError(Exception):
    """Unsigned, stale, or not for us. Changes nothing."""


class PaymentRefusedError(Exception):
    """A definite no to creating a payment. Nothing was created."""


class PaymentProviderUnavailableError(Exception):
    """No answer. The payment may exist; the same key may be sent again."""


class PaymentProvider(Protocol):
    """One way to pay.

    Attributes:
        name: as stored in `payments.provider`.
        currency: what it takes.
        notice_reply: the exact body that tells it a notice has arrived.
        refund_forms: what it can pay back.
        refund_key_seconds: how long it remembers the key of a refund; past that its books are read before
            the key is sent again. None: it knows no keys, its books are read before every call.
        receipt_email_needed: it takes no payment without an address for the receipt.
    """

    name: str
    currency: str
    notice_reply: str
    refund_forms: RefundForms
    refund_key_seconds: float | None
    receipt_email_needed: bool

    async def create(self, request: PaymentRequest) -> Checkout:
        """Register the payment. Safe to repeat with the same key.

        Raises:
            PaymentRefusedError: a definite no.
            PaymentProviderUnavailableError: no answer.
        """
        ...

    async def ask(self, payment_id: int, provider_payment_id: str | None) -> PaymentFact | None:
        """What the provider knows of our payment; None if it knows none. Harmless to repeat.

        Raises:
            PaymentProviderUnavailableError: no answer: says nothing about the payment.
        """
        ...

    async def refund(self, call: RefundCall) -> RefundAnswer:
        """Give money back. Never retried inside; whatever is not a definite answer is RefundNoAnswer."""
        ...

    async def read_refunds(self, money: PaymentMoney) -> tuple[RefundFact, ...]:
        """Everything its books hold of money back of this payment, ours and others'. Harmless to repeat.

        Raises:
            PaymentProviderUnavailableError: no answer: says nothing about the money.
        """
        ...

    async def read_ledger(self, since: datetime, until: datetime, cursor: str | None) -> LedgerPage:
        """A page of its own list of moves in a span of time. Harmless to repeat.

        Raises:
            PaymentProviderUnavailableError: no answer.
        """
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Check signature and freshness over the raw bytes, then parse.

        Raises:
            NoticeRefusedError: it is not theirs, or not fresh.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
