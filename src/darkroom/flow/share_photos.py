"""A customer shows photos to others: links that are their own permission, and that their owner can end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from darkroom.core import shares
from darkroom.core.photos import PhotoView, find_photo, list_photos_of_job
from darkroom.core.requests import lock_user
from darkroom.core.shares import NewShare, Share
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, key_reused, not_found
from darkroom.kit.checkpoint import checkpoint

SHARE_DAYS_MAX: Final = 30
"""The table's own limit: a link that was forgotten about is no link a month later."""
LIVE_SHARES_MAX: Final = 50
"""Every set of a good customer, once more; a list that fits on one page."""


@dataclass(frozen=True, slots=True)
class ShareView:
    """A live share as its owner sees it. `photo_id` None: the whole set."""

    id: int
    job_id: int
    payment_id: int
    photo_id: int | None
    url: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedShare:
    """What whoever holds a link may see: these pictures, in the set's order, and nothing else of their owner.

    Attributes:
        user_id: the owner, for whom the pictures' links are signed. Such a link lives for its own minutes.
    """

    user_id: int
    job_id: int
    style_id: str
    expires_at: datetime
    photos: list[PhotoView]


async def share(
    darkroom: Darkroom,
    *,
    user_id: int,
    job_id: int,
    photo_id: int | None,
    days: int,
    request_id: UUID,
) -> ShareView:
    """Make a link to a set, or to one photo of it. The same `request_id` again is the same share.

    The count is decided behind the user's lock. The link's token is made of the row's id and is stored
    nowhere. A crash leaves nothing or the whole row.

    Raises:
        RequestRefusedError: 400 INVALID_DAYS; 404: not theirs, hidden, or nothing there yet; 429
            TOO_MANY_SHARES; 409 IDEMPOTENCY_KEY_REUSED.
        UserLeftError: they asked to be forgotten.
        RowBusyError, DatabaseUnavailableError: ask again.
    """
    if not 1 <= days <= SHARE_DAYS_MAX:
        raise RequestRefusedError(
            400, "INVALID_DAYS", f"A link is good for 1 to {SHARE_DAYS_MAX} days"
        )
    wish = NewShare(user_id, job_id, photo_id, days, request_id)

    async def make(tx: Connection) -> Share:
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        known = await _find_known(tx, wish)
        if known is not None:
            return known
        share_id = await shares.insert_share(tx, wish, most=LIVE_SHARES_MAX)
        made = None if share_id is None else await shares.find_share(tx, share_id)
        if made is None:
            raise await _explain(tx, wish)
        await checkpoint("share.before_commit")
        return made

    async def read_back(tx: Connection) -> Share | None:
        return await _find_known(tx, wish)

    made = await darkroom.database.settle(make, read_back=read_back)
    await checkpoint("share.after_commit")
    return _view(darkroom, made)


async def _find_known(tx: Connection, wish: NewShare) -> Share | None:
    known = await shares.find_share_by_request(tx, user_id=wish.user_id, request_id=wish.request_id)
    if known is None:
        return None
    asked = (wish.job_id, wish.photo_id, timedelta(days=wish.days))
    if (known.job_id, known.photo_id, known.expires_at - known.created_at) != asked:
        raise key_reused()
    return known


async def _explain(tx: Connection, wish: NewShare) -> RequestRefusedError:
    if not await _list_shown(tx, wish.user_id, wish.job_id, wish.photo_id):
        return not_found("job" if wish.photo_id is None else "photo")
    live = await shares.count_live_shares(tx, user_id=wish.user_id)
    if live >= LIVE_SHARES_MAX:
        return RequestRefusedError(
            429,
            "TOO_MANY_SHARES",
            f"You have {LIVE_SHARES_MAX} links already; please end one first",
            limit=LIVE_SHARES_MAX,
        )
    # It became possible in between: the customer's next try will pass.
    return RequestRefusedError(503, "BUSY", "Please try again in a moment")


async def _list_shown(
    tx: Connection, user_id: int, job_id: int, photo_id: int | None
) -> list[PhotoView]:
    if photo_id is None:
        return await list_photos_of_job(tx, user_id=user_id, job_id=job_id)
    photo = await find_photo(tx, user_id=user_id, photo_id=photo_id)
    return [photo] if photo is not None and photo.job_id == job_id else []


async def read_shares(darkroom: Darkroom, *, user_id: int) -> list[ShareView]:
    """The user's links that open something, newest first; at most LIVE_SHARES_MAX."""
    async with darkroom.database.connection() as tx:
        live = await shares.list_live_shares(tx, user_id=user_id, limit=LIVE_SHARES_MAX)
    return [_view(darkroom, one) for one in live]


async def end_share(darkroom: Darkroom, *, user_id: int, share_id: int) -> None:
    """From here on the link opens nothing. Harmless twice.

    A picture's own signed link, made when the share was opened, is good for the rest of its minutes.

    Raises:
        RequestRefusedError: 404: no such share, or somebody else's.
    """
    async with darkroom.database.connection() as tx:
        ended = await shares.end_share(tx, user_id=user_id, share_id=share_id)
    if not ended:
        raise not_found("share")


async def open_share(darkroom: Darkroom, token: str) -> OpenedShare:
    """What a link shows to whoever holds it. The row and the photos are asked at every use. Changes nothing.

    Raises:
        RequestRefusedError: 404, always the same: forged, ended, over, its owner leaves, nothing left to show.
        DatabaseUnavailableError: ask again.
    """
    share_id = darkroom.tokens.read("share", token)
    if share_id is None:
        raise not_found("share")
    async with darkroom.database.connection() as tx:
        found = await shares.find_live_share(tx, share_id)
        if found is None:
            raise not_found("share")
        photos = await _list_shown(tx, found.user_id, found.job_id, found.photo_id)
    if not photos:
        raise not_found("share")
    return OpenedShare(
        user_id=found.user_id,
        job_id=found.job_id,
        style_id=found.style_id,
        expires_at=found.expires_at,
        photos=photos,
    )


def _view(darkroom: Darkroom, row: Share) -> ShareView:
    token = darkroom.tokens.make("share", row.id)
    return ShareView(
        id=row.id,
        job_id=row.job_id,
        payment_id=row.payment_id,
        photo_id=row.photo_id,
        url=f"{darkroom.base_url}/s/{token}",
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
