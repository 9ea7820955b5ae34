"""A sheet of small pictures, to see a set at a glance."""

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image

CELL: Final = (240, 320)
GAP: Final = 12
COLUMNS: Final = 4


def make_contact_sheet(photos: Sequence[bytes]) -> bytes:
    """A JPEG with every photo, four in a row."""
    columns = min(COLUMNS, len(photos)) or 1
    rows = -(-len(photos) // columns)
    size = (columns * (CELL[0] + GAP) + GAP, rows * (CELL[1] + GAP) + GAP)
    sheet = Image.new("RGB", size, (24, 24, 26))
    for index, data in enumerate(photos):
        with Image.open(io.BytesIO(data)) as photo:
            cell = photo.convert("RGB").resize(CELL, Image.Resampling.LANCZOS)
        left = GAP + (index % columns) * (CELL[0] + GAP)
        top = GAP + (index // columns) * (CELL[1] + GAP)
        sheet.paste(cell, (left, top))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=90)
    return out.getvalue()
