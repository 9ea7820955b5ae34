"""Somebody signs in: signed init data becomes a user, and a session that can be ended."""

import secrets
from dataclasses import dataclass
from typing import Final

from darkroom.core.people import ensure_user
from darkroom.core.sessions import end_session, find_session_user, open_session
from darkroom.flow.darkroom import Darkroom
from darkroom.ports.identity import Person

TOKEN_BYTES: Final = 32
"""256 bits: nobody guesses one, so looking one up by its hash needs no constant time."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """The only place where a token is in the clear."""

    user_id: int
    token: str
    days: int


async def know_person(darkroom: Darkroom, person: Person) -> int:
    """Our id of a person whose identity was proven; the row is made at first sight, once."""
    async with darkroom.database.connection() as tx:
        return await ensure_user(tx, person.telegram_user_id, locale=person.locale)


async def sign_in(darkroom: Darkroom, person: Person) -> OpenedSession:
    """A new session for a person whose identity was proven. A crash leaves at most an unused session."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    days = darkroom.limits.session_days
    async with darkroom.database.transaction() as tx:
        user_id = await ensure_user(tx, person.telegram_user_id, locale=person.locale)
        await open_session(tx, user_id=user_id, token=token, days=days)
    return OpenedSession(user_id, token, days)


async def whose_session(darkroom: Darkroom, token: str) -> int | None:
    """The user of a live session, if it is one."""
    async with darkroom.database.connection() as tx:
        return await find_session_user(tx, token)


async def sign_out(darkroom: Darkroom, token: str) -> None:
    """End a session. Harmless twice."""
    async with darkroom.database.connection() as tx:
        await end_session(tx, token)
