"""The README's three pictures of the pages, from what `tests/browser` saw last.

Run as `make screenshots`, which sells a set in a real browser first.
"""

from pathlib import Path
from typing import Final

from PIL import Image

SHOTS: Final = {"en-1-welcome": "welcome", "en-3-order": "order", "en-5-gallery": "gallery"}
WIDTH = 500
"""Twice what the README shows."""


def main() -> None:
    """Write docs/pictures/page-*.webp."""
    for shot, name in SHOTS.items():
        with Image.open(Path("browser-shots") / f"{shot}.png") as picture:
            small = picture.convert("RGB").resize(
                (WIDTH, round(picture.height * WIDTH / picture.width))
            )
        small.save(Path("docs/pictures") / f"page-{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
