"""Money: integer minor units and a currency, never apart, never a float."""

from dataclasses import dataclass


class CurrencyMismatchError(ValueError):
    """Two amounts of different currencies met."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units (kopeks, cents; a Star has none, so 99 Stars are 99)."""

    amount_minor: int
    currency: str

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount_minor + other.amount_minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount_minor - other.amount_minor, self.currency)

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise CurrencyMismatchError(f"{self.currency} and {other.currency}")

    def __str__(self) -> str:
        if self.currency == "XTR":
            return f"{self.amount_minor} XTR"
        return f"{self.amount_minor // 100}.{self.amount_minor % 100:02} {self.currency}"


def shares(amount_minor: int, count: int) -> list[int]:
    """Split an amount into `count` whole parts that sum to it, by largest remainder.

    Equal weights, so the first parts carry one minor unit more. The claim does the same in SQL, and a
    test compares the two.
    """
    part, rest = divmod(amount_minor, count)
    return [part + (1 if index < rest else 0) for index in range(count)]
