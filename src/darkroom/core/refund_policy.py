"""The refund policy: one table, read by every settlement, shown to every buyer, kept with every payment."""

from dataclasses import dataclass, fields
from typing import Final, Literal, LiteralString

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class RefundPolicy:
    """What becomes of money that buys nothing, or less than was paid for. The defaults are the table's.

    Attributes:
        whole_price_below_percent: fewer delivered photos than this share of a set: the whole price goes back.
        job_deadline_seconds: a set older than this settles with what it has.
        unused_remind_days, unused_refund_days: unused money is reminded of, and goes back.
        late_money: what money does whose order was closed when it came.
        without_partial: where a provider pays back all or nothing: the whole price, or what is missing again.
        redo_photos: so many photos of a paid set are made again for free, if its customer wishes.

    Raises:
        ValueError: a value that the table would refuse.
    """

    whole_price_below_percent: int = 70
    job_deadline_seconds: int = 3600
    unused_remind_days: int = 3
    unused_refund_days: int = 14
    late_money: Literal["start", "refund"] = "start"
    without_partial: Literal["whole", "grant"] = "whole"
    redo_photos: int = 1

    def __post_init__(self) -> None:
        """The table's own constraints, with words for whoever wrote the file."""
        if not 0 <= self.whole_price_below_percent <= 100:  # noqa: PLR2004 - percent
            raise ValueError("whole_price_below_percent is a percentage")
        if self.job_deadline_seconds <= 0:
            raise ValueError("job_deadline_seconds is more than 0")
        if not 0 < self.unused_remind_days < self.unused_refund_days:
            raise ValueError("unused money is reminded of before it goes back")
        if self.late_money not in ("start", "refund"):
            raise ValueError('late_money is "start" or "refund"')
        if self.without_partial not in ("whole", "grant"):
            raise ValueError('without_partial is "whole" or "grant"')
        if not 0 <= self.redo_photos <= 100:  # noqa: PLR2004 - photos of the largest set
            raise ValueError("redo_photos is 0 to 100")


POLICY_NAMES: Final = tuple(field.name for field in fields(RefundPolicy))
_COLUMNS: Final[LiteralString] = (
    "whole_price_below_percent, job_deadline_seconds, unused_remind_days, unused_refund_days, "
    "late_money, without_partial, redo_photos"
)


async def load_policy(tx: Connection) -> RefundPolicy:
    """The policy that payments are sold under from now on."""
    async with tx.cursor(row_factory=class_row(RefundPolicy)) as cursor:
        await cursor.execute(
            "SELECT " + _COLUMNS + " FROM refund_policies ORDER BY id DESC LIMIT 1"
        )
        return await cursor.fetchone() or RefundPolicy()


async def save_policy(tx: Connection, policy: RefundPolicy) -> bool:
    """A new policy, where it differs from the one that holds. What was sold before keeps its own."""
    if await load_policy(tx) == policy:
        return False
    await tx.execute(
        "INSERT INTO refund_policies (" + _COLUMNS + ") VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [getattr(policy, name) for name in POLICY_NAMES],
    )
    return True
