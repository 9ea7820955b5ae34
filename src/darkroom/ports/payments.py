"""What we ask of a payment provider.

Creating a payment is a call where "twice" may cost the customer money: our row is committed first, and
the key of the call is made of our row's id. Refunds take the same road (see docs/decisions).
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    """One payment to be made. `key` is the idempotency key: our row id and a number, never time or amount."""

    payment_id: int
    key: str
    price: Money
    title: str
    return_url: str
    notify_url: str


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
class Notice:
    """A verified message of the provider: its own id (for "once"), and what it says."""

    external_id: str
    fact: PaymentFact


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
    """

    name: str
    currency: str
    notice_reply: str

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

    def verify(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Check signature and freshness over the raw bytes, then parse.

        Raises:
            NoticeRefusedError: it is not theirs, or not fresh.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
