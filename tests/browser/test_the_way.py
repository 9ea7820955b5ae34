"""The whole way of a customer, on the whole product: the studio's photos, the sandbox bank's money."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import expect

from darkroom.edges.site.texts import Texts
from tests.browser.conftest import OpenScreen, Screen
from tests.browser.hands import PORTRAIT, choose, come_in

SAY = Texts()


async def _selfies(screen: Screen, folder: Path) -> None:
    """A good selfie and a file that is none: each hears its verdict, and the way goes on."""
    (folder / "notes.jpg").write_text("no picture")
    page = screen.page
    await page.set_input_files("#files", [PORTRAIT, str(folder / "notes.jpg")])
    await expect(page.locator(".selfie.refused .verdict")).to_be_visible()
    await page.locator(".selfie:has(form[hx-post])").wait_for()
    await screen.shot(f"{screen.locale}-2-selfies")
    await screen.assert_accessible()
    await screen.assert_fits()


async def _pay(screen: Screen) -> None:
    page = screen.page
    await page.wait_for_url("**/sandbox-bank/**")
    await page.click("button.pay")
    await page.wait_for_url("**/sets/*")


async def _watch(screen: Screen) -> None:
    """Photos come one by one, without a reload; then the page says how it ended."""
    page = screen.page
    await page.evaluate("window.stayed = true")
    await page.locator(":nth-match(.photo, 2)").wait_for()
    await screen.shot(f"{screen.locale}-4-live")
    await expect(page.locator("#status:not([data-live])")).to_be_visible(timeout=60_000)
    await expect(page.locator(".photo")).to_have_count(7)
    assert await page.evaluate("window.stayed"), "the page was loaded again"
    await page.evaluate("scrollTo(0, 0)")
    await screen.shot(f"{screen.locale}-5-gallery")
    await screen.assert_accessible()
    await screen.assert_fits()


async def _look(screen: Screen) -> None:
    """Full screen, by keyboard; a heart; one file; all files."""
    page = screen.page
    await page.click(".photo >> nth=0")
    await expect(page.locator(".viewer-count")).to_have_text("1 / 7")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".viewer-count")).to_have_text("2 / 7")
    await page.click(".viewer-tools [data-favorite]")
    await expect(page.locator(".viewer-tools [data-favorite]")).to_have_attribute(
        "aria-pressed", "true"
    )
    await screen.shot(f"{screen.locale}-6-viewer")
    await screen.assert_accessible()
    async with page.expect_download() as one:
        await page.click("[data-download]")
    photo = await (await one.value).path()
    with Image.open(photo) as picture:
        assert picture.width >= 512
    await page.keyboard.press("Escape")
    await expect(page.locator("#viewer")).to_be_hidden()
    async with page.expect_download() as whole:
        await page.click("[data-plain-href]")
    archive = await (await whole.value).path()
    with zipfile.ZipFile(io.BytesIO(Path(archive).read_bytes())) as packed:
        assert len(packed.namelist()) == 7
    await screen.go("/favorites")
    await expect(page.locator(".photo")).to_have_count(1)
    await page.go_back()


async def _share(screen: Screen, open_screen: OpenScreen) -> None:
    """A link for somebody without an account; then the link is closed."""
    page = screen.page
    await page.click("[data-share-set]")
    await page.click("#share-form button")
    link = await page.locator("#share-url").input_value()
    async with open_screen(screen.site, locale=screen.locale) as stranger:
        await stranger.page.goto(link)
        await expect(stranger.page.locator(".photo img")).to_have_count(7)
        await stranger.assert_accessible()
        await screen.go("/shares")
        await page.click("#shares form button >> nth=0")
        await expect(page.locator("#shares .rows li")).to_have_count(0)
        stranger.forgive("404")
        await stranger.page.reload()
        await expect(stranger.page.locator(".photo")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("locale", ["ru", "en"])
async def test_a_customer_goes_the_whole_way_on_a_phone(
    product: str, screen: OpenScreen, tmp_path: Path, locale: str
) -> None:
    """bugbook E14, bugbook H17: what the older page lost on the way."""
    async with screen(product, locale=locale) as phone:
        page = phone.page
        await phone.go("/")
        assert await page.get_attribute("html", "lang") == locale
        await phone.shot(f"{locale}-1-welcome")
        await phone.assert_accessible()
        await phone.assert_fits()
        await come_in(phone)
        await _selfies(phone, tmp_path)
        await page.click(".bar a.button")
        await page.wait_for_url("**/order*")
        await phone.shot(f"{locale}-3-order")
        await phone.assert_accessible()
        await phone.assert_fits()
        await page.go_back()
        await choose(phone)
        await _pay(phone)
        await _watch(phone)
        await _look(phone)
        await _share(phone, screen)
        for path in ("/sets", "/payments", "/account", "/terms", "/privacy"):
            await phone.go(path)
            await phone.assert_accessible()
            await phone.assert_fits()
        await phone.shot(f"{locale}-7-privacy")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_one_photo_is_made_again_for_free(product: str, screen: OpenScreen) -> None:
    async with screen(product) as phone:
        await come_in(phone)
        await phone.page.set_input_files("#files", PORTRAIT)
        await phone.page.locator(".selfie:has(form[hx-post])").wait_for()
        await choose(phone)
        await _pay(phone)
        page = phone.page
        await expect(page.locator("#status:not([data-live])")).to_be_visible(timeout=60_000)
        first = page.url
        await page.click(".photo >> nth=3")
        await page.click("[data-redo]")
        await phone.assert_accessible()
        await page.click("#redo-form button")
        await page.wait_for_url(lambda url: "/sets/" in url and url != first)
        await expect(page.locator("#status:not([data-live])")).to_be_visible(timeout=60_000)
        await expect(page.locator(".photo")).to_have_count(1)
        await page.goto(first)
        await page.click(".photo >> nth=3")
        await expect(page.locator("[data-redo]")).to_be_disabled()
        await expect(page.locator("[data-redo] span")).to_have_text(SAY.say("ru", "viewer.redone"))


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_way_needs_no_scripts(product: str, screen: OpenScreen) -> None:
    """What a browser without scripts can do: all of it, a little slower."""
    async with screen(product, scripts=False) as phone:
        page = phone.page
        await come_in(phone)
        await page.set_input_files("#files", PORTRAIT)
        await page.click("#upload button")
        await page.locator(".selfie:not(.add)").wait_for()
        await choose(phone)
        await page.wait_for_url("**/payments/*")
        await page.click("#checkout")
        await page.click("button.pay")
        await page.wait_for_url("**/payments/*")
        number = page.url.rpartition("/")[2].partition("?")[0]
        await phone.go(f"/payments/{number}")
        # Until the bank's notice has come, the page's link leads back to the bank.
        await page.locator("#payment a.button[href^='/sets/']").click()
        await page.wait_for_url("**/sets/*")
        # The page comes again by itself, every five seconds.
        await expect(page.locator(".photo")).to_have_count(7, timeout=60_000)
