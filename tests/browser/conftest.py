"""A real browser before the real program: Debian's Chromium, on a phone's screen and on a desk's."""

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.sites import open_product, open_stage
from tests.shop import Shop

AXE: Final = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
AXE_RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
SHOTS: Final = Path(__file__).parents[2] / "browser-shots"
PICTURES_CAME: Final = """async () => {
    const missing = one => {
        const place = one.getBoundingClientRect();
        return !one.complete && place.top < innerHeight && place.bottom > 0;
    };
    const until = Date.now() + 1000;
    while ([...document.images].some(missing) && Date.now() < until)
        await new Promise(go => setTimeout(go, 50));
}"""
"""A second at most: a set that is being made goes on meanwhile, and no picture is a reason to fail."""
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 860}
# Other tests have the machine's cores at the same time: what a page shows late is not wrong.
expect.set_options(timeout=20_000)
_QUIET: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]


@dataclass
class Screen:
    """One page in a browser, and whatever went wrong on it."""

    page: Page
    context: BrowserContext
    site: str
    errors: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])
    locale: str = "ru"
    forgiven: list[str] = field(default_factory=list[str])

    def forgive(self, text: str) -> None:
        """This is what the test does to the page: it is no error of the page's own."""
        self.forgiven.append(text)

    async def another(self) -> "Screen":
        """A second tab of the same browser."""
        one = Screen(await self.context.new_page(), self.context, self.site, locale=self.locale)
        one.errors, one.foreign, one.forgiven = self.errors, self.foreign, self.forgiven
        watch(one, one.page)
        return one

    async def go(self, path: str) -> None:
        """Open a path of the site."""
        await self.page.goto(self.site + path)

    async def shot(self, name: str, *, full: bool = False) -> None:
        """A picture of the screen, for people to look at."""
        SHOTS.mkdir(exist_ok=True)
        # A busy machine paints a page before its pictures have come. One that cannot be had is complete, too.
        await self.page.evaluate(PICTURES_CAME)
        await self.page.screenshot(path=SHOTS / f"{name}.png", full_page=full)

    async def assert_accessible(self) -> None:
        """No violation of WCAG A and AA that axe-core finds."""
        await self.page.evaluate(AXE)
        found: list[dict[str, Any]] = await self.page.evaluate(
            "async (rules) => (await axe.run(document, {runOnly: rules})).violations", AXE_RULES
        )
        said = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
        assert not said, (self.page.url, said)

    async def assert_fits(self) -> None:
        """Nothing sticks out at the side."""
        wide: Any = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{self.page.url} is {wide} px too wide"


class OpenScreen(Protocol):
    """Opens a screen of its own, with cookies of its own."""

    def __call__(
        self,
        site: str,
        *,
        locale: str = "ru",
        desk: bool = False,
        dark: bool = False,
        scripts: bool = True,
    ) -> AbstractAsyncContextManager[Screen]:
        """A phone, or a desk."""
        ...


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    """Chromium, headless. `make test` installs it where it is missing; without it these tests fail."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("no Chromium here: scripts/install-browser.sh installs Debian's")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        await browser.close()


@pytest.fixture
def screen(browser: Browser) -> OpenScreen:
    """Opens screens. At the end of each nothing may have gone wrong, and nobody else may have been asked."""

    @asynccontextmanager
    async def opened(
        site: str,
        *,
        locale: str = "ru",
        desk: bool = False,
        dark: bool = False,
        scripts: bool = True,
    ) -> AsyncGenerator[Screen]:
        context = await browser.new_context(
            viewport=DESK if desk else PHONE,  # pyright: ignore[reportArgumentType] - a TypedDict
            device_scale_factor=1 if desk else 2,
            is_mobile=not desk,
            has_touch=not desk,
            locale="ru-RU" if locale == "ru" else "en-GB",
            timezone_id="Europe/Moscow",
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            java_script_enabled=scripts,
        )
        context.set_default_timeout(float(os.environ.get("BROWSER_TIMEOUT_MS", "20000")))
        page = await context.new_page()
        one = Screen(page, context, site, locale=locale)
        watch(one, page)
        try:
            yield one
            assert [
                said for said in one.errors if not any(text in said for text in one.forgiven)
            ] == []
            assert one.foreign == []
        finally:
            await context.close()

    return opened


def watch(one: Screen, page: Page) -> None:
    """Note what a page's console says and whom it asks."""
    page.on(
        "console",
        lambda said: one.errors.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: one.errors.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((one.site, "data:", "blob:", *one.forgiven))
            else one.foreign.append(request.url)
        ),
    )


@pytest.fixture
async def stage(shop: Shop) -> AsyncGenerator[str]:
    """The program over scripted outsides: photos come when the test says so."""
    async with open_stage(shop) as url:
        yield url


@pytest.fixture
async def product(dsn: str, tmp_path: Path) -> AsyncGenerator[str]:
    """The program as `make run` starts it: the studio, the sandbox bank, a worker."""
    async with open_product(dsn, tmp_path) as url:
        yield url
