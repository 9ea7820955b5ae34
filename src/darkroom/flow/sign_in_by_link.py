"""Signing in by a link that opens once: asked for by e-mail, or made by an operator.

Who asks proves nothing: whoever reads the letter does. So the answer to an asker is the same whether somebody
of this address was here before, and a link is used by a button, not by opening it: scanners of mail open links.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from darkroom.core.mail_outbox import count_recent_mail, insert_mail, is_flooded
from darkroom.core.people import find_user
from darkroom.core.requests import lock_user
from darkroom.core.sessions import find_session_user, open_session
from darkroom.core.sign_in_links import (
    LinkOwner,
    find_link_by_request,
    find_link_owner,
    insert_link,
    is_known,
    lock_link,
    lock_user_of_email,
    use_link,
)
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, checked_email, not_found
from darkroom.flow.sign_in import OpenedSession, new_token, refuse_odd_locale
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")

SignedIn = Callable[[Connection, int], Awaitable[object]]
"""What else is done in the transaction that uses a link up: gets it and the user. No network, short."""


def link_address(darkroom: Darkroom, link_id: int) -> str:
    """Where a link leads. Whoever has it signs in: it belongs in a letter and in no log."""
    return f"{darkroom.base_url}/sign-in/{darkroom.tokens.make('sign-in', link_id)}"


async def ask_sign_in_link(
    darkroom: Darkroom,
    *,
    email: str,
    locale: str,
    now_request: UUID | None = None,
    next_path: str | None = None,
) -> None:
    """Write a link to this address, good for half an hour, once; a worker sends it.

    `next_path` is kept with the link: where its reader was going.

    User, link and letter are one transaction. The same wish again (`now_request`, an id that the asker made)
    is one letter; without one each call is a wish of its own.

    Raises:
        RequestRefusedError: 400 INVALID_EMAIL or UNKNOWN_LOCALE; 429 TOO_MANY_LINKS after five in an hour;
            503 MAIL_OFF where nobody carries letters, and MAIL_BUSY when too many were written to all.
        RowBusyError, DatabaseUnavailableError: ask again.
    """
    if darkroom.mailer is None:
        raise RequestRefusedError(503, "MAIL_OFF", "Signing in by e-mail is not open here")
    refuse_odd_locale(locale)
    address = checked_email(email)
    limits = darkroom.limits
    request_id = now_request or uuid4()

    async def lock(tx: Connection) -> int:
        return await lock_user_of_email(
            tx, address, locale=locale, lock_timeout_ms=limits.lock_timeout_ms
        )

    async def ask(tx: Connection) -> int:
        user_id = await lock(tx)
        known = await find_link_by_request(tx, request_id)
        if known is not None:
            return known
        await _refuse_too_many(darkroom, tx, user_id)
        await _refuse_a_flood(darkroom, tx, user_id)
        link_id = await _insert_link(darkroom, tx, user_id, request_id, next_path)
        await insert_mail(tx, user_id=user_id, link_id=link_id, address=address, locale=locale)
        await checkpoint("mail.before_commit")
        return link_id

    async def read_back(tx: Connection) -> int | None:
        # Behind the lock: a commit whose acknowledgement was lost may still be under way.
        await lock(tx)
        return await find_link_by_request(tx, request_id)

    link_id = await darkroom.database.settle(ask, read_back=read_back)
    log.info("sign-in link asked for", link_id=link_id)
    await darkroom.doorbell.ring()


async def _refuse_too_many(darkroom: Darkroom, tx: Connection, user_id: int) -> None:
    """Behind the user's lock, so that parallel requests count each other."""
    limits = darkroom.limits
    written = await count_recent_mail(
        tx, user_id=user_id, window_seconds=limits.sign_in_links_window_seconds
    )
    if written >= limits.sign_in_links_max:
        raise RequestRefusedError(
            429, "TOO_MANY_LINKS", "Too many links were asked for; please look into the letters"
        )


async def _refuse_a_flood(darkroom: Darkroom, tx: Connection, user_id: int) -> None:
    """Letters to strangers have a bound. Who was here before is none, and no flood locks them out."""
    limits = darkroom.limits
    if not await is_known(tx, user_id) and await is_flooded(
        tx,
        window_seconds=limits.sign_in_links_window_seconds,
        letters_max=limits.sign_in_letters_max,
    ):
        log.warning("too many sign-in letters", letters_max=limits.sign_in_letters_max)
        raise RequestRefusedError(
            503, "MAIL_BUSY", "Too many people are signing in; please try again in a while"
        )


