"""Where the matrix is played: a shop, the people outside it, and what they and the outside can do."""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from darkroom.flow.darkroom import Darkroom
from darkroom.flow.remove import remove_selfie
from darkroom.flow.take_notices import take_due_notices
from darkroom.ports.payments import RefundAnswer, RefundCall
from tests.shop import Customer, Shop

OnRefund = Callable[[RefundCall], Awaitable[RefundAnswer | None]]
STYLE: Final = "signature"
ONE_PHOTO, TWO_PHOTOS = "starter", "standard"
"""The tiers, made as small as a moment allows."""


@dataclass(frozen=True, eq=False)
class Case:
    """One customer's order, in one cell of the matrix."""

    customer: Customer
    payment_id: int


@dataclass
class Stage:
    """A shop and the people who wait outside it; `ordered` says which of them ordered already."""

    shop: Shop
    people: list[Customer]
    ordered: dict[int, int] = field(default_factory=dict[int, int])
    gifts: dict[str, str] = field(default_factory=dict[str, str])
    serial: int = 0

    def next_id(self) -> int:
        """A number nobody had."""
        self.serial += 1
        return self.serial

    async def order(
        self, count: int, tier: str = ONE_PHOTO, style: str | None = STYLE
    ) -> list[Case]:
        """So many customers who order, and have not paid."""
        cases: list[Case] = []
        for _ in range(count):
            customer = self.people.pop()
            known = self.ordered.get(customer.user_id) if style and tier == ONE_PHOTO else None
            payment_id = known or await self.shop.ordered(customer, tier=tier, order_style=style)
            cases.append(Case(customer, payment_id))
        return cases

    async def hear(self, cases: Iterable[Case], state: str) -> None:
        """The bank's notices arrive; nobody has read them."""
        for case in cases:
            await self.shop.notify(case.payment_id, state, f"first-{case.payment_id}")

    async def run(self, *steps: Callable[[Darkroom], Awaitable[int]]) -> None:
        """Each step until it finds nothing more, with a short pause passed if it takes one."""
        for step in steps:
            while await step(self.shop.darkroom):
                pass

    async def paid(self, count: int, tier: str = ONE_PHOTO) -> list[Case]:
        """So many orders whose money came: their jobs stand."""
        cases = await self.order(count, tier)
        await self.hear(cases, "paid")
        await self.run(take_due_notices)
        return cases

    async def remove_selfies(self, case: Case) -> None:
        """The customer takes back every selfie of the avatar."""
        one = case.customer
        for row in await self.shop.rows(
            "SELECT id FROM reference_photos WHERE avatar_id = %s AND deleted_at IS NULL",
            one.avatar_id,
        ):
            await remove_selfie(
                self.shop.darkroom,
                user_id=one.user_id,
                avatar_id=one.avatar_id,
                selfie_id=row["id"],
            )

    @contextmanager
    def bank_mood(self, on_refund: OnRefund) -> Generator[None]:
        """The bank pays back like this for a while."""
        self.shop.bank.on_refund = on_refund
        yield
        self.shop.bank.on_refund = None

    @contextmanager
    def mood(self, **answers: object) -> Generator[None]:
        """The provider answers like this for a while."""
        for name, answer in answers.items():
            setattr(self.shop.provider, name, answer)
        yield
        for name in answers:
            setattr(self.shop.provider, name, None)
