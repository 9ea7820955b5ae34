"""Draw the bundled brand's examples: four photos a style and the faces they were made of, as WebP.

The scenes were chosen by eye; both portraits show every style.
"""

import hashlib
import io
import sys
from pathlib import Path

from PIL import Image

from darkroom.adapters.generation.studio.decode import decode
from darkroom.adapters.generation.studio.face import find_faces
from darkroom.adapters.generation.studio.render import RenderOrder, render
from darkroom.core.catalog import Style
from darkroom.flow.stock_catalog import parse_catalog

PACKAGE = Path("src/darkroom")
FOLDER = PACKAGE / "web" / "brand" / "examples"
PHOTO_PX = (480, 640)
BEFORE_PX = (240, 320)
QUALITY = 69
PHOTO_BYTES_MAX = 45_000
ALL_BYTES_MAX = 600_000
COLLINS, HOPPER = "astronaut.png", "grace_hopper.jpg"
SCENES = {
    "signature": (
        ("golden_park", COLLINS),
        ("fine_dining", HOPPER),
        ("coast", COLLINS),
        ("rooftop", HOPPER),
    ),
    "professional": (
        ("grey_studio", COLLINS),
        ("navy_backdrop", HOPPER),
        ("library_wall", COLLINS),
        ("corner_office", HOPPER),
    ),
    "lifestyle": (
        ("rooftop_night", COLLINS),
        ("autumn", HOPPER),
        ("park", COLLINS),
        ("cafe", HOPPER),
    ),
    "creative": (
        ("pop_art_poster", COLLINS),
        ("oil_painting", HOPPER),
        ("neon", COLLINS),
        ("film_noir", HOPPER),
    ),
}


def main() -> None:
    """Eighteen small files; half a minute on two cores. Fails when they are too heavy for a phone."""
    styles = {style.id: style for style in parse_catalog((PACKAGE / "catalog.toml").read_text())[1]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    sizes = [_save_before(number, name) for number, name in enumerate((COLLINS, HOPPER), start=1)]
    for style_id, scenes in SCENES.items():
        for number, (key, portrait) in enumerate(scenes, start=1):
            sizes.append(_save_photo(styles[style_id], key, portrait, number))
    if max(sizes) > PHOTO_BYTES_MAX or sum(sizes) > ALL_BYTES_MAX:
        raise SystemExit(f"too heavy: {max(sizes)} bytes the largest, {sum(sizes)} all together")
    sys.stdout.write(f"{len(sizes)} pictures, {sum(sizes)} bytes\n")


def _save_photo(style: Style, key: str, portrait: str, number: int) -> int:
    keys = [prompt.key for prompt in style.prompts]
    index = keys.index(key)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    order = RenderOrder(style.prompts[index].text, style.id, index, seed)
    photo = render(order, [(PACKAGE / "web" / "portraits" / portrait).read_bytes()]).data
    with Image.open(io.BytesIO(photo)) as opened:
        small = opened.convert("RGB").resize(PHOTO_PX, Image.Resampling.LANCZOS)
    return _save(small, f"{style.id}-{number}.webp")


def _save_before(number: int, portrait: str) -> int:
    """The portrait itself, cropped to its face."""
    pixels = decode((PACKAGE / "web" / "portraits" / portrait).read_bytes())
    face = find_faces(pixels)[0]
    height = min(face.side * 2.6, pixels.shape[0], pixels.shape[1] * 4 / 3)
    width = height * 3 / 4
    left = min(max(face.centre_x - width / 2, 0), pixels.shape[1] - width)
    top = min(max(face.centre_y - height * 0.52, 0), pixels.shape[0] - height)
    box = (left, top, left + width, top + height)
    small = Image.fromarray(pixels).resize(BEFORE_PX, Image.Resampling.LANCZOS, box=box)
    return _save(small, f"before-{number}.webp")


def _save(picture: Image.Image, name: str) -> int:
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=6)
    (FOLDER / name).write_bytes(out.getvalue())
    return len(out.getvalue())


if __name__ == "__main__":
    main()
