"""What will happen, drawn from a seed before anything happens: the same seed, the same orders and blows."""

import random
from dataclasses import dataclass
from typing import Final, Literal

TIERS: Final = {"starter": 60, "standard": 25, "premium": 15}
"""What is bought, by weight: about 11 photos an order."""
SOLD: Final = {"starter": (7, 49_900), "standard": (15, 99_900), "premium": (23, 149_900)}
"""Photos and price in minor units, as the sign at the door says: not as the program answers."""
STYLES: Final = ("signature", "professional", "lifestyle", "creative")
ORDERS_A_CUSTOMER: Final = 3
"""Below the limits of open sets and payments of one customer: this is about crashes, not about limits."""
FIRST_CUSTOMER: Final = 500_000
ORDERED_SHARE: Final = 0.7
"""Of the time all orders have been placed; the blows go on to the end."""
PAYING_SHARE: Final = 0.95
BY_NOTICE_SHARE: Final = 0.5
CLICKS_MAX: Final = 5
NOTICES_MAX: Final = 5
DELIVERIES_MAX: Final = 5
WORKER_BLOW_SECONDS: Final = 10
"""Between two deaths of workers, on average."""
SERVER_BLOW_SECONDS: Final = 40
DATABASE_BLOW_SECONDS: Final = 50
FREEZE_BLOW_SECONDS: Final = 25
FROZEN_SECONDS: Final = (12, 20)
"""Longer than a lease: others have its rows when it comes back, in the middle of its work."""
DOWN_SECONDS_MAX: Final = 3
BlowKind = Literal["worker", "server", "database", "freeze"]


@dataclass(frozen=True, slots=True)
class Order:
    """One sale, and how impatient everybody in it is.

    Attributes:
        at_seconds: when it begins.
        pays: others press "decline".
        by_notice: it names avatar and style, so that the bank's notice starts it; else the customer does.
        clicks: parallel presses of each button.
        notices: copies of the bank's notice beside the bank's own.
        deliveries: copies of one queue message about the job.
    """

    number: int
    at_seconds: float
    telegram_user_id: int
    tier: str
    style: str
    pays: bool
    by_notice: bool
    clicks: int
    notices: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class Blow:
    """One death, or a worker that stands still.

    Attributes:
        target: which of its kind.
        down_seconds: how long the database stays away, or the worker stands still.
    """

    at_seconds: float
    kind: BlowKind
    target: int
    down_seconds: float


@dataclass(frozen=True, slots=True)
class BadDay:
    """What fails for good, beside the faults that pass.

    Attributes:
        photos_failed_share: photos that the provider never makes, however often it is asked.
        refunds_silent_share: refunds that the bank makes, and whose answer never comes.
        refunds_refused_share: payments that the bank never pays back.
        is_calm: nobody dies and no network fails: the money alone is looked at.
    """

    photos_failed_share: float = 0.05
    refunds_silent_share: float = 0.2
    refunds_refused_share: float = 0.05
    is_calm: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided beforehand."""

    seed: int
    seconds: float
    workers: int
    orders: tuple[Order, ...]
    blows: tuple[Blow, ...]
    bad_day: BadDay

    @property
    def customers(self) -> list[int]:
        """Telegram ids, each once."""
        return sorted({order.telegram_user_id for order in self.orders})


def make_plan(
    seed: int, *, orders: int, minutes: float, workers: int, bad_day: BadDay | None = None
) -> Plan:
    """Draw a plan. The same arguments give the same plan, on any machine."""
    lot = random.Random(f"darkroom torture {seed}")  # noqa: S311 - to be repeated, not to be secret
    seconds = minutes * 60
    bad_day = bad_day or BadDay()
    return Plan(
        seed=seed,
        seconds=seconds,
        workers=workers,
        orders=tuple(_order(lot, number, seconds) for number in range(orders)),
        blows=()
        if bad_day.is_calm
        else tuple(sorted(_blows(lot, seconds, workers), key=lambda blow: blow.at_seconds)),
        bad_day=bad_day,
    )


def _order(lot: random.Random, number: int, seconds: float) -> Order:
    return Order(
        number=number,
        at_seconds=lot.uniform(0, seconds * ORDERED_SHARE),
        telegram_user_id=FIRST_CUSTOMER + number // ORDERS_A_CUSTOMER,
        tier=lot.choices(list(TIERS), list(TIERS.values()))[0],
        style=lot.choice(STYLES),
        pays=lot.random() < PAYING_SHARE,
        by_notice=lot.random() < BY_NOTICE_SHARE,
        clicks=lot.randint(1, CLICKS_MAX),
        notices=lot.randint(0, NOTICES_MAX),
        deliveries=lot.randint(0, DELIVERIES_MAX),
    )


def _blows(lot: random.Random, seconds: float, workers: int) -> list[Blow]:
    found: list[Blow] = []
    kinds: tuple[tuple[BlowKind, float, int], ...] = (
        ("worker", WORKER_BLOW_SECONDS, workers),
        ("server", SERVER_BLOW_SECONDS, 1),
        ("database", DATABASE_BLOW_SECONDS, 1),
        ("freeze", FREEZE_BLOW_SECONDS, workers),
    )
    for kind, every, targets in kinds:
        at = lot.uniform(0.5, 1) * every
        while at < seconds:
            down = FROZEN_SECONDS if kind == "freeze" else (0, DOWN_SECONDS_MAX)
            found.append(Blow(at, kind, lot.randrange(targets), lot.uniform(*down)))
            at += lot.uniform(0.5, 1.5) * every
    return found
