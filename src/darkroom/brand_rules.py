"""What a seller's colours, links, pictures and pages must look like, and how their pages become HTML.

Every refusal is a ValueError of one line; `brand` says of which file and key it is.
"""

import html
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

PICTURE_BYTES_MAX: Final = 300_000
"""Of one picture: sixteen of them on a slow phone (400 kB/s) are still there within 12 s."""
CONTRAST_MIN: Final = 4.5
"""WCAG 2.2 AA for text of normal size."""
PLACEHOLDERS: Final = frozenset({"name", "support", "selfie_days", "policy"})

_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_PATH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}")
_IN_A_LINK: Final = re.compile(r"%7B[A-Za-z_][A-Za-z0-9_.]*%7D", re.IGNORECASE)
_SCRIPTED_TAGS: Final = frozenset(
    {
        "animate", "animatemotion", "animatetransform", "audio", "embed", "foreignobject", "handler",
        "iframe", "image", "listener", "object", "script", "set", "video",
    }
)  # fmt: skip
_CONTENT_TYPES: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "svg": "image/svg+xml",
}


def check_text(text: str, *, letters_max: int) -> str:
    """One line of text, stripped.

    Raises:
        ValueError: it is empty, too long, or holds a line end or another control character.
    """
    line = text.strip()
    if not line:
        raise ValueError("is empty")
    if len(line) > letters_max:
        raise ValueError(f"is longer than {letters_max} letters")
    if not line.isprintable():
        raise ValueError("is not one line of plain text")
    return line


def check_colour(text: str) -> str:
    """A colour as #rrggbb, in small letters.

    Raises:
        ValueError: it is written in another way.
    """
    colour = text.strip().lower()
    if not _COLOUR.fullmatch(colour):
        raise ValueError("is no colour like #8a4b08")
    return colour


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21, as WCAG 2.2 counts it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - sRGB's curve
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def check_support_url(text: str) -> str:
    """Where buyers write to: https://, mailto: or t.me/name, which becomes https://t.me/name.

    Raises:
        ValueError: it is something else.
    """
    url = text.strip()
    if url.startswith("t.me/"):
        url = f"https://{url}"
    if any(letter.isspace() or not letter.isprintable() or letter in '"<>\\' for letter in url):
        raise ValueError("is no address: it has a space or a sign that addresses do not have")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no address") from None
    is_page = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc
    is_mailbox = parts.scheme == "mailto" and re.fullmatch(r"[^@?&]+@[^@?&]+\.[^@?&]+", parts.path)
    if not is_page and not is_mailbox:
        raise ValueError("must be https://..., mailto:... or t.me/...")
    return url


def check_path(text: str) -> PurePosixPath:
    """A file inside the brand's folder, by letters that every system and address takes.

    Raises:
        ValueError: it is absolute, leaves the folder, or is hidden.
    """
    if not _PATH.fullmatch(text):
        raise ValueError("is no path inside the folder (letters, digits, '.', '_', '-' and '/')")
    return PurePosixPath(text)


def content_type_of(path: PurePosixPath, data: bytes) -> str:
    """The type of a picture: by its ending, which its bytes must bear out.

    Raises:
        ValueError: neither JPEG, PNG, WebP nor SVG, its bytes are of another kind or too many, or an SVG that
            does something else than draw.
    """
    content_type = _CONTENT_TYPES.get(path.suffix.removeprefix("."))
    if content_type is None:
        raise ValueError("must end in .webp, .png, .jpg or .svg")
    if len(data) > PICTURE_BYTES_MAX:
        raise ValueError(f"is larger than {PICTURE_BYTES_MAX // 1000} kB")
    if content_type == "image/svg+xml":
        refuse_unsafe_svg(data)
        return content_type
    found = None
    if data.startswith(b"\xff\xd8\xff"):
        found = "image/jpeg"
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        found = "image/png"
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        found = "image/webp"
    if found != content_type:
        raise ValueError(f"is not what its ending says: {path.suffix}")
    return content_type


def refuse_unsafe_svg(data: bytes) -> None:
    """Let in only a drawing: no scripts, no events, nothing fetched from elsewhere.

    Raises:
        ValueError: with what it holds.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if re.search(r"<!(doctype|entity)|<\?xml-stylesheet", text, re.IGNORECASE):
        raise ValueError("declares entities or a style sheet: save it as a plain SVG")
    try:
        root = ET.fromstring(text)  # noqa: S314 - the operator's own file, and it declares no entities
    except (ET.ParseError, ValueError):
        raise ValueError("is no SVG") from None
    if _local(root.tag) != "svg":
        raise ValueError("is no SVG")
    for node in root.iter():
        if _local(node.tag) in _SCRIPTED_TAGS:
            raise ValueError(f"holds <{_local(node.tag)}>: a logo only draws")
        for name, value in node.attrib.items():
            _refuse_unsafe_attribute(_local(name), value)
        _refuse_fetching(node.text or "")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def _refuse_unsafe_attribute(name: str, value: str) -> None:
    if name.startswith("on"):
        raise ValueError(f"holds {name}=: a logo only draws")
    if name in ("href", "src") and not value.strip().startswith("#"):
        raise ValueError("links to something outside itself")
    if "javascript:" in re.sub(r"[\s\x00-\x1f]", "", value).lower():
        raise ValueError("holds a script: a logo only draws")
    _refuse_fetching(value)


def _refuse_fetching(text: str) -> None:
    # A style sheet may spell any letter as \75: none of that is needed to draw.
    if re.search(r"@import|\\|url\(\s*[\"']?\s*(?!#)[^\s\"']", text, re.IGNORECASE):
        raise ValueError("fetches something from outside itself")


def _build_renderer() -> MarkdownIt:
    """CommonMark and tables: no HTML passes through, no pictures, links to http(s) and mailto only."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    renderer.validateLink = _is_a_page_or_mailbox
    return renderer


def _is_a_page_or_mailbox(url: str) -> bool:
    return re.match(r"(https?://|mailto:)", url, re.IGNORECASE) is not None


_RENDERER: Final = _build_renderer()


def render_page(markdown: str) -> str:
    """A page's HTML, its placeholders still in it.

    Raises:
        ValueError: it is empty, or names a placeholder that nobody fills, or one inside a link's address.
    """
    if not markdown.strip():
        raise ValueError("is empty")
    for name in _PLACEHOLDER.findall(markdown):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in sorted(PLACEHOLDERS))
            raise ValueError(f"knows no {{{name}}}: there are {known}")
    page = _RENDERER.render(markdown)
    if _IN_A_LINK.search(page):
        raise ValueError("has a placeholder in a link's address: {support} is a link by itself")
    return page


def fill_placeholders(page: str, values: Mapping[str, str]) -> str:
    """A rendered page with the named placeholders filled; `values` is text, and is escaped.

    Each is put in once and never read again: a value that looks like a placeholder stays text. Those that are
    not named stay for a later one.
    """
    return fill_with_html(page, {name: html.escape(value) for name, value in values.items()})


def fill_with_html(page: str, values: Mapping[str, str]) -> str:
    """Like `fill_placeholders`, for values that are HTML of our own making."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), page)


def link_to(url: str, text: str) -> str:
    """A link's HTML."""
    return f'<a href="{html.escape(url)}">{html.escape(text)}</a>'
