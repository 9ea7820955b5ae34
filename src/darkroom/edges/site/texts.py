"""The pages' sentences, by key and language: `web/texts.toml`, and what an operator's brand says instead."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, cast

from darkroom.brand import LOCALES, Locale

_VALUE: Final = re.compile(r"\{(\w+)((?:\|[^{}|]+)*)\}")


class Texts:
    """Every sentence of the pages.

    `{name}` in a text is replaced by a value; `{count|фото|фото|фото}` by the word that goes with the number
    `count` (Russian has three forms: one, few, many; English two).

    Args:
        overrides: texts by language and key that take the place of ours.
    """

    def __init__(self, overrides: Mapping[Locale, Mapping[str, str]] | None = None) -> None:
        self._texts = {locale: _bundled(locale) for locale in LOCALES}
        for locale in LOCALES:
            self._texts[locale].update((overrides or {}).get(locale, {}))

    @property
    def keys(self) -> frozenset[str]:
        """Every key there is."""
        return frozenset(self._texts["ru"])

    def say(self, locale: Locale, key: str, **values: object) -> str:
        """The text, with its values in it. Raises KeyError: no such text, or it needs a value more."""

        def value(match: re.Match[str]) -> str:
            given = values[match[1]]
            forms = match[2].split("|")[1:]
            return plural(locale, int(cast("int", given)), forms) if forms else str(given)

        return _VALUE.sub(value, self._texts[locale][key])


def plural(locale: Locale, count: int, forms: list[str]) -> str:
    """The form of a word that goes with a number (CLDR's cardinal rules for whole numbers)."""
    tens, ones = count % 100 // 10, count % 10
    if locale == "en":
        return forms[0] if count == 1 else forms[-1]
    if tens != 1 and ones == 1:
        return forms[0]
    if tens != 1 and ones in (2, 3, 4):
        return forms[1]
    return forms[-1]


def _bundled(locale: Locale) -> dict[str, str]:
    raw = files("darkroom").joinpath("web/texts.toml").read_text(encoding="utf-8")
    return {
        f"{section}.{name}": text[locale]
        for section, names in tomllib.loads(raw).items()
        for name, text in names.items()
    }
