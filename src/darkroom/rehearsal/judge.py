"""What is left of the promises at the end: our own audits, and what the stand-ins counted for themselves."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from darkroom.config import Settings
from darkroom.core.audit import Report, run_audit
from darkroom.core.spend import SpendLine
from darkroom.db.database import Database
from darkroom.flow.check_bucket import audit_bucket
from darkroom.flow.read_balances import read_costs, read_ledger
from darkroom.flow.reconcile import Look, reconcile
from darkroom.rehearsal.customer import Bought
from darkroom.rehearsal.standing import read_standing
from darkroom.rehearsal.town import Town
from darkroom.wiring import open_darkroom


@dataclass(slots=True)
class Judgement:
    """The verdict. Clean when nothing is listed."""

    report: Report
    photos: int
    photos_paid_back: int
    tasks_there: int
    tasks_wasted: int
    credits_spent: float
    bytes_read: int = 0
    complaints: list[str] = field(default_factory=list[str])

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return self.report.clean and not self.complaints


async def judge(
    settings: Settings,
    town: Town,
    database: Database,
    bought: Sequence[Bought],
    photos: Sequence[bytes],
) -> Judgement:
    """Ask everybody. Nothing goes wrong on purpose any more."""
    town.calm()
    standing = await read_standing(database)
    judgement = Judgement(
        report=await run_audit(database),
        photos=len(photos),
        photos_paid_back=standing.photos_failed,
        tasks_there=town.kie.tasks_created,
        tasks_wasted=len(town.kie.wasted),
        credits_spent=town.kie.credits_spent,
    )
    complain = judgement.complaints.append
    paid = sum(one.photos for one in bought)
    if len(photos) + standing.photos_failed != paid:
        complain(f"{paid} photos paid, {len(photos)} given out, {standing.photos_failed} paid back")
    if len({hashlib.sha256(photo).hexdigest() for photo in photos}) != len(photos):
        complain("the same photo twice")
    if standing.sets_ended != len(bought):
        complain(f"{len(bought)} orders, {standing.sets_ended} sets")
    async with open_darkroom(settings) as darkroom:
        bucket = await audit_bucket(darkroom, limit=None)
        judgement.bytes_read = bucket.checked
        if not bucket.clean:
            complain(f"stored bytes: {bucket.failure or bucket.findings}")
        await read_costs(darkroom)
        judgement.complaints += _books_differ(town, await read_ledger(darkroom, days=1), photos)
        look = await reconcile(darkroom, "sandbox", Look(grace_seconds=0))
        if look.failure is not None or look.open:
            complain(f"the bank's list differs: {look.failure or look.open}")
    return judgement


def _books_differ(town: Town, lines: Sequence[SpendLine], photos: Sequence[bytes]) -> list[str]:
    """Our ledger of spending against what the provider's stand-in would have billed."""
    complaints: list[str] = []
    made = sum(line.photos for line in lines)
    if made != len(photos):
        complaints.append(f"the spend ledger has {made} photos, {len(photos)} were given out")
    known = sum(line.credits_photos + line.credits_wasted for line in lines)
    unknown = sum(line.credits_unknown for line in lines)
    billed = town.kie.credits_spent
    if not known <= billed <= known + unknown:
        complaints.append(
            f"billed {billed:g} credits, the ledger explains {known:g} to {known + unknown:g}"
        )
    lost = sum(line.lost + line.wasted for line in lines)
    if len(town.kie.wasted) > lost:
        complaints.append(f"{len(town.kie.wasted)} tasks wasted, the ledger knows of {lost}")
    return complaints
