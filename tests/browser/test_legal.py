"""The legal pages, on a phone."""

from typing import Final

import pytest

from tests.browser.conftest import OpenScreen

BROKEN: Final = """selector => {
    const broken = [];
    for (const cell of document.querySelectorAll(selector)) {
        const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) for (const word of walk.currentNode.data.matchAll(/\\p{L}+/gu)) {
            const range = document.createRange();
            range.setStart(walk.currentNode, word.index);
            range.setEnd(walk.currentNode, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map(one => one.top)).size > 1) broken.push(word[0]);
        }
    }
    return broken;
}"""
"""Words that stand on two lines."""


@pytest.mark.parametrize("locale", ["ru", "en"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_privacy_page_keeps_its_words_whole(
    stage: str, screen: OpenScreen, locale: str, scheme: str
) -> None:
    """Its tables squeezed their columns to a few letters."""
    async with screen(stage, locale=locale, dark=scheme == "dark") as phone:
        await phone.go("/privacy")
        assert await phone.page.locator(".prose td").count() > 4
        broken = await phone.page.evaluate(BROKEN, ".prose :is(h1, td, th)")
        assert broken == []
        await phone.assert_fits()
        await phone.assert_accessible()
        await phone.shot(f"privacy-{locale}-{scheme}", full=True)
