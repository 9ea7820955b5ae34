"""Who is photographed, and their selfies."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Form, Response
from fastapi.responses import JSONResponse

from darkroom.core.avatars import AvatarView
from darkroom.edges.avatars import AVATAR_NAME_MAX, parse_avatar_name
from darkroom.edges.fields import Id
from darkroom.edges.gate import BodyAllowance
from darkroom.edges.site.frame import PageKey, Site, Visit
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.sure import YES, Sure, ask_first
from darkroom.edges.streams import is_known
from darkroom.edges.upload import REQUEST_BYTES_MAX, boundary_of, files_of
from darkroom.flow.add_selfie import SELFIES_MAX, add_selfies, describe
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.make_avatar import AVATARS_MAX, AvatarRequest, call_avatar, make_avatar
from darkroom.flow.read_avatars import (
    read_avatars,
    read_avatars_ever,
    read_selfie_image,
    read_selfies,
)
from darkroom.flow.remove import remove_avatar, remove_selfie

router = APIRouter(include_in_schema=False, route_class=PageRoute, prefix="/avatars")

ENOUGH_SELFIES: Final = 3
"""From here on the likeness gains little; one is enough to begin."""
UPLOADS: Final = BodyAllowance("POST", re.compile(r"/avatars/[^/]*/selfies"), REQUEST_BYTES_MAX)
"""The same as the API's own door for selfies."""
_NAME = Annotated[str, Form(max_length=AVATAR_NAME_MAX * 4)]


@router.get("")
async def newest(visit: Seen, site: Framed) -> Response:
    """To the newest person's selfies; who has none is asked to begin."""
    avatars = await read_avatars(site.darkroom, user_id=visit.user_id)
    if avatars:
        return site.go(visit, f"/avatars/{avatars[-1].id}")
    return site.render(visit, "begin.html")


async def first_person(site: Site, visit: Visit, user_id: int) -> int:
    """The newest avatar of this user. Who has none becomes the first: nobody has to name themselves."""
    # The same key: two tabs make one person. Another one for who deleted theirs: the old key is that person's.
    # Counted first: whoever then sees nobody has a key that is no newer than what they see.
    ever = await read_avatars_ever(site.darkroom, user_id=user_id)
    avatars = await read_avatars(site.darkroom, user_id=user_id)
    if avatars:
        return avatars[-1].id
    made = await _make(site, user_id, site.say(visit, "selfies.me"), f"first-avatar-{ever}")
    return made.id


@router.post("")
async def add_person(
    visit: Seen, site: Framed, name: _NAME, key: Annotated[PageKey, Form()]
) -> Response:
    """Another person."""
    made = await _make(site, visit.user_id, _clean_name(name), f"page-{key}")
    return site.go(visit, f"/avatars/{made.id}")


@router.get("/{avatar_id}")
async def page(avatar_id: Id, visit: Seen, site: Framed) -> Response:
    """A person's selfies, each with its verdict."""
    return await _page(site, visit, avatar_id)


@router.get("/{avatar_id}/selfies")
async def part(avatar_id: Id, visit: Seen, site: Framed) -> Response:
    """The list alone, for the page's script."""
    return await _page(site, visit, avatar_id, template="_selfies.html")


@router.post("/{avatar_id}/selfies")
async def upload(avatar_id: Id, visit: Seen, site: Framed) -> Response:
    """Selfies from the page: its script sends them one by one and reads the verdicts, a form sends all at once.

    A photo that will not do is an answer like any other here, not an error in the browser's eyes.
    """
    request = visit.request
    boundary = boundary_of(request)
    try:
        outcomes = await add_selfies(
            site.darkroom,
            user_id=visit.user_id,
            avatar_id=avatar_id,
            receive=lambda: files_of(request, boundary),
        )
        files = [describe(outcome) for outcome in outcomes]
    except RequestRefusedError as error:
        if "files" not in error.details:
            raise
        files = list(error.details["files"])
    if visit.by_script:
        return JSONResponse({"files": files}, headers={"Cache-Control": "no-store"})
    refused = [file for file in files if "code" in file]
    if refused:
        return await _page(site, visit, avatar_id, refused=refused)
    return site.go(visit, f"/avatars/{avatar_id}")


