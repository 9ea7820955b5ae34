"""What a press does: what its button says, whatever the page went through before."""

from typing import Final

from playwright.async_api import expect

from darkroom.edges.site.texts import Texts
from tests.browser.conftest import OpenScreen
from tests.browser.hands import sign_in_as
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
