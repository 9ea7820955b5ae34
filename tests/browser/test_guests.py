"""Those who come without Telegram, those who come with it, and what a page costs a cheap phone."""

import email
import json
import re
from collections.abc import AsyncGenerator
from datetime import datetime
from email import policy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Response, expect

from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.config import IsolatedSettings
from darkroom.edges.serve import listen_on_free_port
from darkroom.edges.site.texts import Texts
from tests.browser.conftest import OpenScreen, Screen
from tests.browser.hands import PORTRAIT, come_in, sell, sign_in_as, upload
from tests.browser.sites import serving
from tests.contracts.test_init_data import TOKEN, signed
from tests.edges.serving import application_of
from tests.shop import Shop

SAY = Texts()
SCRIPT = "https://telegram.org/js/telegram-web-app.js"
DARK = {
    "bg_color": "#17212b",
    "text_color": "#f5f5f5",
    "button_color": "#5288c1",
    "secondary_bg_color": "#232e3c",
}


@pytest.fixture
async def open_site(shop: Shop) -> AsyncGenerator[str]:
    """The site as it is in production: nobody comes in without a proof."""
    check = TelegramInitData(TOKEN)
    settings = IsolatedSettings.model_validate({"DARKROOM_MODE": "demo"})
    application = application_of(shop, demo=False, identity_check=check)
    async with serving(application, settings, listen_on_free_port()) as url:
        yield url


async def test_a_link_by_letter_signs_in_once(
    shop: Shop, open_site: str, screen: OpenScreen, tmp_path: Path
) -> None:
    async with screen(open_site) as phone:
        page = phone.page
        await phone.go("/account")
        await page.wait_for_url(re.compile("/sign-in"))
        await phone.assert_accessible()
        phone.forgive("400")
        await page.fill("#email", "anna@gmail")
        await page.click("main form button")
        await expect(page.locator("#email-wrong")).to_have_text(
            SAY.say("ru", "error.INVALID_EMAIL")
        )
        await expect(page.locator("#email")).to_have_value("anna@gmail")
        await phone.shot("address-gone-wrong")
        await phone.assert_accessible()
        await page.fill("#email", "Anna@Example.com")
        await page.click("main form button")
        await expect(page.locator("h1")).to_have_text(SAY.say("ru", "sign_in.sent_title"))
        await shop.step("mail")
        (letter,) = (tmp_path / "outbox").glob("*.eml")
        link = re.search(r"/sign-in/[\w.-]+", _text_of(letter))
        assert link is not None
        await phone.go(link[0])
        await page.click("main form button")
        await page.wait_for_url("**/account")
        await expect(page.locator("main")).to_contain_text("anna@example.com")
        await page.click("form[action='/sign-out'] button")
        phone.forgive("410")
        await phone.go(link[0])
        await expect(page.locator("h1")).to_have_text(SAY.say("ru", "sign_in.over_title"))


def _text_of(letter: Path) -> str:
    message = email.message_from_bytes(letter.read_bytes(), policy=policy.default)
    body = message.get_body()
    assert body is not None
    return str(body.get_content())


def launch(now: datetime, theme: dict[str, str]) -> str:
    """What Telegram puts behind the address's # when it opens a Mini App."""
    user = json.dumps({"id": 4711, "first_name": "Anna", "language_code": "en"})
    data = signed(user=user, auth_date=str(int(now.timestamp())))
    return (
        f"#tgWebAppData={quote(data, safe='')}&tgWebAppVersion=9.1&tgWebAppPlatform=android"
        f"&tgWebAppThemeParams={quote(json.dumps(theme), safe='')}"
    )


async def _without_telegrams_script(phone: Screen) -> None:
    phone.forgive(SCRIPT)
    phone.forgive("ERR_FAILED")
    await phone.context.route(SCRIPT, lambda route: route.abort())


async def test_inside_telegram_signed_data_signs_in_and_only_stars_are_taken(
    shop: Shop, open_site: str, screen: OpenScreen
) -> None:
    """Also where Telegram's own script does not come."""
    now = await shop.value("SELECT darkroom_now()")
    async with screen(open_site) as phone:
        await _without_telegrams_script(phone)
        page = phone.page
        await page.goto(f"{open_site}/account{launch(now, DARK)}")
        await expect(page.locator("main")).to_contain_text("4711")
        await expect(page.locator("html")).to_have_attribute("data-scheme", "dark")
        colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(23, 33, 43)"
        (cookie,) = [
            one for one in await phone.context.cookies() if "session" in one.get("name", "")
        ]
        assert (cookie.get("sameSite"), cookie.get("secure"), cookie.get("httpOnly")) == (
            "None", True, True,
        )  # fmt: skip
        await phone.go("/order")
        await page.click("main form button")
        await page.wait_for_url(re.compile(r"/avatars/\d+"))
        await upload(phone, PORTRAIT)
        await phone.shot("telegram-dark")
        await phone.go("/order")
        await expect(page.locator("main")).to_contain_text(SAY.say("en", "order.off_telegram"))
        shop.bank.currency = "XTR"
        await page.reload()
        await expect(page.locator("#pay")).to_have_text(
            SAY.say("en", "order.pay", price="199 Stars")
        )


