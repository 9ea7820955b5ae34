"""Inside Telegram, with what its script offers there."""

import json
import re
from typing import Any, Final

from playwright.async_api import expect

from darkroom.edges.site.texts import Texts
from tests.browser.conftest import OpenScreen, Screen
from tests.browser.hands import sell, sign_in_as
from tests.browser.test_guests import SCRIPT, launch
from tests.shop import Shop

SAY: Final = Texts()
STAND_IN: Final = """
const page = document.documentElement.dataset;
const downloads = [];
window.Telegram = {WebApp: {
    ready() {}, expand() {}, onEvent() {}, themeParams: {},
    BackButton: {show() {}, hide() {}, onClick() {}},
    isVersionAtLeast: () => true,
    downloadFile: file => { downloads.push(file); page.downloads = JSON.stringify(downloads); },
}};
page.standIn = "ready";
"""


async def _enter(phone: Screen, shop: Shop, path: str) -> None:
    """Open a page as Telegram does; whose session it is was settled before."""
    phone.forgive(SCRIPT)
    now = await shop.value("SELECT darkroom_now()")
    await phone.context.route(
        SCRIPT, lambda route: route.fulfill(body=STAND_IN, content_type="text/javascript")
    )
    text = launch(now, {})
    await phone.context.add_init_script(
        f"sessionStorage.setItem('telegram', {text[1:]!r});"
        "sessionStorage.setItem('telegram-entered', new URLSearchParams("
        "sessionStorage.getItem('telegram')).get('tgWebAppData'))"
    )
    await phone.go(path)
    await phone.page.locator("html[data-stand-in]").wait_for()


async def _downloads(phone: Screen, count: int) -> list[dict[str, str]]:
    await expect(phone.page.locator("html")).to_have_attribute(
        "data-downloads", re.compile("url.*" * count)
    )
    return json.loads(await phone.page.get_attribute("html", "data-downloads") or "[]")


async def test_telegrams_downloader_gets_the_whole_set_by_a_link_that_needs_no_session(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """A plain download does nothing in Telegram's window."""
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await _enter(phone, shop, f"/sets/{job_id}")
        await page.click("[data-plain-href]")
        (file,) = await _downloads(phone, 1)
        assert file["file_name"] == f"darkroom-{job_id}.zip"
        async with screen(stage) as stranger:
            answer: Any = await stranger.context.request.get(file["url"])
            assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
        await page.click(".photo >> nth=0")
        await page.click(".viewer-tools [data-download]")
        _, single = await _downloads(phone, 2)
        assert re.search(r"\.(jpg|png)$", single["file_name"])


async def test_telegrams_window_offers_no_printing(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """A Mini App cannot print."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/payments/{payment_id}/receipt")
        await expect(phone.page.locator("[data-print]")).to_be_visible()
        await _enter(phone, shop, f"/payments/{payment_id}/receipt")
        await expect(phone.page.locator("[data-print]")).to_be_hidden()
