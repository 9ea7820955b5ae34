"""A short day on the real adapters: a set of three photos, a payment asked back, a customer who leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

import httpx

from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.forget_me import forget_telegram_user
from darkroom.flow.hand_out_photos import find_photo_file
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.prepare import prepare
from darkroom.flow.read_avatars import read_selfie_image, read_selfies
from darkroom.flow.read_back import read_photos
from darkroom.flow.reconcile import Look, reconcile
from darkroom.flow.sign_in_by_link import ask_sign_in_link
from darkroom.flow.upload_directly import keep_uploads, open_uploads
from darkroom.twin.kie_faults import Fault, Kind
from darkroom.wiring import bundled_catalog
from tests.crash.outside_town import Letter, OutsideWorld
from tests.crash.vanishing import Crash
from tests.scripted import picture_of
from tests.shop import Customer, Shop

PHOTOS: Final = 3
BUYER, LEAVER = 501, 502
LEASE_SECONDS: Final = 11
"""Longer than the lease of whoever vanished."""
LATER_SECONDS: Final = 1200
"""No put and no painting can still be under way: what a leaver left in the bucket is looked for, and what
tasks took is asked for."""
STRIDE_SECONDS: Final = 3.0
"""Rows whose times are that close are taken in one round; a lost answer's grace is thirty times as long."""


def tell(world: OutsideWorld, crash: Crash) -> None:
    """The whole day, with one crash in it. On return nothing is due, and no letter is left."""
    world.insist(
        lambda shop: shop.rows(
            "UPDATE tiers SET photo_count = %s WHERE id = 'starter' RETURNING id", PHOTOS
        )
    )
    buyer = world.insist(lambda shop: shop.customer(BUYER))
    world.insist(lambda shop: shop.customer(LEAVER))
    world.crash = crash
    world.insist(lambda shop: prepare(shop.darkroom, bundled_catalog()))
    world.insist(lambda shop: ask_sign_in_link(shop.darkroom, email="ann@example.com", locale="ru"))
    _uploaded_directly(world, buyer)
    _made(world, buyer)
    _asked_back(world, buyer)
    _looked_at(world, buyer)
    world.insist(lambda shop: forget_telegram_user(shop.darkroom, LEAVER))
    world.insist(lambda shop: shop.step("forget"))
    world.insist(lambda shop: shop.advance(LATER_SECONDS))
    _drain(world)


def _uploaded_directly(world: OutsideWorld, buyer: Customer) -> None:
    """A second selfie goes straight into the bucket, by a link that our adapter signed."""

    async def upload(shop: Shop) -> None:
        user_id, avatar_id = buyer.user_id, buyer.avatar_id
        (link,) = await open_uploads(
            shop.darkroom, user_id=user_id, avatar_id=avatar_id, file_names=["me.jpg"]
        )
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.put(link.url, content=picture_of(-99))
        assert answer.is_success, answer.text
        await keep_uploads(
            shop.darkroom, user_id=user_id, avatar_id=avatar_id, upload_ids=[link.id]
        )

    world.insist(upload)


def _made(world: OutsideWorld, buyer: Customer) -> None:
    """Ordered, paid, made. The answer to one creation is lost: that task is known by its callback alone."""
    payment_id = _order(world, buyer, key="first", style="signature")
    world.town.pays(payment_id)
    _hand_in_all(world)
    world.attempt(lambda shop: shop.step("notice"))
    habits = world.town.kie.habits
    # What a task took is said later than that it is done: the ledger asks for it.
    named, habits.credit_field = habits.credit_field, "creditsPending"
    world.town.kie.script("create", Fault(Kind.DROP))
    # The first link that is opened is dead: another one is asked for.
    world.town.kie.script("result", Fault(Kind.ANSWER, 403))
    _wake(world)
    world.attempt(lambda shop: shop.step("submit"))
    world.town.paint()
    _hand_in_all(world)
    _wake(world)
    world.attempt(lambda shop: shop.step("notice"))
    _drain(world)
    habits.credit_field = named


def _asked_back(world: OutsideWorld, buyer: Customer) -> None:
    """Paid, and the bank's notice is lost: we find it by asking. Then the money is asked back."""
    payment_id = _order(world, buyer, key="second", style=None)
    world.town.pays(payment_id)
    world.town.take_mail()
    _drain(world)
    world.insist(lambda shop: _asking(shop, buyer, payment_id))
    _drain(world)


async def _asking(shop: Shop, buyer: Customer, payment_id: int) -> None:
    try:
        await ask_back(shop.darkroom, user_id=buyer.user_id, payment_id=payment_id)
    except RequestRefusedError:
        # Asked for already, by a process that did not live to say so.
        status = await shop.value("SELECT status FROM payments WHERE id = %s", payment_id)
        assert status in ("refunding", "refunded"), status


def _order(world: OutsideWorld, buyer: Customer, *, key: str, style: str | None) -> int:
    request_id = uuid4()

    async def press(shop: Shop) -> int:
        wish = OrderRequest(
            user_id=buyer.user_id,
            tier_id="starter",
            provider="sandbox",
            avatar_id=None if style is None else buyer.avatar_id,
            style_id=style,
            idempotency_key=key,
            request_id=request_id,
        )
        return (await order_photos(shop.darkroom, wish)).id

    return world.insist(press)


def _hand_in_all(world: OutsideWorld) -> bool:
    """Every letter reaches a process that answers; whoever sent it comes again until then. Were there any?"""
    letters = world.town.take_mail()
    for letter in letters:
        world.insist(_handing_in(world, letter))
    return bool(letters)


def _handing_in(world: OutsideWorld, letter: Letter) -> Callable[[Shop], Awaitable[None]]:
    async def hand_in(shop: Shop) -> None:
        status = await world.hand_in(shop, letter)
        assert status < 500, (status, letter)

    return hand_in


def _wake(world: OutsideWorld) -> None:
    """What a process that vanished held is free again."""
    if world.crash.happened:
        world.insist(lambda shop: shop.advance(LEASE_SECONDS))
        world.attempt(lambda shop: shop.step("notice"))


def _drain(world: OutsideWorld) -> None:
    """Everything runs to its end, also what somebody died with, and every letter is answered."""
    world.attempt(_draining)
    _hand_in_all(world)
    world.insist(lambda shop: shop.advance(LEASE_SECONDS))
    world.insist(_draining)
    while _hand_in_all(world):
        world.insist(_draining)


async def _draining(shop: Shop) -> None:
    await shop.drain(stride_seconds=STRIDE_SECONDS)


def _looked_at(world: OutsideWorld, buyer: Customer) -> None:
    """The customer and an operator look at what is there."""

    async def look(shop: Shop) -> None:
        avatar = {"user_id": buyer.user_id, "avatar_id": buyer.avatar_id}
        selfies = await read_selfies(shop.darkroom, **avatar)
        await asyncio.gather(
            *(
                read_selfie_image(shop.darkroom, **avatar, selfie_id=one.selfie.id)
                for one in selfies
            )
        )
        photos = await read_photos(shop.darkroom, **avatar, before_id=None, limit=1)
        assert photos, "no photo to look at"
        file = await find_photo_file(
            shop.darkroom, user_id=buyer.user_id, photo_id=photos[0].id, variant="full"
        )
        pieces = [piece async for piece in await file.read(0, file.size_bytes)]
        assert sum(len(piece) for piece in pieces) == file.size_bytes

    async def reconcile_both(shop: Shop) -> None:
        done = await reconcile(shop.darkroom, "sandbox", Look(grace_seconds=0))
        assert done.failure is None
        assert not done.differences

    world.insist(look)
    world.insist(reconcile_both)
