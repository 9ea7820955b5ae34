"""A customer's sets: all of them, and one while it is made and after."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Response

from darkroom.core.photos import PhotoView
from darkroom.core.progress import Progress
from darkroom.edges.fields import Id, OptionalId, OptionalName
from darkroom.edges.site.frame import Site, Visit, split_page
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.truth import (
    is_moving,
    is_returning,
    job_line,
    left_line,
    mark,
    missing_line,
    payment_line,
    refund_lines,
)
from darkroom.edges.views import Viewer
from darkroom.flow.favorites import read_favorites
from darkroom.flow.read_avatars import read_avatars
from darkroom.flow.read_back import read_job, read_messages, read_payment
from darkroom.flow.read_sets import read_catalog, read_payments, read_refunds_of, read_sets
from darkroom.flow.redo_photo import redos_left

router = APIRouter(include_in_schema=False, route_class=PageRoute)

PAGE = 24
"""Covers of one page: two screens of a phone."""
RECENT = 20
SHARE_DAYS = 7


@dataclass(frozen=True, slots=True)
class Card:
    """A photo on a page.

    Attributes:
        number: its place in its set, from 1.
        view: links and sizes, as the API names them.
        plain_url: opens the photo by the session, when its link has grown old on an open page.
    """

    number: int
    photo: PhotoView
    view: dict[str, Any]

    @property
    def plain_url(self) -> str:
        """Where the owner's session finds the photo."""
        return f"/api/photos/{self.photo.id}/image"


def card(visit: Visit, site: Site, photo: PhotoView) -> Card:
    """A photo with links for its owner."""
    viewer = Viewer(visit.user_id, site.darkroom.links)
    return Card(photo.prompt_index + 1, photo, viewer.photo(photo))


@router.get("/sets")
async def all_sets(visit: Seen, site: Framed, before: OptionalId = None) -> Response:
    """Covers, newest first, and above them whatever waits for its owner."""
    rows = await read_sets(site.darkroom, user_id=visit.user_id, before_id=before, limit=PAGE + 1)
    sets, older = split_page(rows, PAGE)
    recent = (
        await read_payments(site.darkroom, user_id=visit.user_id, before_id=None, limit=RECENT)
        if before is None
        else []
    )
    waiting = [
        (payment, payment_line(payment))
        for payment in recent
        if is_moving(payment) or (payment.status == "succeeded" and payment.job_id is None)
    ]
    links = site.darkroom.links
    covers = {
        one.id: links.photo(user_id=visit.user_id, photo_id=one.cover_photo_id, variant="thumb")
        for one in sets
        if one.cover_photo_id is not None
    }
    return site.render(
        visit,
        "sets.html",
        sets=sets,
        covers=covers,
        waiting=waiting,
        before=older,
    )


@router.get("/sets/{job_id}")
async def one_set(job_id: Id, visit: Seen, site: Framed) -> Response:
    """A set: live while it is made, a gallery for good. Reloaded at any moment, it says how things stand."""
    progress = await read_job(site.darkroom, user_id=visit.user_id, job_id=job_id)
    catalog = await read_catalog(site.darkroom)
    style = next((one for one in catalog.styles if one.id == progress.job.style_id), None)
    return site.render(
        visit,
        "set.html",
        style=style,
        share_key=uuid4().hex,
        **await _values(site, visit, progress, seen=0),
    )


@router.get("/sets/{job_id}/now")
async def part(
    job_id: Id, visit: Seen, site: Framed, seen: OptionalId = None, have: OptionalName = None
) -> Response:
    """How the set stands now, and every photo stored after photo `seen`: the same call twice is harmless.

    Nothing, where the page has it already (`have`).
    """
    progress = await read_job(site.darkroom, user_id=visit.user_id, job_id=job_id)
    values = await _values(site, visit, progress, seen=seen or 0)
    if have == values["now"]:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return site.render(visit, "_set_now.html", **values)


async def _values(site: Site, visit: Visit, progress: Progress, *, seen: int) -> dict[str, Any]:
    job = progress.job
    payment = await read_payment(site.darkroom, user_id=visit.user_id, payment_id=job.payment_id)
    refunds = await read_refunds_of(site.darkroom, user_id=visit.user_id, payment_id=payment.id)
    cards = {photo.prompt_index: card(visit, site, photo) for photo in progress.photos}
    redos = 0
    if progress.photos and progress.ended:
        avatars = await read_avatars(site.darkroom, user_id=visit.user_id)
        if any(one.id == job.avatar_id and one.selfies for one in avatars):
            redos = await redos_left(site.darkroom, user_id=visit.user_id, job_id=job.id)
    archive = site.darkroom.links.archive(user_id=visit.user_id, job_id=job.id)
    lines = refund_lines(refunds)
    newest = max((photo.id for photo in progress.photos), default=0)
    return {
        "now": mark(job_line(job), lines, newest, len(cards)),
        "returning": is_returning(lines),
        "job": job,
        "payment": payment,
        "line": job_line(job),
        "missing": missing_line(job),
        "left": left_line(progress.seconds_left),
        "is_open": not progress.ended,
        "refunds": lines,
        "slots": [(index + 1, cards.get(index)) for index in range(job.total_photos)],
        "fresh": [one for one in cards.values() if one.photo.id > seen],
        "newest": newest,
        "archive_url": archive if progress.photos else None,
        "redos": redos,
        "is_deleted": progress.ended and job.completed_photos > 0 and not progress.photos,
        "made_again": await _made_again(site, visit, payment.id) if progress.ended else None,
        "share_days": SHARE_DAYS,
        "to_chat": site.darkroom.chat_enabled and visit.inside_telegram,
    }


async def _made_again(site: Site, visit: Visit, payment_id: int) -> str | None:
    """What the customer was told where missing photos are made again instead of paid back."""
    told = await read_messages(site.darkroom, user_id=visit.user_id, before_id=None, limit=RECENT)
    for message in told:
        if message.kind == "made_again" and message.payment_id == payment_id:
            return message.text_ru if visit.locale == "ru" else message.text_en
    return None


@router.get("/favorites")
async def favorites(visit: Seen, site: Framed, before: OptionalId = None) -> Response:
    """The photos with a heart, from all sets."""
    rows = await read_favorites(
        site.darkroom, user_id=visit.user_id, before_id=before, limit=PAGE + 1
    )
    photos, older = split_page(rows, PAGE)
    return site.render(
        visit,
        "favorites.html",
        cards=[card(visit, site, photo) for photo in photos],
        before=older,
        share_days=SHARE_DAYS,
        share_key=uuid4().hex,
        redos=0,
    )
