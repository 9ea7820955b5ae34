"""Lists that go on on another page."""

import re
from collections.abc import AsyncGenerator
from types import ModuleType
from uuid import uuid4

import httpx
import pytest

from darkroom.edges.site import payments as payment_pages
from darkroom.edges.site import sets as set_pages
from darkroom.flow.favorites import mark_favorite
from darkroom.flow.share_photos import share
from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import OURS, PAGE, SAY, come_in
from tests.shop import Shop


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        yield client


@pytest.mark.parametrize(
    "listing",
    [
        ("/payments", payment_pages, r'<a href="/payments/(\d+)"'),
        ("/sets", set_pages, r'class="cover" href="/sets/(\d+)"'),
        ("/favorites", set_pages, r'data-photo="(\d+)"'),
    ],
)
async def test_show_more_leads_to_more(
    shop: Shop,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    listing: tuple[str, ModuleType, str],
) -> None:
    """A page that was just full led to one that denied everything: "No payments yet"."""
    path, pages, entry = listing
    customer = await shop.customer()
    for _ in range(4):
        await shop.paid(customer)
        await shop.start(customer)
        await shop.drain()
    for row in await shop.rows("SELECT min(id) AS id FROM generated_photos GROUP BY job_id"):
        await mark_favorite(
            shop.darkroom, user_id=customer.user_id, photo_id=row["id"], favorite=True
        )
    monkeypatch.setattr(pages, "PAGE", 2)
    await come_in(client, customer)
    first = (await client.get(path)).text
    (older,) = re.findall(rf'href="({path}\?before=\d+)"', first)
    second = (await client.get(older)).text
    assert "?before=" not in second.partition("<footer")[0]
    seen = re.findall(entry, first) + re.findall(entry, second)
    assert len(seen) == len(set(seen)) == 4


async def test_my_links_are_those_that_open_something_by_the_number_of_their_order(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """A link to a deleted person's photos answered 404 and was listed; its number was nowhere else."""
    customer = await shop.customer()
    # A payment without a set: from here on the two kinds of numbers differ.
    await shop.paid(customer)
    payment_id = await shop.paid(customer)
    job = await shop.start(customer, payment_id=payment_id)
    await shop.drain()
    photo_id = await shop.value("SELECT min(id) FROM generated_photos")
    assert job.id != payment_id
    for photo in (None, photo_id):
        await share(
            shop.darkroom,
            user_id=customer.user_id,
            job_id=job.id,
            photo_id=photo,
            days=1,
            request_id=uuid4(),
        )
    await come_in(client, customer)
    page = (await client.get("/shares")).text
    for key in ("share.of_set", "share.of_photo"):
        assert f">{SAY.say('ru', key, number=payment_id)}<" in page
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = %s RETURNING id",
        photo_id,
    )
    one_left = (await client.get("/shares")).text
    assert SAY.say("ru", "share.of_set", number=payment_id) in one_left
    assert SAY.say("ru", "share.of_photo", number=payment_id) not in one_left
    gone = await client.post(
        f"/avatars/{customer.avatar_id}/remove", data={"sure": "yes"}, headers=OURS
    )
    assert gone.status_code == 303
    assert SAY.say("ru", "share.none") in (await client.get("/shares")).text
