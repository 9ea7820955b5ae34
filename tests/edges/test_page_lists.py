"""Lists that go on on another page."""

import re
from collections.abc import AsyncGenerator
from types import ModuleType

import httpx
import pytest

from darkroom.edges.site import payments as payment_pages
from darkroom.edges.site import sets as set_pages
from darkroom.flow.favorites import mark_favorite
from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import PAGE, come_in
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