async def _insert_link(
    darkroom: Darkroom,
    tx: Connection,
    user_id: int,
    request_id: UUID,
    next_path: str | None = None,
) -> int:
    link_id = await insert_link(
        tx,
        user_id=user_id,
        request_id=request_id,
        good_seconds=darkroom.limits.sign_in_link_seconds,
        next_path=next_path,
    )
    if link_id is None:
        raise not_found("user")
    return link_id


async def find_person(
    darkroom: Darkroom, *, email: str | None = None, telegram_user_id: int | None = None
) -> int:
    """The user of an address (made at first sight: an operator may invite), or of a Telegram id.

    Raises:
        RequestRefusedError: 400 INVALID_EMAIL; 404 nobody of this Telegram id was here.
    """
    address = None if email is None else checked_email(email)
    async with darkroom.database.transaction() as tx:
        if address is not None:
            return await lock_user_of_email(
                tx, address, locale="ru", lock_timeout_ms=darkroom.limits.lock_timeout_ms
            )
        found = None if telegram_user_id is None else await find_user(tx, telegram_user_id)
    if found is None:
        raise not_found("user")
    return found


async def make_sign_in_link(darkroom: Darkroom, user_id: int) -> str:
    """A link for an operator to hand over: the whole address. A crash leaves a link that nobody knows.

    Raises:
        RequestRefusedError: 404 no such user.
        UserLeftError: they asked to be forgotten.
    """
    async with darkroom.database.transaction() as tx:
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        link_id = await _insert_link(darkroom, tx, user_id, uuid4())
    log.info("sign-in link made by hand", user_id=user_id, link_id=link_id)
    return link_address(darkroom, link_id)


@dataclass(frozen=True, slots=True)
class PeekedLink:
    """Whose account a link opens, as whoever holds it may read it, and where its reader was going."""

    whose: str
    next_path: str | None


async def peek_sign_in_link(darkroom: Darkroom, token: str) -> PeekedLink | None:
    """What a link opens; None: nothing any more.

    Changes nothing: mail scanners may look as often as they like.
    """
    link_id = darkroom.tokens.read("sign-in", token)
    if link_id is None:
        return None
    async with darkroom.database.connection() as tx:
        owner = await find_link_owner(tx, link_id)
    return None if owner is None else PeekedLink(_name_of(owner), owner.next_path)


def _name_of(owner: LinkOwner) -> str:
    if owner.email is not None:
        name, _, domain = owner.email.partition("@")
        return f"{name[0]}…@{domain}"
    known = owner.telegram_user_id
    return f"№ {owner.user_id}" if known is None else f"Telegram {known}"


async def sign_in_by_link(
    darkroom: Darkroom, token: str, *, inside: SignedIn | None = None
) -> OpenedSession:
    """Use a link up and open a session, in one transaction; of any number at once, one does.

    `inside` is done in the same transaction; what it raises undoes both. A lost answer of the database is read
    back by the session's token. A crash after the commit leaves a used link: its reader asks for another.

    Raises:
        RequestRefusedError: 410 LINK_USED_OR_OVER: used, too old, forged, or or its user left: never which.
    """
    link_id = darkroom.tokens.read("sign-in", token)
    if link_id is None:
        raise _used_or_over()
    session_token = new_token()
    days = darkroom.limits.session_days

    async def use(tx: Connection) -> int:
        user_id = await use_link(tx, link_id)
        if user_id is None:
            raise _used_or_over()
        await open_session(tx, user_id=user_id, token=session_token, days=days, origin="link")
        if inside is not None:
            await inside(tx, user_id)
        await checkpoint("link.before_commit")
        return user_id

    async def read_back(tx: Connection) -> int | None:
        # Behind the link's lock: our own commit may still be under way.
        await lock_link(tx, link_id)
        return await find_session_user(tx, session_token)

    user_id = await darkroom.database.settle(use, read_back=read_back)
    await checkpoint("link.after_commit")
    log.info("signed in by link", user_id=user_id, link_id=link_id)
    return OpenedSession(user_id, session_token, days)


def _used_or_over() -> RequestRefusedError:
    return RequestRefusedError(
        410,
        "LINK_USED_OR_OVER",
        "This link was used already, or its time is over: ask for a new one",
    )
