"""What every screen says of the money: what happened, after it happened."""

from playwright.async_api import expect

from darkroom.edges.site.texts import Texts
from darkroom.ports.generation import Again, GenerationRequest, Refused
from darkroom.ports.payments import RefundAnswer, RefundCall, RefundNoAnswer
from tests.browser.conftest import OpenScreen, Screen
from tests.browser.hands import (
    PORTRAIT,
    choose,
    come_in,
    make_photos,
    newest_payment,
    sign_in_as,
    upload,
)
from tests.scripted import Answer
from tests.shop import Shop

SAY = Texts()


def says(key: str, **values: object) -> str:
    """A sentence as the Russian page has it."""
    return SAY.say("ru", key, **values)


def refuse_from(shop: Shop, number: int) -> None:
    """The provider makes no photo from this place of a set on."""

    async def create(request: GenerationRequest) -> Answer | None:
        if request.prompt_index >= number:
            return Refused("400", "against the rules", Again.NEVER)
        return None

    shop.provider.on_create = create


async def _ordered(phone: Screen, shop: Shop) -> int:
    """From the welcome to a payment that waits; the bank's own page is one of ours here."""
    shop.bank.checkout_base = f"{phone.site}/terms?pay="
    await come_in(phone)
    await upload(phone, PORTRAIT)
    await choose(phone)
    await phone.page.wait_for_url("**/terms?pay=*")
    return await newest_payment(shop)


async def test_a_set_that_lacks_a_photo_says_what_goes_back_and_then_what_went(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """Nobody told the older customer of a partial set what became of the money."""
    refuse_from(shop, 6)

    async def unheard(call: RefundCall) -> RefundAnswer:
        shop.bank.pays_back(call)
        return RefundNoAnswer("lost")

    shop.bank.on_refund = unheard
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)
    await shop.step("notice")
    job_id = await shop.value("SELECT id FROM generation_jobs")
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        await make_photos(shop, 6)
        await shop.step("finish")
        page = phone.page
        await expect(page.locator("h1")).to_have_text(says("set.partial"))
        await expect(page.locator("#status")).to_contain_text(says("set.missing", count=1))
        await expect(page.locator(".refunds")).to_contain_text(
            says("refund.going", amount="71,28 ₽")
        )
        await expect(page.locator(".empty-slot.failed")).to_have_count(1)
        await shop.drain()
        # By itself: the page looks every ten seconds.
        await expect(page.locator(".refunds")).to_contain_text(
            says("refund.done", amount="71,28 ₽")
        )
        await phone.shot("partly-paid-back", full=True)
        await phone.assert_accessible()
        await phone.go(f"/payments/{payment_id}/receipt")
        await expect(page.locator(".facts")).to_contain_text("71,28 ₽")
        await phone.shot("receipt")
        await phone.assert_accessible()
        await phone.go("/account")
        await expect(page.locator("main")).to_contain_text("Мы вернули 71,28 ₽")


async def test_a_set_that_failed_says_that_all_goes_back(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    refuse_from(shop, 0)
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)
    await shop.drain()
    job_id = await shop.value("SELECT id FROM generation_jobs")
    async with screen(stage) as phone:
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/sets/{job_id}")
        page = phone.page
        await expect(page.locator("h1")).to_have_text(says("set.failed"))
        await expect(page.locator("#status")).to_contain_text(says("set.none_made"))
        await expect(page.locator(".refunds")).to_contain_text(says("refund.done", amount="499 ₽"))
        await phone.shot("failed")
        await phone.go("/payments")
        await expect(page.locator(".rows")).to_contain_text(says("payment.returned"))


