"""Signing in by a letter, as the pages do it: what was typed is not lost, nor the page that was asked for."""

import re
from collections.abc import AsyncGenerator

import httpx
import pytest

from darkroom.flow.sign_in_by_link import find_person, link_address, make_sign_in_link
from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import OURS, PAGE, SAY
from tests.shop import Shop


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop, demo=False)) as client:
        client.headers.update(PAGE)
        yield client


def hidden_next(page: str) -> str:
    """The page to go on to, as a form carries it."""
    (path,) = re.findall(r'<input type="hidden" name="next" value="([^"]*)">', page)
    return path.replace("&amp;", "&")


async def test_an_address_gone_wrong_comes_back_in_its_form_with_what_is_wrong(
    client: httpx.AsyncClient,
) -> None:
    """The answer was a page with nothing but the way home."""
    form = {"email": "anna@gmail", "next": "/order?style=creative"}
    answer = await client.post("/sign-in", data=form, headers=OURS)
    assert answer.status_code == 400
    assert SAY.say("ru", "error.INVALID_EMAIL") in answer.text
    field = re.search(r'<input id="email"[^>]*>', answer.text)
    assert field is not None
    assert 'value="anna@gmail"' in field[0]
    assert 'aria-describedby="email-wrong"' in field[0]
    assert hidden_next(answer.text) == "/order?style=creative"


async def test_letters_too_many_are_said_beside_the_address(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    form = {"email": "anna@example.com"}
    for _ in range(shop.darkroom.limits.sign_in_links_max):
        assert (await client.post("/sign-in", data=form, headers=OURS)).status_code == 200
    refused = await client.post("/sign-in", data=form, headers=OURS)
    assert (refused.status_code, 'value="anna@example.com"' in refused.text) == (429, True)
    assert SAY.say("ru", "error.TOO_MANY_LINKS") in refused.text


@pytest.mark.parametrize(
    ("asked_for", "lands"),
    [
        ("/avatars", "/avatars"),
        ("/order?avatar=1&style=creative", "/order?avatar=1&style=creative"),
        ("//evil.example", "/sets"),
        ("/" + "x" * 600, "/sets"),
        (None, "/sets"),
    ],
)
async def test_the_link_of_a_letter_leads_to_the_page_that_was_asked_for(
    shop: Shop, client: httpx.AsyncClient, asked_for: str | None, lands: str
) -> None:
    query = {} if asked_for is None else {"next": asked_for}
    page = await client.get("/sign-in", params=query)
    form = {"email": "anna@example.com", "next": hidden_next(page.text)}
    sent = await client.post("/sign-in", data=form, headers=OURS)
    assert (sent.status_code, SAY.say("ru", "sign_in.sent_title") in sent.text) == (200, True)
    link_id = await shop.value("SELECT max(id) FROM sign_in_links")
    path = link_address(shop.darkroom, link_id).removeprefix(shop.darkroom.base_url)
    confirm = await client.get(path)
    assert hidden_next(confirm.text) == lands
    entered = await client.post(path, data={"next": hidden_next(confirm.text)}, headers=OURS)
    assert (entered.status_code, entered.headers["Location"]) == (303, lands)


async def test_a_link_cannot_be_made_to_lead_to_another_site(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    person = await find_person(shop.darkroom, email="anna@example.com")
    path = (await make_sign_in_link(shop.darkroom, person)).removeprefix(shop.darkroom.base_url)
    assert hidden_next((await client.get(path)).text) == "/sets"
    entered = await client.post(path, data={"next": "https://evil.example"}, headers=OURS)
    assert entered.headers["Location"] == "/sets"
