"""What a customer does with the pages, step by step."""

from importlib.resources import files
from typing import Final

from darkroom.ports.generation import GenerationRequest, Working
from tests.browser.conftest import Screen
from tests.shop import Customer, Shop

PORTRAITS: Final = files("darkroom").joinpath("web/portraits")
PORTRAIT: Final = str(PORTRAITS.joinpath("astronaut.png"))


async def come_in(screen: Screen) -> None:
    """From the welcome to the selfies, as a new customer of demo mode."""
    await screen.go("/")
    await screen.page.click(".hero .button")
    await screen.page.wait_for_url("**/avatars/*")


async def upload(screen: Screen, *paths: str) -> None:
    """Put selfies on the page and wait until the server's own list is there."""
    before = await screen.page.locator(".selfie:not(.add)").count()
    await screen.page.set_input_files("#files", list(paths))
    await screen.page.locator(
        f".selfie:has(form[hx-post]) >> nth={before + len(paths) - 1}"
    ).wait_for()


async def choose(screen: Screen, *, style: str = "signature", tier: str = "starter") -> None:
    """Style, size, consent, and the button."""
    page = screen.page
    await page.click(".bar a.button")
    await page.wait_for_url("**/order*")
    await page.check(f'[name=style][value="{style}"]')
    await page.check(f'[name=tier][value="{tier}"]')
    await page.check("[name=consent]")
    await page.click("#pay")


async def sign_in_as(screen: Screen, telegram_user_id: int) -> None:
    """Come in as a customer that the test made."""
    await screen.go("/sign-in")
    await screen.page.fill("#telegram_id", str(telegram_user_id))
    await screen.page.click("form:has(#telegram_id) button")
    await screen.page.wait_for_url("**/sets")


async def newest_payment(shop: Shop) -> int:
    """The id of the newest payment."""
    return int(await shop.value("SELECT max(id) FROM payments"))


async def sell(shop: Shop, *, tier: str = "starter") -> tuple[Customer, int]:
    """A customer and the id of a set that was just started."""
    customer, job = await shop.sold(tier=tier)
    return customer, job.id


async def make_photos(shop: Shop, count: int, *, first: int = 0) -> None:
    """Let the program work until `count` photos more are stored, from place `first` on, and no more."""
    rows = await shop.rows("SELECT prompt_index FROM kie_tasks WHERE status <> 'completed'")
    open_places = sorted(row["prompt_index"] for row in rows if row["prompt_index"] >= first)
    ready = set(open_places[:count])

    async def ask(request: GenerationRequest) -> Working | None:
        return None if request.prompt_index in ready else Working()

    shop.provider.on_ask = ask
    have = int(await shop.value("SELECT count(*) FROM generated_photos"))
    while int(await shop.value("SELECT count(*) FROM generated_photos")) < have + count:
        await shop.round()
        await shop.advance(1)


async def make_the_rest(shop: Shop) -> None:
    """Let the program work to its end."""
    shop.provider.on_ask = None
    await shop.drain()
