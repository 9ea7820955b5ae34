"""What a refused form's page says: what is wrong and the way back, and no promise that it does not keep."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx
import pytest

from darkroom.db.database import DatabaseUnavailableError
from darkroom.edges.site import sign_in
from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import OURS, PAGE, SAY, come_in
from tests.shop import Shop

BACK = SAY.say("ru", "error.back")
COMES_AGAIN = SAY.say("ru", "error.busy_text")


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        yield client


async def test_a_form_that_found_us_busy_leads_back_and_does_not_promise_to_come_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser does not send a form again by itself."""

    async def away(*_args: object, **_named: object) -> None:
        raise DatabaseUnavailableError("down")

    monkeypatch.setattr(sign_in, "open_demo_session", away)
    headers = {**OURS, "Referer": "http://localhost/sign-in?next=%2Favatars"}
    answer = await client.post("/sign-in/demo", headers=headers)
    assert (answer.status_code, "Refresh" in answer.headers) == (503, False)
    assert COMES_AGAIN not in answer.text
    assert SAY.say("ru", "error.busy") in answer.text
    assert SAY.say("ru", "error.BUSY") in answer.text
    assert f'href="/sign-in?next=%2Favatars">{BACK}<' in answer.text
    for odd in ({}, {"Referer": "http://["}, {"Referer": "no address"}):
        unnamed = await client.post("/sign-in/demo", headers={**OURS, **odd})
        assert (unnamed.status_code, BACK in unnamed.text) == (503, False)
        assert SAY.say("ru", "error.home") in unnamed.text


async def test_what_is_switched_off_is_not_said_to_be_busy(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    await come_in(client, customer)
    form = {
        "avatar": customer.avatar_id, "style": "signature", "tier": "starter", "consent": "yes",
        "key": "key-0001",
    }  # fmt: skip
    shop.darkroom = replace(shop.darkroom, payments={}, mailer=None)
    async with client_of(application_of(shop)) as other:
        other.headers.update(PAGE)
        await come_in(other, customer)
        for path, data, key in (
            ("/order", form, "error.PAYMENTS_OFF"),
            ("/sign-in", {"email": "anna@example.com"}, "error.MAIL_OFF"),
        ):
            answer = await other.post(path, data=data, headers=OURS)
            assert (answer.status_code, SAY.say("ru", key) in answer.text) == (503, True)
            assert f"<h1>{SAY.say('ru', 'error.title')}</h1>" in answer.text
            assert COMES_AGAIN not in answer.text
