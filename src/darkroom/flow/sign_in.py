"""Somebody signs in: an identity that was proven becomes a user, and a session that can be ended."""

import secrets
from dataclasses import dataclass
from typing import Final

from darkroom.core.people import create_user, ensure_user, write_locale
from darkroom.core.sessions import (
    SessionView,
    end_session,
    find_session_user,
    open_session,
    view_session,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.ports.identity import Person

TOKEN_BYTES: Final = 32
"""256 bits: nobody guesses one, so looking one up by its hash needs no constant time."""
LOCALES: Final = ("ru", "en")


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """The only place where a token is in the clear."""

    user_id: int
    token: str
    days: int


def new_token() -> str:
    """What a session is held by."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def refuse_odd_locale(locale: str) -> None:
    """Let in only a language that there are texts in. Raises RequestRefusedError 400."""
    if locale not in LOCALES:
        raise RequestRefusedError(400, "UNKNOWN_LOCALE", f"One of {', '.join(LOCALES)}")


async def know_person(darkroom: Darkroom, person: Person) -> int:
    """Our id of a person whose identity was proven; the row is made at first sight, once."""
    async with darkroom.database.connection() as tx:
        return await ensure_user(tx, person.telegram_user_id, locale=person.locale)


async def sign_in(darkroom: Darkroom, person: Person) -> OpenedSession:
    """A new session for a person whose identity was proven. A crash leaves at most an unused session."""
    token = new_token()
    days = darkroom.limits.session_days
    async with darkroom.database.transaction() as tx:
        user_id = await ensure_user(tx, person.telegram_user_id, locale=person.locale)
        await open_session(tx, user_id=user_id, token=token, days=days, origin="telegram")
    return OpenedSession(user_id, token, days)


async def open_demo_session(darkroom: Darkroom, telegram_user_id: int | None) -> OpenedSession:
    """A new session on somebody's bare word: of the user with this Telegram id, or of a fresh one.

    For demo mode alone: whoever calls it has made sure of that. A crash leaves at most an unused session.
    """
    token = new_token()
    days = darkroom.limits.session_days
    async with darkroom.database.transaction() as tx:
        if telegram_user_id is None:
            user_id = await create_user(tx)
        else:
            user_id = await ensure_user(tx, telegram_user_id)
        await open_session(tx, user_id=user_id, token=token, days=days, origin="demo")
    return OpenedSession(user_id, token, days)


async def whose_session(darkroom: Darkroom, token: str) -> int | None:
    """The user of a live session, if it is one."""
    async with darkroom.database.connection() as tx:
        return await find_session_user(tx, token)


async def read_session(darkroom: Darkroom, token: str) -> SessionView | None:
    """Who holds a live session, and how they were known; None: nobody does. One question."""
    async with darkroom.database.connection() as tx:
        return await view_session(tx, token)


async def set_locale(darkroom: Darkroom, *, user_id: int, locale: str) -> None:
    """Write to this user in this language (`ru`, `en`) from now on. Harmless twice.

    Raises:
        RequestRefusedError: 400 another language, 404 no such user, or they left.
    """
    refuse_odd_locale(locale)
    async with darkroom.database.connection() as tx:
        written = await write_locale(tx, user_id=user_id, locale=locale)
    if not written:
        raise not_found("user")


async def sign_out(darkroom: Darkroom, token: str) -> None:
    """End a session. Harmless twice."""
    async with darkroom.database.connection() as tx:
        await end_session(tx, token)
