"""The customer's own page: who they are here, what they were told, and the way out."""

from uuid import uuid4

from fastapi import APIRouter, Response

from darkroom.edges.sessions import clear_session
from darkroom.edges.site.route import Framed, PageRoute, Seen
from darkroom.edges.site.sure import YES, Sure, ask_first
from darkroom.flow.forget_me import forget_me
from darkroom.flow.make_avatar import AVATARS_MAX
from darkroom.flow.read_avatars import read_avatars
from darkroom.flow.read_back import read_messages

router = APIRouter(include_in_schema=False, route_class=PageRoute)

MESSAGES = 20
"""The newest, of which a set makes one or two."""


@router.get("/account")
async def page(visit: Seen, site: Framed) -> Response:
    """People, messages, payments, links, language, leaving."""
    avatars = await read_avatars(site.darkroom, user_id=visit.user_id)
    return site.render(
        visit,
        "account.html",
        session=visit.session,
        avatars=avatars,
        may_add_person=len(avatars) < AVATARS_MAX,
        messages=await read_messages(
            site.darkroom, user_id=visit.user_id, before_id=None, limit=MESSAGES
        ),
        key=uuid4().hex,
    )


@router.post("/account/forget")
async def forget(visit: Seen, site: Framed, sure: Sure = "") -> Response:
    """Delete everything of theirs, once they said that they are sure; they are signed out."""
    user_id = visit.user_id
    if sure != YES:
        question = site.say(visit, "account.leave_sure")
        return ask_first(site, visit, question=question, back="/account")
    await forget_me(site.darkroom, user_id=user_id)
    answer = site.go(visit, "/left")
    clear_session(answer)
    return answer


@router.get("/left")
async def left(visit: Seen, site: Framed) -> Response:
    """What happens now."""
    return site.render(visit, "left.html")
