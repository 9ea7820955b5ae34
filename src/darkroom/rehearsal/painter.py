"""The studio in the place of kie.ai's model: its stand-in gives real photos of whoever is on the references."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import tomlkit

from darkroom.adapters.generation.studio.render import RenderOrder, render
from darkroom.adapters.processes import OwnProcesses, enter_process
from darkroom.twin.kie_faults import Painter
from darkroom.wiring import bundled_catalog

PAINT_SECONDS: Final = 60
"""0.6 s on an idle machine; a hundred times that on one that runs everything at once."""
PHOTOS_PER_PROCESS: Final = 1000


@asynccontextmanager
async def studio_painter() -> AsyncGenerator[Painter]:
    """What paints while the block runs, in a process of its own: pictures of 768 x 1024."""
    places = _places()
    processes = OwnProcesses(
        "rehearsal.paint",
        processes=1,
        seconds=PAINT_SECONDS,
        works_per_process=PHOTOS_PER_PROCESS,
        enter=enter_process,
    )

    async def paint(order: dict[str, Any], references: list[bytes]) -> bytes:
        prompt = str(order["input"]["prompt"])
        style_id, place = places.get(prompt, ("signature", 0))
        # Another attempt, or another set of the same style, is another picture.
        seed = int.from_bytes(hashlib.sha256(str(order.get("callBackUrl")).encode()).digest()[:4])
        wish = RenderOrder(prompt=prompt, style_id=style_id, place=place, seed=seed)
        return await processes.run(_paint, wish, references)

    try:
        yield paint
    finally:
        await processes.close()


def _paint(order: RenderOrder, references: Sequence[bytes]) -> bytes:
    return render(order, references).data


def _places() -> dict[str, tuple[str, int]]:
    """Every prompt of the bundled catalog, and where it stands."""
    catalog = tomlkit.parse(bundled_catalog()).unwrap()
    return {
        str(prompt): (str(style["id"]), index)
        for style in catalog["styles"]
        for index, prompt in enumerate(style["prompts"])
    }
