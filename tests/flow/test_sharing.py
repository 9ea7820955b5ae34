"""Favourites and links for others: of what is shown, for as long as it is, and not a moment longer."""

import asyncio
import base64
import hmac
from uuid import UUID, uuid4

import pytest

from darkroom.core.shares import NewShare, insert_share
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.favorites import mark_favorite, read_favorites
from darkroom.flow.forget_me import forget_me
from darkroom.flow.remove import remove_avatar
from darkroom.flow.share_photos import (
    LIVE_SHARES_MAX,
    ShareView,
    end_share,
    open_share,
    read_shares,
    share,
)
from tests.shop import Customer, Shop

DAY_SECONDS = 86_400


async def _share(
    shop: Shop,
    customer: Customer,
    job_id: int,
    photo_id: int | None = None,
    *,
    days: int = 7,
    request_id: UUID | None = None,
) -> ShareView:
    return await share(
        shop.darkroom,
        user_id=customer.user_id,
        job_id=job_id,
        photo_id=photo_id,
        days=days,
        request_id=request_id or uuid4(),
    )


def _token(made: ShareView) -> str:
    return made.url.rpartition("/")[2]


async def _opens(shop: Shop, token: str) -> bool:
    try:
        await open_share(shop.darkroom, token)
    except RequestRefusedError as refusal:
        assert (refusal.status, refusal.code, refusal.message) == (
            404,
            "SHARE_NOT_FOUND",
            "No such share",
        )
        assert refusal.details == {"code": "SHARE_NOT_FOUND"}
        return False
    return True


async def _photo_of(shop: Shop, job_id: int) -> int:
    return await shop.value("SELECT min(id) FROM generated_photos WHERE job_id = %s", job_id)


async def test_favorites_are_a_customers_own_and_of_what_is_shown(shop: Shop) -> None:
    customer, job = await shop.sold()
    stranger = await shop.customer()
    await shop.drain()
    first = await _photo_of(shop, job.id)
    who = {"user_id": customer.user_id}
    for _ in range(2):
        for photo_id in (first, first + 2, first + 1):
            photo = await mark_favorite(shop.darkroom, **who, photo_id=photo_id, favorite=True)
            assert photo.is_favorite
    page = await read_favorites(shop.darkroom, **who, before_id=None, limit=2)
    assert [photo.id for photo in page] == [first + 2, first + 1]
    page = await read_favorites(shop.darkroom, **who, before_id=first + 1, limit=2)
    assert [photo.id for photo in page] == [first]
    for _ in range(2):
        photo = await mark_favorite(shop.darkroom, **who, photo_id=first, favorite=False)
        assert not photo.is_favorite
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = %s RETURNING id",
        first + 1,
    )
    for user_id, photo_id in ((stranger.user_id, first), (customer.user_id, first + 1)):
        with pytest.raises(RequestRefusedError, match="PHOTO_NOT_FOUND"):
            await mark_favorite(shop.darkroom, user_id=user_id, photo_id=photo_id, favorite=True)
    page = await read_favorites(shop.darkroom, **who, before_id=None, limit=9)
    assert [photo.id for photo in page] == [first + 2]
    assert not await read_favorites(
        shop.darkroom, user_id=stranger.user_id, before_id=None, limit=9
    )
    await remove_avatar(shop.darkroom, **who, avatar_id=customer.avatar_id)
    assert not await read_favorites(shop.darkroom, **who, before_id=None, limit=9)


async def test_a_link_shows_a_set_or_one_photo_until_it_is_over(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    first = await _photo_of(shop, job.id)
    whole, one = await _share(shop, customer, job.id), await _share(shop, customer, job.id, first)
    assert whole.url == f"{shop.darkroom.base_url}/s/{_token(whole)}"
    opened = await open_share(shop.darkroom, _token(whole))
    assert [photo.prompt_index for photo in opened.photos] == list(range(7))
    assert (opened.user_id, opened.style_id) == (customer.user_id, "signature")
    assert opened.expires_at == whole.expires_at
    opened = await open_share(shop.darkroom, _token(one))
    assert [photo.id for photo in opened.photos] == [first]
    listed = await read_shares(shop.darkroom, user_id=customer.user_id)
    assert listed == [one, whole]
    await shop.advance(7 * DAY_SECONDS - 60)
    assert await _opens(shop, _token(whole))
    await shop.advance(120)
    assert not await _opens(shop, _token(whole))
    assert await read_shares(shop.darkroom, user_id=customer.user_id) == []


async def test_every_way_in_that_is_none_looks_the_same(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    made = await _share(shop, customer, job.id)
    token = _token(made)
    other_purpose = shop.darkroom.tokens.make("sign-in", made.id)
    digest = hmac.digest(b"guess", b"x", "sha256")
    forged = f"{made.id}." + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    for bad in ("", "1", token[:-1], token + "x", forged, other_purpose, "x" * 5000, "ж.1"):
        assert not await _opens(shop, bad), bad
    assert not await _opens(shop, shop.darkroom.tokens.make("share", 10**9))
    assert await _opens(shop, token)
    stranger = await shop.customer()
    with pytest.raises(RequestRefusedError, match="SHARE_NOT_FOUND"):
        await end_share(shop.darkroom, user_id=stranger.user_id, share_id=made.id)
    assert await _opens(shop, token)
    for _ in range(2):
        await end_share(shop.darkroom, user_id=customer.user_id, share_id=made.id)
        assert not await _opens(shop, token)


async def test_a_link_shows_nothing_that_its_owner_does_not_see(shop: Shop) -> None:
    """Tombstones are asked at every use; a set of which nothing is left is no set."""
    customer, job = await shop.sold()
    await shop.drain()
    first = await _photo_of(shop, job.id)
    whole, one = [_token(await _share(shop, customer, job.id, photo)) for photo in (None, first)]
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = %s RETURNING id", first
    )
    assert not await _opens(shop, one)
    assert len((await open_share(shop.darkroom, whole)).photos) == 6
    await remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=customer.avatar_id)
    assert not await _opens(shop, whole)


