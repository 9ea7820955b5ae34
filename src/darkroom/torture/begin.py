"""Which design is tortured."""

import importlib
import sys
from pathlib import Path
from typing import cast

from darkroom.edges.terminal import console, fail
from darkroom.torture.design import Design
from darkroom.torture.plan import BadDay
from darkroom.torture.run import Wish, run_torture

PREVIOUS = "bench.previous_design"


async def begin_torture(
    *,
    seed: int,
    orders: int,
    minutes: float,
    workers: int,
    design: str,
    photos_failed_percent: float,
    is_calm: bool,
    is_full: bool,
) -> int:
    """Torture `darkroom`, or `previous`, a model of the older design under `bench/`. Returns the exit code."""
    day = BadDay(photos_failed_share=photos_failed_percent / 100, is_calm=is_calm)
    wish = Wish(
        seed=seed, orders=orders, minutes=minutes, workers=workers, bad_day=day, is_full=is_full
    )
    found = _find(design)
    if is_full and not found.rents:
        fail(f"{found.name} keeps photos in a folder and rings nobody: not with --full", code=2)
    return await run_torture(wish, found, console)


def _find(name: str) -> Design:
    # Imported only here: the server and the studio are slow to load, and most commands need neither.
    if name == "darkroom":
        from darkroom.torture.ours import Ours  # noqa: PLC0415

        return Ours()
    if name != "previous":
        fail(f"no such design: {name} (darkroom, previous)", code=2)
    # The installed command does not look into the folder it is called from; `python -m` does.
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(PREVIOUS)
    except ModuleNotFoundError:
        fail("the older design is in the repository's bench/: run this from its top folder", code=2)
    return cast("Design", module.DESIGN)
