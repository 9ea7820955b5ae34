"""What a press does: what its button says, whatever the page went through before."""

import re
from typing import Final
from uuid import uuid4

from playwright.async_api import expect

from darkroom.edges.site.texts import Texts
from darkroom.flow.share_photos import share
from tests.browser.conftest import OpenScreen
from tests.browser.hands import newest_payment, sell, sign_in_as
from tests.shop import Shop

SAY: Final = Texts()
LARGE: Final = '[name=tier][value="premium"]'


async def test_the_pay_button_names_the_price_that_is_charged_also_after_the_way_back(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """The browser brings the choice back, not the button's text: it said 999 and 1499 were charged."""
    shop.bank.checkout_base = f"{stage}/terms?pay="
    customer = await shop.customer()
    async with screen(stage) as phone:
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go("/order")
        await page.check(LARGE)
        await page.check("[name=consent]")
        dear = await page.locator(f".tier:has({LARGE}) .tier-price").inner_text()
        price = SAY.say("ru", "order.pay", price=dear)
        await expect(page.locator("#pay")).to_have_text(price)
        await page.click("#pay")
        await page.wait_for_url("**/terms?pay=*")
        # From the bank to the payment that waits, and from there to the choice.
        while "/order" not in page.url:
            await page.go_back()
        await expect(page.locator(LARGE)).to_be_checked()
        await expect(page.locator("#pay")).to_have_text(price)
        await phone.shot("back-from-the-bank")


async def test_without_scripts_the_pay_button_names_no_price_it_cannot_keep_to(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer = await shop.customer()
    async with screen(stage, scripts=False) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go("/order")
        await phone.page.check(LARGE)
        await expect(phone.page.locator("#pay")).to_have_text(SAY.say("ru", "payment.open"))


async def test_without_scripts_deleting_a_person_is_asked_about_on_a_page(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer = await shop.customer()
    for dark in (False, True):
        async with screen(stage, scripts=False, dark=dark) as phone:
            page = phone.page
            await sign_in_as(phone, customer.telegram_user_id)
            await phone.go("/account")
            await page.click(".person summary")
            await page.click("form[action$=remove] button")
            await expect(page.locator("h1")).to_have_text(SAY.say("ru", "common.sure"))
            await phone.shot(f"sure-page-{'dark' if dark else 'light'}")
            await phone.assert_fits()
            await page.click("main a.button")
            await page.wait_for_url("**/account")
            assert await shop.value("SELECT count(*) FROM avatars WHERE deleted_at IS NULL") == 1


async def test_without_scripts_no_button_is_shown_that_does_nothing(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer, job_id = await sell(shop)
    await shop.drain()
    made = await share(
        shop.darkroom,
        user_id=customer.user_id,
        job_id=job_id,
        photo_id=None,
        days=1,
        request_id=uuid4(),
    )
    payment_id = await newest_payment(shop)
    buttons = {
        f"/sets/{job_id}": "[data-share-set]",
        f"/payments/{payment_id}/receipt": "[data-print]",
        "/shares": f'[data-copy="{made.url}"]',
    }
    async with screen(stage) as phone, screen(stage, scripts=False) as plain:
        for one in (phone, plain):
            await sign_in_as(one, customer.telegram_user_id)
        for path, button in buttons.items():
            await phone.go(path)
            await expect(phone.page.locator(button)).to_be_visible()
            await plain.go(path)
            await expect(plain.page.locator(button)).to_be_hidden()
        await plain.go(f"/sets/{job_id}")
        await plain.shot("set-without-scripts")


async def test_a_page_that_waits_is_not_pulled_away_from_under_a_press(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """Between the button's going down and up its page was renewed, and the press was lost: one of fourteen."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    async with screen(stage, desk=True) as desk:
        page = desk.page
        await sign_in_as(desk, customer.telegram_user_id)
        await desk.go(f"/payments/{payment_id}")
        seen = await page.evaluate_handle("document.querySelector('#checkout')")
        for _ in range(2):
            async with page.expect_response(re.compile("/now")):
                pass
        assert await seen.evaluate("link => link.isConnected")
        await shop.notify(payment_id)
        await shop.step("notice")
        await page.wait_for_url("**/sets/*")


async def test_a_refused_form_leads_back_to_its_page(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer = await shop.customer()
    for dark in (False, True):
        async with screen(stage, scripts=False, dark=dark) as phone:
            page = phone.page
            await sign_in_as(phone, customer.telegram_user_id)
            phone.forgive("50")
            shop.bank.silent = True
            await phone.go("/order?tier=premium")
            await page.check("[name=consent]")
            await page.click("#pay")
            await expect(page.locator("main")).to_contain_text(
                SAY.say("ru", "error.PAYMENT_PROVIDER_UNAVAILABLE")
            )
            await phone.shot(f"refused-{'dark' if dark else 'light'}")
            await phone.assert_fits()
            await page.click(f"text={SAY.say('ru', 'error.back')}")
            await page.wait_for_url("**/order?tier=premium")
