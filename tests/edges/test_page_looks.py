"""Pages that look again by themselves: for as long as something is on its way, and no longer."""

import re
from collections.abc import AsyncGenerator

import httpx
import pytest

from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import PAGE, SAY, come_in
from tests.shop import Shop


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        yield client


def looks_at(page: str) -> str:
    """Where a payment's page asks how things stand."""
    (address,) = re.findall(r'hx-get="([^"]+)"', page)
    return address.replace("&amp;", "&")


async def test_a_payment_that_has_not_moved_is_not_sent_again(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="creative")
    await come_in(client, customer)
    look = looks_at((await client.get(f"/payments/{payment_id}")).text)
    for _ in range(2):
        same = await client.get(look, headers={"HX-Request": "true"})
        assert (same.status_code, same.text) == (204, "")
    other = await client.get(f"/payments/{payment_id}/now?have=other")
    assert (other.status_code, looks_at(other.text)) == (200, look)
    await shop.rows("UPDATE reference_photos SET deleted_at = darkroom_now() RETURNING id")
    await shop.notify(payment_id)
    await shop.step("notice")
    moved = await client.get(look)
    assert SAY.say("ru", "payment.starting") in moved.text
    await shop.advance(60)
    unused = await client.get(looks_at(moved.text))
    assert SAY.say("ru", "payment.unused") in unused.text
    assert "hx-get" not in unused.text
