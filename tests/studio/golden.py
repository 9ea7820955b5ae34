# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""The golden pictures: orders whose bytes are known for the builds they were recorded with.

Record them for another build with `python -m tests.studio.golden`.
"""

import hashlib
import json
import platform
from pathlib import Path

import cv2
import numpy as np
import PIL

from darkroom.adapters.generation.studio.render import RenderedPhoto, RenderOrder, render
from tests.studio.portraits import astronaut, officer

RECORD = Path(__file__).with_name("golden.json")
ORDERS = {
    "alpine": RenderOrder("An alpine mountain ridge, half-length portrait", "signature", 0, 11),
    "wine cellar": RenderOrder("A wine cellar, bust portrait", "signature", 21, 2**62 + 1),
    "grey studio": RenderOrder("A grey studio backdrop, close portrait", "professional", 1, 3),
    "own scene": RenderOrder("Keep the own background, bust portrait", "lifestyle", 3, 4),
    "oil": RenderOrder("An oil painting, close portrait", "creative", 0, 5),
    "poster": RenderOrder("A pop art poster, bust portrait", "creative", 3, 6),
    "neon": RenderOrder("Neon tubes in magenta and cyan", "creative", 8, 7),
}


def build() -> str:
    """What the bytes depend on besides our own code: libraries and the processor's abilities."""
    return " ".join(
        (
            f"opencv {cv2.__version__}",
            f"numpy {np.__version__}",
            f"pillow {PIL.__version__}",
            platform.machine(),
            *cv2.getCPUFeaturesLine().split(),
        )
    )


def made(name: str) -> RenderedPhoto:
    return render(ORDERS[name], [astronaut(), officer()])


def fingerprint(photo: RenderedPhoto) -> str:
    return hashlib.sha256(photo.data).hexdigest()


def recorded() -> dict[str, dict[str, str]]:
    return json.loads(RECORD.read_text())


def record() -> None:
    known = recorded() if RECORD.exists() else {}
    known[build()] = {name: fingerprint(made(name)) for name in ORDERS}
    RECORD.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
