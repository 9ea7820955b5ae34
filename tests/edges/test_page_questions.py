"""What cannot be taken back is asked about first, also before the page's script has come and without one."""

import re
from collections.abc import AsyncGenerator

import httpx
import pytest

from tests.edges.serving import application_of, client_of
from tests.edges.test_pages import OURS, PAGE, SAY, come_in
from tests.shop import Customer, Shop

YES = {"sure": "yes"}
LEFT = (
    "SELECT (SELECT count(*) FROM users WHERE forget_at IS NOT NULL) AS forgotten, "
    "(SELECT count(*) FROM avatars WHERE deleted_at IS NOT NULL) AS avatars, "
    "(SELECT count(*) FROM reference_photos WHERE deleted_at IS NOT NULL) AS selfies, "
    "(SELECT count(*) FROM refunds) AS refunds"
)


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        yield client


async def _doors(shop: Shop, customer: Customer) -> dict[str, tuple[str, str, str]]:
    """Each press that cannot be taken back: its address, its question, and where "Cancel" leads."""
    payment_id = await shop.paid(customer)
    selfie_id = await shop.value("SELECT min(id) FROM reference_photos")
    await shop.rows("UPDATE avatars SET name = 'Анна' RETURNING id")
    avatar = f"/avatars/{customer.avatar_id}"
    return {
        "selfies": (
            f"{avatar}/selfies/{selfie_id}/remove", SAY.say("ru", "selfies.remove_sure"), avatar,
        ),
        "refunds": (
            f"/payments/{payment_id}/ask-back",
            SAY.say("ru", "payment.ask_back_sure", amount="499 ₽"),
            f"/payments/{payment_id}",
        ),
        "avatars": (
            f"{avatar}/remove", SAY.say("ru", "selfies.remove_avatar_sure", name="Анна"), "/account",
        ),
        "forgotten": ("/account/forget", SAY.say("ru", "account.leave_sure"), "/account"),
    }  # fmt: skip


@pytest.mark.parametrize("what", ["selfies", "refunds", "avatars", "forgotten"])
async def test_one_press_alone_asks_and_the_answer_to_it_acts(
    shop: Shop, client: httpx.AsyncClient, what: str
) -> None:
    """A second press that came before the script deleted everything, without a question."""
    customer = await shop.customer()
    path, question, back = (await _doors(shop, customer))[what]
    await come_in(client, customer)
    asked = await client.post(path, headers=OURS)
    assert (asked.status_code, await shop.rows(LEFT)) == (
        200,
        [{"forgotten": 0, "avatars": 0, "selfies": 0, "refunds": 0}],
    )
    assert question in asked.text
    assert f'<form class="actions" method="post" action="{path}">' in asked.text
    assert f'href="{back}">{SAY.say("ru", "common.cancel")}<' in asked.text
    (field,) = re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', asked.text)
    done = await client.post(path, data={field[0]: field[1]}, headers=OURS)
    assert done.status_code == 303
    (left,) = await shop.rows(LEFT)
    assert left[what] == 1


async def test_a_page_without_our_script_is_shown_the_question_whole(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """htmx alone would put the answer into a list of selfies."""
    customer = await shop.customer()
    doors = await _doors(shop, customer)
    await come_in(client, customer)
    asked = await client.post(doors["selfies"][0], headers={**OURS, "HX-Request": "true"})
    assert (asked.headers["HX-Retarget"], asked.headers["HX-Reswap"]) == ("body", "innerHTML")
    done = await client.post(doors["selfies"][0], data=YES, headers={**OURS, "HX-Request": "true"})
    assert "HX-Retarget" not in done.headers


async def test_a_question_about_what_is_gone_or_somebody_elses_is_not_asked(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    doors = await _doors(shop, customer)
    await come_in(client, await shop.customer())
    for what in ("selfies", "refunds", "avatars"):
        path, question, _ = doors[what]
        refused = await client.post(path, headers=OURS)
        assert (refused.status_code, question in refused.text) == (404, False), what
    await come_in(client, customer)
    for _ in range(2):
        gone = await client.post(doors["selfies"][0], data=YES, headers=OURS)
        assert gone.status_code == 303
