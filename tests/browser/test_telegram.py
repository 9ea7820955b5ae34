"""Inside Telegram, with what its script offers there."""

import json
import re
from typing import Any, Final

import pytest
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


THEMES: Final = {
    "desktop-light": {
        "bg_color": "#ffffff", "text_color": "#000000", "hint_color": "#999999", "link_color": "#168acd",
        "button_color": "#40a7e3", "button_text_color": "#ffffff", "secondary_bg_color": "#f1f1f1",
        "subtitle_text_color": "#999999", "destructive_text_color": "#d14e4e",
    },
    "ios-light": {
        "bg_color": "#ffffff", "text_color": "#000000", "hint_color": "#8e8e93", "link_color": "#007aff",
        "button_color": "#007aff", "button_text_color": "#ffffff", "secondary_bg_color": "#efeff4",
        "subtitle_text_color": "#8e8e93", "destructive_text_color": "#ff3b30",
    },
    "desktop-night": {
        "bg_color": "#17212b", "text_color": "#f5f5f5", "hint_color": "#708499", "link_color": "#6ab3f3",
        "button_color": "#5288c1", "button_text_color": "#ffffff", "secondary_bg_color": "#232e3c",
        "subtitle_text_color": "#708499", "destructive_text_color": "#ec3942",
    },
}  # fmt: skip
"""As Telegram's clients send them."""
CONTRAST: Final = """element => {
    const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const light = colour => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const both = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""
"""WCAG's ratio of a text with what lies behind it."""


async def _enter(phone: Screen, shop: Shop, path: str, theme: dict[str, str] | None = None) -> None:
    """Open a page as Telegram does; whose session it is was settled before."""
    phone.forgive(SCRIPT)
    now = await shop.value("SELECT darkroom_now()")
    await phone.context.route(
        SCRIPT, lambda route: route.fulfill(body=STAND_IN, content_type="text/javascript")
    )
    text = launch(now, theme or {})
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


@pytest.mark.parametrize("name", list(THEMES))
async def test_what_is_said_quietly_can_be_read_in_telegrams_own_colours(
    shop: Shop, stage: str, screen: OpenScreen, name: str
) -> None:
    """Its subtitles have a contrast of 2.5 to 4.2 with its own grounds; 4.5 is needed."""
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await _enter(phone, shop, "/account", THEMES[name])
        for path in ("/order", f"/sets/{job_id}", "/account"):
            await phone.go(path)
            for quiet in await page.locator(":is(.muted, .fine, .lead, .foot a):visible").all():
                ratio: float = await quiet.evaluate(CONTRAST)
                assert ratio >= 4.5, (path, await quiet.inner_text(), ratio)
        await phone.shot(f"telegram-{name}")
