"""What is left of the promises at the end: our own audits, and what the stand-ins counted for themselves."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from darkroom.config import Settings
from darkroom.core.audit import Report, run_audit
from darkroom.db.database import Database
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
        look = await reconcile(darkroom, "sandbox", Look(grace_seconds=0))
        if look.failure is not None or look.open:
            complain(f"the bank's list differs: {look.failure or look.open}")
    return judgement
