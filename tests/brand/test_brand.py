"""A seller's brand: whole and readable, or one line that says what is wrong."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from darkroom.brand import BUNDLED, LOCALES, PAGES, Brand, load_brand
from darkroom.brand_rules import (
    CONTRAST_MIN,
    check_support_url,
    contrast,
    fill_placeholders,
    refuse_unsafe_svg,
    render_page,
)
from darkroom.config import IsolatedSettings, SettingsError
from darkroom.edges.terminal import run
from darkroom.flow.stock_catalog import parse_catalog

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h8v8z" fill="url(#a)"/></svg>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A seller's own copy of the bundled brand."""
    return Path(shutil.copytree(BUNDLED, tmp_path / "brand"))


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "brand.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def refusal(folder: Path, **more: frozenset[str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_brand(folder, **more)  # pyright: ignore[reportArgumentType] - text_keys alone is passed
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_bundled_brand_is_whole() -> None:
    brand = load_brand(None, selfie_days=12)
    assert brand.name == "Darkroom"
    assert all(brand.tagline(locale) for locale in LOCALES)
    assert contrast(brand.on_accent, brand.accent) >= CONTRAST_MIN
    assert contrast(brand.on_accent_dark, brand.accent_dark) >= CONTRAST_MIN
    # Links in the accent's colour are read on the ground itself.
    assert brand.background is not None
    assert contrast(brand.accent, brand.background) >= CONTRAST_MIN
    assert brand.background_dark is not None
    assert contrast(brand.accent_dark, brand.background_dark) >= CONTRAST_MIN
    styles = {style.id for style in parse_catalog(Path("src/darkroom/catalog.toml").read_text())[1]}
    assert {example.style for example in brand.examples} == styles
    for example in brand.examples:
        assert brand.files[example.file].content_type == "image/webp"
        assert example.before in brand.files


def test_the_examples_are_light_enough_for_a_phone() -> None:
    sizes = [len(file.data) for file in load_brand(None).files.values()]
    assert max(sizes) < 45_000
    assert sum(sizes) < 600_000


def test_legal_pages_are_filled_except_for_the_policy() -> None:
    brand = load_brand(None, selfie_days=12)
    for page in PAGES:
        for locale in LOCALES:
            text = brand.page(page, locale)
            assert text.startswith("<h1>")
            assert set(re.findall(r"\{.*?\}", text)) == {"{policy}"}
            assert '<a href="mailto:support@example.com">support@example.com</a>' in text
    assert "12 days" in brand.page("privacy", "en")


def test_a_consent_names_what_two_files_hash_to(folder: Path) -> None:
    """Anybody with the files can check a consent: `cat terms.ru.md privacy.ru.md | sha256sum`."""
    both = b"".join((folder / f"{page}.ru.md").read_bytes() for page in PAGES)
    before = load_brand(folder)
    assert before.terms_sha256("ru") == hashlib.sha256(both).hexdigest()
    with (folder / "privacy.ru.md").open("a") as file:
        file.write("\nИ ещё одно условие.\n")
    after = load_brand(folder)
    assert after.terms_sha256("ru") != before.terms_sha256("ru")
    assert after.terms_sha256("en") == before.terms_sha256("en")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "Darkroom"', "", "brand.toml: name is missing"),
        ('name = "Darkroom"', 'name = ""', "name is empty"),
        ('name = "Darkroom"', 'name = "a\\nb"', "name is not one line"),
        ('name = "Darkroom"', "name = 7", "name is no text"),
        ('name = "Darkroom"', 'name = "Darkroom"\nslogan = "x"', "slogan is no key"),
        ('name = "Darkroom"', "name = Darkroom", "is no TOML"),
        ("tagline_en", "tagline_de", "tagline_de is no key"),
        ('accent = "#8a4b08"', 'accent = "bronze"', "accent is no colour"),
        ('accent = "#8a4b08"', 'accent = "#d98a3c"', "on_accent on accent has a contrast of 2.7"),
        ('on_accent_dark = "#1d1408"', "", "on_accent on accent_dark has a contrast of 1.8"),
        ('background = "#faf7f2"', 'background = "#fff"', "background is no colour"),
        ("mailto:support@example.com", "javascript:alert(1)", "support_url must be https://"),
        ("mailto:support@example.com", "http://example.com", "support_url must be https://"),
        ('"examples/signature-1.webp"', '"examples/none.webp"', "examples/none.webp is missing"),
        ('"examples/signature-1.webp"', '"../brand.toml"', "examples[0].file is no path inside"),
        ('"examples/signature-1.webp"', '"/etc/passwd"', "examples[0].file is no path inside"),
        ('"examples/signature-1.webp"', '"brand.toml"', "examples[0].file must end in"),
        ('style = "signature"', 'style = "signature"\nalt = "x"', "examples[0].alt is no key"),
        ('credit = "Eileen Collins, NASA, public domain"', "", "examples[0].credit is missing"),
        ("[[examples]]", "[texts.de]\na = 'b'\n[[examples]]", "texts.de is none of ru, en"),
        ("[[examples]]", "[texts]\nru = 'b'\n[[examples]]", "texts.ru is no table"),
        ("[[examples]]", "[texts.ru]\na = 7\n[[examples]]", "texts.ru.a is no text"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_refused_in_one_line(folder: Path, old: str, new: str, said: str) -> None:
    change(folder, old, new)
    assert said in refusal(folder)


def test_a_command_that_meets_a_wrong_brand_ends_with_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "terms.en.md").unlink()

    async def start() -> None:
        load_brand(folder)

    with pytest.raises(SystemExit) as ended:
        run(start())
    assert ended.value.code not in (0, None)
    assert "terms.en.md is missing" in " ".join(capsys.readouterr().err.split())


