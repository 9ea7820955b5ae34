"""Pages that look again by themselves: for as long as something is on its way, and no longer."""

import re
from collections.abc import AsyncGenerator

import httpx
import pytest

from darkroom.ports.generation import Again, GenerationRequest, Refused
from darkroom.ports.payments import RefundAnswer, RefundCall, RefundNoAnswer
from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import OURS, PAGE, SAY, come_in
from tests.scripted import Answer
from tests.shop import Customer, Shop


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


async def unheard(shop: Shop) -> None:
    """The bank pays back, and its answer is lost: the money is on its way until somebody asks."""

    async def pays(call: RefundCall) -> RefundAnswer:
        shop.bank.pays_back(call)
        return RefundNoAnswer("lost")

    shop.bank.on_refund = pays


async def lacking_one(shop: Shop) -> tuple[Customer, int, int]:
    """A customer, their payment, and their set that lacks a photo, whose money is on its way."""

    async def create(request: GenerationRequest) -> Answer | None:
        return Refused("400", "no", Again.NEVER) if request.prompt_index == 6 else None

    shop.provider.on_create = create
    await unheard(shop)
    customer, job = await shop.sold()
    while await shop.value("SELECT status FROM generation_jobs") != "partial":
        await shop.round()
        await shop.advance(1)
    return customer, await shop.value("SELECT id FROM payments"), job.id


async def test_a_set_looks_again_until_its_money_is_back(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """An open page said for ever that the money was going back."""
    customer, payment_id, job_id = await lacking_one(shop)
    await come_in(client, customer)
    page = (await client.get(f"/sets/{job_id}")).text
    going = SAY.say("ru", "refund.going", amount="71,28 ₽")
    assert going in page
    assert 'hx-trigger="every 10s"' in page
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in page
    look = looks_at(page)
    assert (await client.get(look)).status_code == 204
    bill = (await client.get(f"/payments/{payment_id}")).text
    assert 'hx-trigger="every 10s, refresh"' in bill
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in bill
    assert (await client.get(looks_at(bill))).status_code == 204
    await shop.drain()
    done = SAY.say("ru", "refund.done", amount="71,28 ₽")
    for address in (look, looks_at(bill)):
        later = await client.get(address)
        assert (later.status_code, done in later.text, going in later.text) == (200, True, False)
        assert "hx-trigger" not in later.text
    assert 'http-equiv="refresh"' not in (await client.get(f"/sets/{job_id}")).text


async def test_money_asked_back_is_looked_for_until_it_is_back(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await unheard(shop)
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    await come_in(client, customer)
    await client.post(f"/payments/{payment_id}/ask-back", data={"sure": "yes"}, headers=OURS)
    page = (await client.get(f"/payments/{payment_id}")).text
    assert SAY.say("ru", "payment.returning") in page
    await shop.drain()
    later = (await client.get(looks_at(page))).text
    assert SAY.say("ru", "payment.returned") in later
    assert "hx-get" not in later