async def test_nobody_shares_what_is_not_theirs(shop: Shop) -> None:
    (customer, job), (other, theirs) = await shop.sold(), await shop.sold()
    with pytest.raises(RequestRefusedError, match="JOB_NOT_FOUND"):
        await _share(shop, customer, job.id)  # nothing is there yet
    await shop.drain()
    photo_of_theirs = await _photo_of(shop, theirs.id)
    for job_id, photo_id in (
        (theirs.id, None),
        (theirs.id, photo_of_theirs),
        (job.id, photo_of_theirs),
    ):
        with pytest.raises(RequestRefusedError) as refused:
            await _share(shop, customer, job_id, photo_id)
        assert refused.value.status == 404
    for days in (0, -1, 31, 10**30):
        with pytest.raises(RequestRefusedError, match="INVALID_DAYS"):
            await _share(shop, customer, job.id, days=days)
    assert await shop.value("SELECT count(*) FROM photo_shares") == 0
    wish = uuid4()
    made = await asyncio.gather(
        *(_share(shop, customer, job.id, request_id=wish) for _ in range(5))
    )
    assert len(set(made)) == 1
    with pytest.raises(RequestRefusedError, match="IDEMPOTENCY_KEY_REUSED"):
        await _share(shop, customer, job.id, days=8, request_id=wish)
    # Another's request may have the same name.
    assert (await _share(shop, other, theirs.id, request_id=wish)).id != made[0].id


async def test_at_most_so_many_links_are_live_at_once(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()

    async def ask() -> str:
        try:
            await _share(shop, customer, job.id)
        except RequestRefusedError as refusal:
            return f"{refusal.status} {refusal.code}"
        return "made"

    answers = await asyncio.gather(*(ask() for _ in range(LIVE_SHARES_MAX + 7)))
    assert answers.count("made") == LIVE_SHARES_MAX
    assert answers.count("429 TOO_MANY_SHARES") == 7
    listed = await read_shares(shop.darkroom, user_id=customer.user_id)
    assert len(listed) == LIVE_SHARES_MAX
    await end_share(shop.darkroom, user_id=customer.user_id, share_id=listed[0].id)
    assert await ask() == "made"


async def test_twin_without_the_lock_one_link_too_many_is_made(shop: Shop) -> None:
    """The guard removed: both count none, both insert."""
    customer, job = await shop.sold()
    await shop.drain()
    counted = asyncio.Barrier(2)

    async def make() -> None:
        async with shop.database.transaction() as tx:
            wish = NewShare(customer.user_id, job.id, None, 1, uuid4())
            await insert_share(tx, wish, most=1)
            await counted.wait()

    await asyncio.gather(make(), make())
    assert await shop.value("SELECT count(*) FROM photo_shares") == 2, "the twin must fail"


async def test_old_links_are_swept_and_live_ones_stay(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    ended, short, long = [await _share(shop, customer, job.id, days=days) for days in (30, 1, 30)]
    await end_share(shop.darkroom, user_id=customer.user_id, share_id=ended.id)
    await shop.advance(7 * DAY_SECONDS + 60)
    await shop.step("sweep")
    left = [row["id"] for row in await shop.rows("SELECT id FROM photo_shares ORDER BY id")]
    assert left == [short.id, long.id]
    await shop.advance(DAY_SECONDS)
    await shop.step("sweep")
    assert await shop.value("SELECT array_agg(id) FROM photo_shares") == [long.id]
    assert await _opens(shop, _token(long))


async def test_who_leaves_shares_nothing_from_that_moment_on(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    made = await _share(shop, customer, job.id)
    await mark_favorite(
        shop.darkroom,
        user_id=customer.user_id,
        photo_id=await _photo_of(shop, job.id),
        favorite=True,
    )
    await forget_me(shop.darkroom, user_id=customer.user_id)
    assert not await _opens(shop, _token(made))
    for _ in range(2):
        await shop.drain()
        await shop.advance(600)
    assert await shop.value("SELECT count(*) FROM photo_shares") == 0
    assert await shop.value("SELECT count(favorite_at) FROM generated_photos") == 0