def test_a_missing_page_or_folder_is_named(folder: Path) -> None:
    (folder / "terms.en.md").unlink()
    assert "terms.en.md is missing" in refusal(folder)
    assert "DARKROOM_BRAND" in refusal(folder / "nowhere")
    shutil.rmtree(folder)
    folder.mkdir()
    assert "brand.toml is missing" in refusal(folder)


def test_text_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "privacy.ru.md").write_bytes("Условия".encode("cp1251"))
    assert "privacy.ru.md is not UTF-8" in refusal(folder)


def test_a_picture_too_large_or_of_another_kind_is_refused(folder: Path) -> None:
    photo = folder / "examples" / "signature-1.webp"
    photo.write_bytes(photo.read_bytes() + bytes(300_001))
    assert "examples[0].file is larger than 300 kB" in refusal(folder)
    photo.write_bytes(b"<html>")
    assert "examples[0].file is not what its ending says" in refusal(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    photo = folder / "examples" / "signature-1.webp"
    outside = folder.parent / "outside.webp"
    photo.rename(outside)
    photo.symlink_to(outside)
    assert "leads out of the folder" in refusal(folder)


def test_a_text_that_no_page_shows_is_refused_where_the_pages_are_known(folder: Path) -> None:
    change(folder, "[[examples]]", "[texts.ru]\nbuy = 'Купить'\n[[examples]]")
    assert load_brand(folder).texts["ru"] == {"buy": "Купить"}
    assert "texts.ru.buy is no text of a page" in refusal(folder, text_keys=frozenset({"pay"}))


def test_a_logo_is_a_drawing(folder: Path) -> None:
    change(folder, 'name = "Darkroom"', 'name = "Darkroom"\nlogo = "logo.svg"')
    (folder / "logo.svg").write_bytes(SVG)
    brand = load_brand(folder)
    assert brand.logo == "logo.svg"
    assert brand.files["logo.svg"].content_type == "image/svg+xml"
    change(folder, '"examples/signature-1.webp"', '"logo.svg"')
    assert "is no photo" in refusal(folder)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path onload="alert(1)"/>',
        '<a href="javascript:alert(1)"><path/></a>',
        '<a href="java&#10;script:alert(1)"><path/></a>',
        "<foreignObject/>",
        '<use href="https://example.com/a.svg#a"/>',
        '<image href="https://example.com/a.png"/>',
        '<path fill="url(https://example.com/a)"/>',
        "<style>@import 'https://example.com/a'</style>",
        "<style>path{fill:u\\72l(https://example.com/a)}</style>",
        '<set attributeName="href" to="https://example.com"/>',
    ],
)
def test_an_svg_that_acts_or_fetches_is_refused(inside: str) -> None:
    refuse_unsafe_svg(SVG)
    with pytest.raises(ValueError, match=r"holds|links|fetches"):
        refuse_unsafe_svg(SVG.replace(b"<path", inside.encode() + b"<path", 1))


def test_an_svg_with_entities_is_refused() -> None:
    bomb = b'<!DOCTYPE svg [<!ENTITY a "aaaa">]>' + SVG
    with pytest.raises(ValueError, match="entities"):
        refuse_unsafe_svg(bomb)


def test_pages_pass_no_html_no_pictures_and_no_odd_links() -> None:
    page = render_page(
        "<script>x</script>\n\n[a](javascript:x) [b](/admin) [c](https://example.com)"
        " [d](mailto:a@example.com) ![e](https://example.com/e.png) <b onclick=x>f</b>"
    )
    assert "<script" not in page
    assert "<b " not in page
    assert "<img" not in page
    assert re.findall(r'href="([^"]*)"', page)[:2] == [
        "https://example.com",
        "mailto:a@example.com",
    ]
    assert 'href="/admin"' not in page
    assert 'href="javascript' not in page


@pytest.mark.parametrize(
    "text", ["{nobody}", "{name.__class__}", "[x](https://example.com/{name})"]
)
def test_a_placeholder_that_nobody_fills_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"knows no|link's address"):
        render_page(text)


def test_filling_escapes_and_never_reads_a_value_again() -> None:
    page = render_page("{policy} {name}")
    filled = fill_placeholders(page, {"policy": "<b>{name}</b>"})
    assert filled == "<p>&lt;b&gt;{name}&lt;/b&gt; {name}</p>\n"


def test_a_telegram_name_becomes_an_address() -> None:
    assert check_support_url("t.me/somebody") == "https://t.me/somebody"


def test_the_setting_names_the_folder(folder: Path) -> None:
    settings = IsolatedSettings(DARKROOM_BRAND=f" {folder}\n")  # pyright: ignore[reportCallIssue]
    assert settings.brand_folder == folder
    assert isinstance(load_brand(settings.brand_folder), Brand)
    assert IsolatedSettings(DARKROOM_BRAND="").brand_folder is None  # pyright: ignore[reportCallIssue]