@router.get("/{avatar_id}/selfies/{selfie_id}")
async def small_image(avatar_id: Id, selfie_id: Id, visit: Seen, site: Framed) -> Response:
    """A selfie, small. A browser asks each time whether it may show it: a face must not outlive its days."""
    selfie, data = await read_selfie_image(
        site.darkroom, user_id=visit.user_id, avatar_id=avatar_id, selfie_id=selfie_id
    )
    etag = f'"{selfie.sha256}-small"'
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
    }
    if is_known(visit.request.headers, etag):
        return Response(None, 304, headers)
    small = await site.darkroom.make_thumbnail(data)
    return Response(small.data, media_type=small.content_type, headers=headers)


@router.post("/{avatar_id}/selfies/{selfie_id}/remove")
async def remove_one(
    avatar_id: Id, selfie_id: Id, visit: Seen, site: Framed, sure: Sure = ""
) -> Response:
    """Delete a selfie, once they said that they are sure; one that is gone already is gone."""
    if sure != YES:
        avatar = await _avatar(site, visit, avatar_id)
        question = site.say(visit, "selfies.remove_sure")
        return ask_first(site, visit, question=question, back=f"/avatars/{avatar.id}")
    try:
        await remove_selfie(
            site.darkroom, user_id=visit.user_id, avatar_id=avatar_id, selfie_id=selfie_id
        )
    except RequestRefusedError as error:
        if error.code != "REFERENCE_NOT_FOUND":
            raise
    if visit.by_script:
        return await _page(site, visit, avatar_id, template="_selfies.html")
    return site.go(visit, f"/avatars/{avatar_id}")


@router.post("/{avatar_id}/name")
async def rename(avatar_id: Id, visit: Seen, site: Framed, name: _NAME) -> Response:
    """Call a person something else."""
    await call_avatar(
        site.darkroom, user_id=visit.user_id, avatar_id=avatar_id, name=_clean_name(name)
    )
    return site.go(visit, f"/avatars/{avatar_id}")


@router.post("/{avatar_id}/remove")
async def remove(avatar_id: Id, visit: Seen, site: Framed, sure: Sure = "") -> Response:
    """Delete a person with all photos, once they said that they are sure."""
    if sure != YES:
        avatar = await _avatar(site, visit, avatar_id)
        question = site.say(visit, "selfies.remove_avatar_sure", name=avatar.name)
        return ask_first(site, visit, question=question, back="/account")
    await remove_avatar(site.darkroom, user_id=visit.user_id, avatar_id=avatar_id)
    return site.go(visit, "/account")


async def _make(site: Site, user_id: int, name: str, key: str | None) -> AvatarView:
    wish = AvatarRequest(user_id, name, idempotency_key=key, request_id=uuid4())
    return await make_avatar(site.darkroom, wish)


def _clean_name(name: str) -> str:
    try:
        return parse_avatar_name(name)
    except ValueError as error:
        raise RequestRefusedError(400, "INVALID_REQUEST", "No such name") from error


async def _avatar(site: Site, visit: Visit, avatar_id: int) -> AvatarView:
    return _one_of(await read_avatars(site.darkroom, user_id=visit.user_id), avatar_id)


def _one_of(avatars: Sequence[AvatarView], avatar_id: int) -> AvatarView:
    avatar = next((one for one in avatars if one.id == avatar_id), None)
    if avatar is None:
        raise not_found("avatar")
    return avatar


async def _page(
    site: Site,
    visit: Visit,
    avatar_id: int,
    *,
    template: str = "selfies.html",
    refused: Sequence[dict[str, Any]] = (),
) -> Response:
    avatars = await read_avatars(site.darkroom, user_id=visit.user_id)
    avatar = _one_of(avatars, avatar_id)
    return site.render(
        visit,
        template,
        avatar=avatar,
        avatars=avatars,
        may_add_person=len(avatars) < AVATARS_MAX,
        selfies=await read_selfies(site.darkroom, user_id=visit.user_id, avatar_id=avatar_id),
        most=SELFIES_MAX,
        enough=ENOUGH_SELFIES,
        selfie_days=site.darkroom.selfie_days,
        refused=refused,
        key=uuid4().hex,
    )
