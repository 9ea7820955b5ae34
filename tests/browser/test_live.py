"""A set while it is made: the test is the worker, so each photo comes when it says so."""

import asyncio

from playwright.async_api import Route, expect

from darkroom.edges.site.texts import Texts
from tests.browser.conftest import OpenScreen, Screen
from tests.browser.hands import make_photos, make_the_rest, sell, sign_in_as
from tests.shop import Shop

OFFLINE = "ERR_INTERNET_DISCONNECTED"


async def test_photos_appear_one_by_one_in_their_places(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await expect(phone.page.locator(".empty-slot")).to_have_count(7)
        for stored in range(1, 8):
            await make_photos(shop, 1)
            await expect(phone.page.locator(".photo")).to_have_count(stored)
        await make_the_rest(shop)
        await expect(phone.page.locator("#status:not([data-live])")).to_be_visible()
        numbers = await phone.page.locator(".photo").evaluate_all(
            "links => links.map(link => link.dataset.number)"
        )
        assert numbers == [str(number) for number in range(1, 8)]


async def test_a_reload_in_the_middle_and_another_device_see_the_same(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """bugbook E14, bugbook H17: the older page forgot the set when it was opened again."""
    customer, job_id = await sell(shop)
    async with screen(stage) as phone, screen(stage, desk=True, dark=True) as desk:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await make_photos(shop, 1)
        await expect(phone.page.locator(".photo").first).to_be_visible()
        await phone.page.reload()
        await expect(phone.page.locator(".photo").first).to_be_visible()
        await sign_in_as(desk, customer.telegram_user_id)
        await desk.page.click(".cover")
        await expect(desk.page.locator(".photo").first).to_be_visible()
        await make_the_rest(shop)
        for one in (phone, desk):
            await expect(one.page.locator("#status:not([data-live])")).to_be_visible()
            await expect(one.page.locator(".photo")).to_have_count(7)
        await desk.shot("desk-dark-gallery")
        await desk.assert_accessible()
        await desk.assert_fits()


async def test_two_tabs_and_a_closed_one_disturb_nothing(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        second = await phone.another()
        await second.go(f"/sets/{job_id}")
        await make_photos(shop, 1)
        await expect(second.page.locator(".photo").first).to_be_visible()
        await second.page.close()
        await make_the_rest(shop)
        await expect(phone.page.locator(".photo")).to_have_count(7)
        await expect(phone.page.locator("#status:not([data-live])")).to_be_visible()


async def test_lost_network_is_said_and_made_up_for(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    async with screen(stage) as phone:
        phone.forgive(OFFLINE)
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await make_photos(shop, 1)
        await expect(phone.page.locator(".photo").first).to_be_visible()
        await phone.context.set_offline(True)
        await expect(phone.page.locator("#offline")).to_be_visible()
        await phone.shot("offline")
        await make_the_rest(shop)
        await phone.context.set_offline(False)
        await expect(phone.page.locator("#offline")).to_be_hidden()
        await expect(phone.page.locator(".photo")).to_have_count(7)


async def test_a_page_whose_links_are_old_still_shows_its_photos(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """Links live for minutes, an open page for days: the session opens the same picture."""
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        phone.forgive("404")
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await expect(phone.page.locator(".photo")).to_have_count(7)
        await phone.page.evaluate(
            "for (const link of document.querySelectorAll('.photo'))"
            " link.dataset.full = link.dataset.full.replace(/signature=...../, 'signature=xxxxx')"
        )
        await phone.page.click(".photo >> nth=2")
        picture = phone.page.locator(".reel img >> nth=2")
        async with asyncio.timeout(20):
            while not await picture.evaluate("image => image.complete && image.naturalWidth > 0"):
                await asyncio.sleep(0.05)
        async with phone.page.expect_download() as saved:
            await phone.page.click("[data-download]")
        assert await (await saved.value).failure() is None


async def test_photos_are_looked_at_by_keyboard_alone(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage, desk=True) as desk:
        page = desk.page
        await sign_in_as(desk, customer.telegram_user_id)
        await desk.go(f"/sets/{job_id}")
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        third = page.locator(".photo >> nth=2")
        await third.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".viewer-count")).to_have_text("3 / 7")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator(".viewer-count")).to_have_text("5 / 7")
        await page.keyboard.press("Escape")
        await expect(page.locator(".photo >> nth=4")).to_be_focused()


async def test_photos_are_swiped_through_on_a_phone(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await page.tap(".photo >> nth=0")
        await expect(page.locator(".viewer-count")).to_have_text("1 / 7")
        await _swipe_left(phone)
        await expect(page.locator(".viewer-count")).to_have_text("2 / 7")
        await page.tap(".viewer [data-close]")
        await expect(page.locator("#viewer")).to_be_hidden()


async def _swipe_left(phone: Screen) -> None:
    """A finger that moves over most of the screen."""
    cdp = await phone.context.new_cdp_session(phone.page)
    moves = [("touchStart", 320), *(("touchMove", 320 - 20 * step) for step in range(1, 15))]
    for kind, x in moves:
        await cdp.send(  # pyright: ignore[reportUnknownMemberType] - untyped there
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": 360}]}
        )
    await cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})  # pyright: ignore[reportUnknownMemberType]


async def test_a_photo_stored_before_the_stream_opened_is_shown(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """The page is on its way for a moment; what is stored in that moment must not wait for the next photo."""
    customer, job_id = await sell(shop)
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        held = asyncio.Event()

        async def hold(route: Route) -> None:
            await held.wait()
            await route.continue_()

        # Nothing but the stream may tell the page.
        await phone.context.add_init_script("window.setInterval = () => 0")
        await phone.context.route("**/events", hold)
        await phone.go(f"/sets/{job_id}")
        await make_photos(shop, 1)
        held.set()
        await expect(phone.page.locator(".photo").first).to_be_visible()


async def test_what_is_done_in_the_viewer_is_done_to_the_photo_that_is_seen(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """Photos that come while one is looked at take their places before it and behind it."""
    customer, job_id = await sell(shop)
    async with screen(stage, desk=True) as desk:
        page = desk.page
        await sign_in_as(desk, customer.telegram_user_id)
        await desk.go(f"/sets/{job_id}")
        await make_photos(shop, 1, first=3)
        await page.click("#slot-4 .photo")
        seen = await page.get_attribute("#slot-4 .photo", "data-photo")
        await make_the_rest(shop)
        await expect(page.locator("#status:not([data-live])")).to_be_attached()
        # A finger that hardly moves: the reel says where it stands.
        await page.evaluate("document.querySelector('.reel').dispatchEvent(new Event('scroll'))")
        await expect(page.locator(".viewer-count")).to_have_text("1 / 1")
        await page.click(".viewer-tools [data-favorite]")
        await expect(page.locator(".viewer-tools [data-favorite]")).to_have_attribute(
            "aria-pressed", "true"
        )
        async with asyncio.timeout(10):
            while not await shop.value(
                "SELECT count(*) FROM generated_photos WHERE favorite_at IS NOT NULL"
            ):
                await asyncio.sleep(0.02)
        loved = await shop.value("SELECT id FROM generated_photos WHERE favorite_at IS NOT NULL")
        assert str(loved) == seen
        await page.keyboard.press("Escape")
        await expect(page.locator(f'.photo[data-photo="{seen}"]')).to_be_focused()


async def test_a_sentence_is_seen_over_an_open_viewer(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    await shop.drain()
    async with screen(stage) as phone:
        phone.forgive("ERR_FAILED")
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await page.click(".photo >> nth=0")
        await phone.context.route("**/favorite", lambda route: route.abort())
        await page.click(".viewer-tools [data-favorite]")
        await expect(page.locator("#viewer #toast")).to_have_class("toast shown")
        await expect(page.locator("#toast")).not_to_be_empty()
        await expect(page.locator(".viewer-tools [data-favorite]")).to_have_attribute(
            "aria-pressed", "false"
        )


async def test_a_server_that_does_not_answer_is_said_until_it_does(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """The browser is online, and nothing comes: the sentence was in the page, and nobody read it out."""
    customer, job_id = await sell(shop)
    async with screen(stage) as phone:
        phone.forgive("ERR_FAILED")
        phone.forgive("htmx:")
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.context.route("**/events", lambda route: route.abort())
        await phone.context.route("**/now*", lambda route: route.abort())
        await phone.go(f"/sets/{job_id}")
        lost = page.get_by_text(Texts().say("ru", "set.lost_touch"))
        await expect(lost).to_be_hidden()
        await expect(lost).to_be_visible()
        await phone.shot("lost-touch")
        await phone.assert_accessible()
        await phone.context.unroute("**/now*")
        await expect(lost).to_be_hidden()
        await make_the_rest(shop)
        await expect(page.locator("#status:not([data-live])")).to_be_visible()
