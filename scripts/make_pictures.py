"""Draw docs/pictures/: a contact sheet per style, by the studio as it stands, from the bundled portraits."""

import hashlib
import sys
from pathlib import Path

from darkroom.adapters.contact_sheet import make_contact_sheet
from darkroom.adapters.generation.studio.render import RenderOrder, render
from darkroom.flow.stock_catalog import parse_catalog

PACKAGE = Path("src/darkroom")
FOLDER = Path("docs/pictures")
SHEETS = (
    ("signature", "astronaut.png"),
    ("professional", "grace_hopper.jpg"),
    ("lifestyle", "astronaut.png"),
    ("creative", "grace_hopper.jpg"),
)


def main() -> None:
    """One JPEG a style; about a minute on two cores."""
    styles = {style.id: style for style in parse_catalog((PACKAGE / "catalog.toml").read_text())[1]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for style_id, portrait in SHEETS:
        selfie = (PACKAGE / "web" / "portraits" / portrait).read_bytes()
        photos: list[bytes] = []
        for index, prompt in enumerate(styles[style_id].prompts):
            seed = int.from_bytes(hashlib.sha256(prompt.key.encode()).digest()[:7], "big")
            photos.append(render(RenderOrder(prompt.text, style_id, index, seed), [selfie]).data)
        (FOLDER / f"{style_id}.jpg").write_bytes(make_contact_sheet(photos))
        sys.stdout.write(f"{style_id}: {len(photos)} photos\n")


if __name__ == "__main__":
    main()