async def test_a_double_press_and_a_press_in_two_tabs_are_one_order(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """bugbook A26: a second press opened a second payment."""
    shop.bank.checkout_base = f"{stage}/terms?pay="
    async with screen(stage) as phone:
        await come_in(phone)
        await upload(phone, PORTRAIT)
        await phone.page.click(".bar a.button")
        await phone.page.wait_for_url("**/order*")
        await phone.page.check("[name=consent]")
        await phone.page.evaluate(
            "const form = document.querySelector('#order');"
            "const send = () => fetch('/order', {method: 'POST', body: new FormData(form)});"
            "window.sent = Promise.all([send(), send(), send()])"
        )
        await phone.page.evaluate("window.sent.then(() => 1)")
        await phone.page.dblclick("#pay")
        await phone.page.wait_for_url("**/terms?pay=*")
        assert await shop.value("SELECT count(*) FROM payments") == 1
        consents = await shop.rows("SELECT payment_id, locale FROM consents")
        assert consents == [{"payment_id": await newest_payment(shop), "locale": "ru"}]


async def test_back_from_the_bank_waits_for_the_money_and_goes_on_by_itself(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    async with screen(stage) as phone:
        payment_id = await _ordered(phone, shop)
        page = phone.page
        await page.go_back()
        # Whoever comes back finds the order that waits, and is not sent to the bank again by the page itself.
        await page.click(".note a")
        await page.wait_for_url("**/payments/*")
        await expect(page.locator("h1")).to_have_text(says("payment.pending"))
        await expect(page.locator("#checkout")).to_be_visible()
        await phone.shot("waiting-for-money")
        await phone.assert_accessible()
        await phone.go("/sets")
        await expect(page.locator(".rows")).to_contain_text(says("payment.pending"))
        await phone.go(f"/payments/{payment_id}")
        await shop.notify(payment_id)
        await shop.step("notice")
        await page.wait_for_url("**/sets/*")
        await shop.drain()
        await expect(page.locator("#status:not([data-live])")).to_be_visible()


async def test_a_payment_that_did_not_go_through_offers_another_try(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    async with screen(stage) as phone:
        payment_id = await _ordered(phone, shop)
        await shop.notify(payment_id, "canceled")
        await shop.step("notice")
        await phone.go(f"/payments/{payment_id}")
        await expect(phone.page.locator("h1")).to_have_text(says("payment.canceled"))
        await phone.page.click("#payment a.button")
        await phone.page.wait_for_url("**/order*")


async def test_unused_money_starts_a_set_or_comes_back(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    customer = await shop.customer()
    first, second = await shop.paid(customer), await shop.paid(customer)
    async with screen(stage) as phone:
        page = phone.page
        await sign_in_as(phone, customer.telegram_user_id)
        await phone.go(f"/payments/{first}")
        await expect(page.locator("h1")).to_have_text(says("payment.unused"))
        await phone.assert_accessible()
        await page.click("form[action$=start] button")
        await page.wait_for_url("**/sets/*")
        await phone.go(f"/payments/{second}")
        await page.click("form[action$=ask-back] button")
        await expect(page.locator("#sure")).to_be_visible()
        await phone.shot("are-you-sure")
        await page.click("#sure [data-yes]")
        await expect(page.locator("h1")).to_have_text(says("payment.returning"))
        await shop.drain()
        await page.reload()
        await expect(page.locator("h1")).to_have_text(says("payment.returned"))


async def test_a_question_is_not_pulled_away_by_a_page_that_looks_by_itself(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """The answer goes to the form that asked, though its page is renewed every two seconds."""
    async with screen(stage) as phone:
        payment_id = await _ordered(phone, shop)
        page = phone.page
        await phone.go(f"/payments/{payment_id}")
        # Two looks whose time has come while the question is open: neither is made.
        kept_back = await page.evaluate(
            "new Promise(done => { let count = 0; document.querySelector('#sure').showModal();"
            " addEventListener('htmx:beforeRequest', event => { if (event.target.id === 'payment')"
            " { count += event.defaultPrevented ? 1 : -9; if (count === 2 || count < 0) done(count); } }); })"
        )
        assert kept_back == 2
        await page.evaluate("document.querySelector('#sure').close()")
        async with page.expect_request("**/now?have=*"):
            pass


async def test_a_receipt_names_its_year_and_a_list_the_years_that_are_over(
    shop: Shop, stage: str, screen: OpenScreen
) -> None:
    """A date without one is of no use on a paper that is kept."""
    customer = await shop.customer()
    payment_id, _ = await shop.paid(customer), await shop.paid(customer)
    now = await shop.value("SELECT darkroom_now()")
    await shop.rows(
        "UPDATE payments SET created_at = created_at - interval '1 year' WHERE id = %s RETURNING id",
        payment_id,
    )
    for scripts in (True, False):
        async with screen(stage, scripts=scripts) as phone:
            await sign_in_as(phone, customer.telegram_user_id)
            await phone.go(f"/payments/{payment_id}/receipt")
            await expect(phone.page.locator(".facts time")).to_contain_text(str(now.year))
            await phone.shot("receipt-with-year")
            await phone.go("/payments")
            times = await phone.page.locator(".rows time").all_inner_texts()
            assert [str(now.year - 1) in text for text in times] == [False, True]
            assert str(now.year) not in times[0]
