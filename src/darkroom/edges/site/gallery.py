"""What is done with a photo that is there: a heart, a link for others, another shot."""

from dataclasses import replace
from typing import Annotated
from uuid import NAMESPACE_URL, uuid4, uuid5

from fastapi import APIRouter, Form, Response
from fastapi.responses import JSONResponse

from darkroom.edges.fields import Id, OptionalId, OptionalName
from darkroom.edges.photos_out import serve_photo
from darkroom.edges.site.frame import PageKey, Site, Visit
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.sets import SHARE_DAYS
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.favorites import mark_favorite
from darkroom.flow.hand_out_photos import find_photo_file
from darkroom.flow.redo_photo import redo_photo
from darkroom.flow.share_photos import end_share, open_share, read_shares, share
from darkroom.flow.zip_photos import zip_photos

router = APIRouter(include_in_schema=False, route_class=PageRoute)

NOT_FOUND = 404
SHARED_SECONDS = 300
"""How long a stranger's browser may show a picture without asking: what a closed link still shows."""


@router.post("/photos/{photo_id}/favorite")
async def favor(
    photo_id: Id, visit: Seen, site: Framed, on: Annotated[str, Form(max_length=4)]
) -> Response:
    """Give a photo a heart, or take it away. Twice is once."""
    photo = await mark_favorite(
        site.darkroom, user_id=visit.user_id, photo_id=photo_id, favorite=on == "yes"
    )
    if visit.by_script:
        return Response(status_code=204)
    return site.go(visit, f"/sets/{photo.job_id}")


@router.get("/photos/{photo_id}/link")
async def fresh_link(photo_id: Id, visit: Seen, site: Framed) -> Response:
    """A link of now, for a downloader that brings no session (Telegram's), and the file's name."""
    file = await find_photo_file(
        site.darkroom, user_id=visit.user_id, photo_id=photo_id, variant="full"
    )
    path = site.darkroom.links.photo(user_id=visit.user_id, photo_id=photo_id)
    return _file_link(f"{path}&download=1", file.plain_name)


@router.get("/sets/{job_id}/link")
async def fresh_archive_link(job_id: Id, visit: Seen, site: Framed) -> Response:
    """The same for a whole set as a ZIP."""
    archive = await zip_photos(site.darkroom, user_id=visit.user_id, job_id=job_id)
    path = site.darkroom.links.archive(user_id=visit.user_id, job_id=job_id)
    return _file_link(path, archive.plain_name)


def _file_link(path: str, name: str) -> Response:
    return JSONResponse({"path": path, "name": name}, headers={"Cache-Control": "no-store"})


@router.post("/photos/{photo_id}/redo")
async def redo(photo_id: Id, visit: Seen, site: Framed) -> Response:
    """Make a photo again, where the policy allows it. Twice leads to the same set."""
    try:
        again = await redo_photo(
            site.darkroom, user_id=visit.user_id, photo_id=photo_id, request_id=uuid4()
        )
    except RequestRefusedError as error:
        if error.code == "ALREADY_REDONE" and error.details.get("jobId"):
            return site.go(visit, f"/sets/{error.details['jobId']}")
        raise
    return site.go(visit, f"/sets/{again.job_id}")


@router.post("/sets/{job_id}/share")
async def make_link(
    job_id: Id,
    visit: Seen,
    site: Framed,
    key: Annotated[PageKey, Form()],
    photo: Annotated[OptionalId, Form()] = None,
) -> Response:
    """A link for others. The same press twice gives the same link."""
    request_id = uuid5(NAMESPACE_URL, f"share/{visit.user_id}/{job_id}/{photo}/{key}")
    made = await share(
        site.darkroom,
        user_id=visit.user_id,
        job_id=job_id,
        photo_id=photo,
        days=SHARE_DAYS,
        request_id=request_id,
    )
    if visit.by_script:
        return site.render(visit, "_share.html", made=made)
    return site.go(visit, "/shares")


@router.get("/shares")
async def links(visit: Seen, site: Framed) -> Response:
    """What is open to others now."""
    return await _shares(site, visit, "shares.html")


@router.post("/shares/{share_id}/end")
async def close_link(share_id: Id, visit: Seen, site: Framed) -> Response:
    """Nobody opens it any more. Twice is once."""
    await end_share(site.darkroom, user_id=visit.user_id, share_id=share_id)
    if visit.by_script:
        return await _shares(site, visit, "_shares.html")
    return site.go(visit, "/shares")


async def _shares(site: Site, visit: Visit, template: str) -> Response:
    return site.render(
        visit, template, shares=await read_shares(site.darkroom, user_id=visit.user_id)
    )


@router.get("/s/{token}")
async def shown(token: str, visit: Seen, site: Framed) -> Response:
    """Somebody follows a link: the photos, and nothing else of whose they are."""
    try:
        opened = await open_share(site.darkroom, token)
    except RequestRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return site.render(visit, "share_gone.html", status=NOT_FOUND)
    pictures = [(photo.prompt_index + 1, f"/s/{token}/{photo.id}") for photo in opened.photos]
    answer = site.render(
        visit, "shared.html", pictures=pictures, expires_at=opened.expires_at, share_days=SHARE_DAYS
    )
    answer.headers["X-Robots-Tag"] = "noindex"
    return answer


@router.get("/s/{token}/{photo_id}")
async def shown_photo(
    token: str, photo_id: Id, visit: Seen, site: Framed, variant: OptionalName = None
) -> Response:
    """A picture of a share, as long as the share lives: under a name that says nothing of its owner."""
    opened = await open_share(site.darkroom, token)
    if photo_id not in {photo.id for photo in opened.photos}:
        raise not_found("photo")
    file = await find_photo_file(
        site.darkroom,
        user_id=opened.user_id,
        photo_id=photo_id,
        variant="thumb" if variant == "thumb" else "full",
    )
    nameless = replace(file, name=file.plain_name)
    return await serve_photo(visit.request, nameless, kind="inline", max_age=SHARED_SECONDS)
