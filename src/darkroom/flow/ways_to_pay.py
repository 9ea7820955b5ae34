"""How a buyer can pay, by where they stand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from darkroom.flow.darkroom import Darkroom
from darkroom.ports.payments import PaymentProvider

STARS: Final = "XTR"
"""The currency of Telegram Stars: the only money that digital goods are sold for inside Telegram."""


@dataclass(frozen=True, slots=True)
class WayToPay:
    """A button of the page.

    Attributes:
        name: the payment provider's, as an order names it.
        receipt_email_needed: a buyer must leave an address for the receipt that the law asks for.
    """

    name: str
    currency: str
    receipt_email_needed: bool


def ways_to_pay(darkroom: Darkroom, *, inside_telegram: bool) -> tuple[WayToPay, ...]:
    """Every configured way, in the order they are configured in; inside Telegram those for Stars alone.

    Empty: nothing can be bought here. The first is what an order takes that names none.
    """
    offered = providers_inside_telegram(darkroom) if inside_telegram else darkroom.payments
    return tuple(
        WayToPay(
            name=name,
            currency=provider.currency,
            receipt_email_needed=bool(getattr(provider, "receipt_email_needed", False)),
        )
        for name, provider in offered.items()
    )


def providers_inside_telegram(darkroom: Darkroom) -> Mapping[str, PaymentProvider]:
    """The payment providers that may be offered on a page shown by Telegram."""
    return {
        name: provider for name, provider in darkroom.payments.items() if provider.currency == STARS
    }
