"""The seller's name, colours, pictures and legal pages: a folder, read once at the start.

A half or wrong brand stops the start with one line that names the file and the key. What was checked is kept
in memory and is what is shown: a file that is exchanged later counts from the next start on.
"""

import hashlib
import html
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

from darkroom.brand_rules import (
    CONTRAST_MIN,
    PICTURE_BYTES_MAX,
    check_colour,
    check_path,
    check_support_url,
    check_text,
    content_type_of,
    contrast,
    fill_with_html,
    link_to,
    render_page,
)
from darkroom.config import SettingsError

Locale: TypeAlias = Literal["ru", "en"]
PageName: TypeAlias = Literal["terms", "privacy"]

BUNDLED: Final = Path(__file__).parent / "web" / "brand"
LOCALES: Final[tuple[Locale, ...]] = ("ru", "en")
PAGES: Final[tuple[PageName, ...]] = ("terms", "privacy")
TEXT_BYTES_MAX: Final = 200_000
"""Of brand.toml and of a page: a long contract has 100 kB."""
EXAMPLES_MAX: Final = 60
"""They are kept in memory: 60 of 300 kB, each with its before-picture, are 36 MB at most."""
NAME_LETTERS_MAX: Final = 40
LINE_LETTERS_MAX: Final = 200
TEXT_LETTERS_MAX: Final = 2000
TOML: Final = "brand.toml"