async def test_inside_telegram_a_lost_session_is_made_again(
    shop: Shop, open_site: str, screen: OpenScreen
) -> None:
    now = await shop.value("SELECT darkroom_now()")
    async with screen(open_site) as phone:
        await _without_telegrams_script(phone)
        page = phone.page
        await page.goto(f"{open_site}/account{launch(now, {})}")
        await expect(page.locator("main")).to_contain_text("4711")
        await page.evaluate("sessionStorage.removeItem('telegram-tried')")
        await phone.context.clear_cookies()
        await phone.go("/payments")
        await expect(page.locator("h1")).to_have_text(SAY.say("en", "payment.history"))
        # A browser that keeps no cookie is not sent round in circles: a person presses.
        await phone.context.clear_cookies()
        await phone.go("/payments")
        await expect(page.locator("#telegram-enter")).to_be_visible()
        await page.click("#telegram-enter button")
        await expect(page.locator("h1")).to_have_text(SAY.say("en", "payment.history"))


async def test_forged_data_opens_nothing(shop: Shop, open_site: str, screen: OpenScreen) -> None:
    now = await shop.value("SELECT darkroom_now()")
    async with screen(open_site) as phone:
        await _without_telegrams_script(phone)
        phone.forgive("401")
        forged = launch(now, {}).replace("Anna", "Hanna")
        await phone.page.goto(f"{open_site}/account{forged}")
        await phone.page.wait_for_url(re.compile("/sign-in"))
        await expect(phone.page.locator("#toast")).to_have_text(
            SAY.say("ru", "common.no_connection")
        )
        assert await phone.context.cookies() == []


@pytest.mark.parametrize("path", ["/", "/order", "/sets", "/account", "set"])
async def test_a_page_costs_a_cheap_phone_little(
    shop: Shop, stage: str, screen: OpenScreen, path: str
) -> None:
    """Under 100 kB before pictures, few requests, and nothing jumps about while it loads."""
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        sizes: dict[str, int] = {}

        async def weigh(response: Response) -> None:
            kind = response.request.resource_type
            if kind not in ("image", "eventsource"):
                sizes[response.url] = await weight_of(response)

        answers: list[Response] = []
        page = (await phone.another()).page
        page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - the library marks the function it is given
        cdp = await phone.context.new_cdp_session(page)
        await cdp.send("Network.clearBrowserCache")  # pyright: ignore[reportUnknownMemberType] - untyped there
        await page.add_init_script(
            "window.shift = 0; new PerformanceObserver(list => { for (const one of list.getEntries())"
            " if (!one.hadRecentInput) window.shift += one.value; })"
            ".observe({type: 'layout-shift', buffered: true})"
        )
        await page.goto(stage + (f"/sets/{job_id}" if path == "set" else path))
        await page.wait_for_load_state("networkidle")
        for answer in answers:
            await weigh(answer)
        assert 3_000 < sum(sizes.values()) < 100_000, sizes
        assert len(sizes) <= 7, sizes
        shift: Any = await page.evaluate("window.shift")
        assert shift < 0.05, shift


async def test_the_welcome_is_light_for_whoever_comes_first(stage: str, screen: OpenScreen) -> None:
    """Pictures too: what a first look costs, and that a second look costs the page alone."""
    async with screen(stage) as phone:
        total: list[Response] = []
        phone.page.on("response", lambda answer: total.append(answer))  # noqa: PLW0108 - the same
        await phone.go("/")
        await phone.page.wait_for_load_state("networkidle")
        weight = sum([await weight_of(one) for one in total])
        assert weight < 450_000, weight
        total.clear()
        await come_in(phone)
        kept = [one for one in total if one.url.endswith((".js", ".css"))]
        assert len(kept) >= 5
        assert sum([await weight_of(one) for one in kept]) == 0, "what never changes was sent again"


async def weight_of(response: Response) -> int:
    """Bytes of a body on the wire; of one that came from the cache, none (Chromium counts those below zero)."""
    return max((await response.request.sizes())["responseBodySize"], 0)