Checked = TypeVar("Checked")
_KNOWN: Final = frozenset(
    {
        "name", "tagline_ru", "tagline_en", "support_url", "support_name", "accent", "accent_dark", "on_accent",
        "on_accent_dark", "background", "background_dark", "logo", "texts", "examples",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BrandFile:
    """A picture of the brand, as it is sent to browsers."""

    data: bytes
    content_type: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BrandExample:
    """A photo that shows what a style makes.

    Attributes:
        file: a key of `Brand.files`.
        style: the style's id in the catalog; pages leave out what the catalog does not have.
        credit: who is on it and by whose leave.
        before: a key of `Brand.files`: the selfie it was made of.
    """

    file: str
    style: str
    credit: str
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """A seller's brand, whole and checked.

    Attributes:
        taglines: a line under the name, by language.
        accent, accent_dark: of buttons and links on light and on dark ground, #rrggbb.
        on_accent, on_accent_dark: text on the accents, at a contrast of 4.5:1 or more.
        background, background_dark: the ground, if the seller has one of their own.
        support_url: https or mailto.
        texts: page texts by language and key that replace the built-in ones.
        logo: a key of `files`.
        files: every picture that may be shown, by its path in the folder. Nothing else of it is ever sent out.
        pages: HTML by page and language; `{policy}` is still to be filled.
        terms_hashes: by language, see `terms_sha256`.
    """

    name: str
    taglines: Mapping[Locale, str]
    accent: str
    accent_dark: str
    on_accent: str
    on_accent_dark: str
    background: str | None
    background_dark: str | None
    support_url: str
    support_name: str
    texts: Mapping[Locale, Mapping[str, str]]
    examples: tuple[BrandExample, ...]
    logo: str | None
    files: Mapping[str, BrandFile]
    pages: Mapping[tuple[PageName, Locale], str]
    terms_hashes: Mapping[Locale, str]

    def page(self, name: PageName, locale: Locale) -> str:
        """A legal page as HTML, rendered at the start.

        `{policy}`, if the seller wrote it, stands in it for `brand_rules.fill_placeholders` to fill.
        """
        return self.pages[name, locale]

    def tagline(self, locale: Locale) -> str:
        """The line under the name."""
        return self.taglines[locale]

    def terms_sha256(self, locale: Locale) -> str:
        """What a consent names: the SHA-256 of both pages' sources, as of `cat terms.L.md privacy.L.md`."""
        return self.terms_hashes[locale]


def load_brand(
    folder: Path | None, *, selfie_days: int = 30, text_keys: frozenset[str] | None = None
) -> Brand:
    """Read a brand's folder; None is the bundled one. Blocking: for the start only.

    `selfie_days` fills the pages' placeholder. `text_keys` are the page texts that exist: with them, one
    that would replace nothing is refused.

    Raises:
        SettingsError: in one line that names the file and the key.
    """
    return _Reader(BUNDLED if folder is None else folder).read(selfie_days, text_keys)


class _Reader:
    """One reading of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BrandFile] = {}

    def read(self, selfie_days: int, text_keys: frozenset[str] | None) -> Brand:
        """All of it, or the first thing that is wrong."""
        if not self._folder.is_dir():
            raise SettingsError(f"DARKROOM_BRAND: {self._folder} is no folder")
        table = self._table()
        name = _line(table, "name", NAME_LETTERS_MAX)
        support_url = _checked(
            TOML, "support_url", check_support_url, _string(table, "support_url")
        )
        support_name = _line(table, "support_name", NAME_LETTERS_MAX)
        accents = _accents(table)
        sources: dict[tuple[PageName, Locale], bytes] = {
            (page, locale): self._source(page, locale) for page in PAGES for locale in LOCALES
        }
        filling = {
            "name": html.escape(name),
            "selfie_days": str(selfie_days),
            "support": link_to(support_url, support_name),
        }
        return Brand(
            name=name,
            taglines={
                locale: _line(table, f"tagline_{locale}", LINE_LETTERS_MAX) for locale in LOCALES
            },
            accent=accents["accent"],
            accent_dark=accents["accent_dark"],
            on_accent=accents["on_accent"],
            on_accent_dark=accents["on_accent_dark"],
            background=_colour(table, "background") if "background" in table else None,
            background_dark=_colour(table, "background_dark")
            if "background_dark" in table
            else None,
            support_url=support_url,
            support_name=support_name,
            texts=_texts(table.get("texts", {}), text_keys),
            examples=self._examples(table.get("examples", [])),
            logo=self._picture(_string(table, "logo"), "logo") if "logo" in table else None,
            files=self._files,
            pages={
                key: fill_with_html(
                    _checked(_page_file(*key), None, render_page, source.decode().lstrip("\ufeff")),
                    filling,
                )
                for key, source in sources.items()
            },
            terms_hashes={
                locale: hashlib.sha256(
                    b"".join(sources[page, locale] for page in PAGES)
                ).hexdigest()
                for locale in LOCALES
            },
        )

    def _table(self) -> dict[str, Any]:
        try:
            table = tomllib.loads(self._bytes(TOML, TEXT_BYTES_MAX).decode())
        except tomllib.TOMLDecodeError as error:
            raise _refusal(TOML, None, f"is no TOML: {error}") from None
        for key in table:
            if key not in _KNOWN:
                raise _refusal(TOML, key, "is no key of a brand")
        return table

    def _source(self, page: PageName, locale: Locale) -> bytes:
        return self._bytes(_page_file(page, locale), TEXT_BYTES_MAX)

    def _bytes(self, name: str, bytes_max: int) -> bytes:
        """A text file of the folder; it is UTF-8."""
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(bytes_max + 1)
        except OSError:
            raise _refusal(name, None, f"is missing in {self._folder}") from None
        if len(data) > bytes_max:
            raise _refusal(name, None, f"is larger than {bytes_max // 1000} kB")
        try:
            data.decode()
        except UnicodeDecodeError:
            raise _refusal(name, None, "is not UTF-8") from None
        return data

    def _examples(self, listed: object) -> tuple[BrandExample, ...]:
        if not isinstance(listed, list):
            raise _refusal(TOML, "examples", "is no list of [[examples]]")
        entries = cast("list[object]", listed)
        if len(entries) > EXAMPLES_MAX:
            raise _refusal(TOML, "examples", f"are more than {EXAMPLES_MAX}")
        return tuple(
            self._example(entry, f"examples[{place}]") for place, entry in enumerate(entries)
        )

    def _example(self, entry: object, place: str) -> BrandExample:
        if not isinstance(entry, dict):
            raise _refusal(TOML, place, "is no table")
        table = cast("dict[str, Any]", entry)
        for key in table:
            if key not in ("file", "style", "credit", "before"):
                raise _refusal(TOML, f"{place}.{key}", "is no key of an example")
        return BrandExample(
            file=self._picture(_string(table, "file", place), f"{place}.file"),
            style=_line(table, "style", NAME_LETTERS_MAX, place),
            credit=_line(table, "credit", LINE_LETTERS_MAX, place),
            before=self._picture(_string(table, "before", place), f"{place}.before")
            if "before" in table
            else None,
        )

    def _picture(self, name: str, key: str) -> str:
        """Check a picture and keep it; the path it is kept under."""
        path = _checked(TOML, key, check_path, name)
        file = self._folder / path
        try:
            if not file.resolve(strict=True).is_relative_to(self._folder.resolve()):
                raise _refusal(TOML, key, f"{name} leads out of the folder")
            with file.open("rb") as opened:
                data = opened.read(PICTURE_BYTES_MAX + 1)
        except OSError:
            raise _refusal(TOML, key, f"{name} is missing") from None
        content_type = _checked(TOML, key, lambda _: content_type_of(path, data), name)
        if content_type == "image/svg+xml" and key != "logo":
            raise _refusal(TOML, key, f"{name} is no photo")
        self._files[str(path)] = BrandFile(data, content_type, hashlib.sha256(data).hexdigest())
        return str(path)


def _page_file(page: PageName, locale: Locale) -> str:
    return f"{page}.{locale}.md"


def _refusal(file: str, key: str | None, text: str) -> SettingsError:
    place = f"{file}: {key}" if key is not None else file
    return SettingsError(f"the brand (DARKROOM_BRAND): {place} {text}")


def _checked(file: str, key: str | None, check: Callable[[str], Checked], text: str) -> Checked:
    try:
        return check(text)
    except ValueError as error:
        raise _refusal(file, key, str(error)) from None


def _string(table: Mapping[str, Any], key: str, place: str = "") -> str:
    where = f"{place}.{key}" if place else key
    if key not in table:
        raise _refusal(TOML, where, "is missing")
    if not isinstance(table[key], str):
        raise _refusal(TOML, where, "is no text in quotes")
    return table[key]


def _line(table: Mapping[str, Any], key: str, letters_max: int, place: str = "") -> str:
    where = f"{place}.{key}" if place else key
    check = partial(check_text, letters_max=letters_max)
    return _checked(TOML, where, check, _string(table, key, place))


def _colour(table: Mapping[str, Any], key: str) -> str:
    return _checked(TOML, key, check_colour, _string(table, key))


def _accents(table: Mapping[str, Any]) -> dict[str, str]:
    """The accents, and the text on them: readable, or refused."""
    found = {key: _colour(table, key) for key in ("accent", "accent_dark", "on_accent")}
    on_dark = "on_accent_dark" if "on_accent_dark" in table else "on_accent"
    found["on_accent_dark"] = _colour(table, on_dark)
    for text, ground in (("on_accent", "accent"), (on_dark, "accent_dark")):
        reached = contrast(_colour(table, text), found[ground])
        if reached < CONTRAST_MIN:
            raise _refusal(
                TOML,
                text,
                # Cut, not rounded: 4.499 is not "4.50".
                f"on {ground} has a contrast of {int(reached * 100) / 100}:1; readable is {CONTRAST_MIN}:1",
            )
    return found


def _texts(listed: object, text_keys: frozenset[str] | None) -> Mapping[Locale, Mapping[str, str]]:
    if not isinstance(listed, dict):
        raise _refusal(TOML, "texts", "is no table")
    tables = cast("dict[str, object]", listed)
    for locale in tables:
        if locale not in LOCALES:
            raise _refusal(TOML, f"texts.{locale}", f"is none of {', '.join(LOCALES)}")
    found: dict[Locale, Mapping[str, str]] = {}
    for locale in LOCALES:
        table = tables.get(locale, {})
        if not isinstance(table, dict):
            raise _refusal(TOML, f"texts.{locale}", "is no table")
        texts = cast("dict[str, Any]", table)
        for key in texts:
            if text_keys is not None and key not in text_keys:
                raise _refusal(TOML, f"texts.{locale}.{key}", "is no text of a page")
        found[locale] = {
            key: _line(texts, key, TEXT_LETTERS_MAX, f"texts.{locale}") for key in texts
        }
    return found
