"""The beginning of a rehearsal, cheap to import: the stand-ins are loaded when they are asked for."""

from pathlib import Path

from darkroom.edges.terminal import console


async def begin_rehearsal(
    *,
    seed: int,
    orders: int,
    fault_percent: float,
    tier: str,
    style: str,
    photos_folder: Path,
) -> int:
    """Sell through every stand-in under faults from a seed. Returns the exit code."""
    from darkroom.rehearsal.run import Rehearsal, run_rehearsal  # noqa: PLC0415 - most commands need none of it

    wish = Rehearsal(seed, orders, fault_percent, tier, style, photos_folder)
    return await run_rehearsal(wish, console)


async def begin_twins(*, seed: int, fault_percent: float, public_url: str, file: Path) -> int:
    """Run the stand-ins until stopped. Returns the exit code."""
    from darkroom.rehearsal.twins import run_twins  # noqa: PLC0415 - as above

    return await run_twins(
        seed=seed, fault_percent=fault_percent, public_url=public_url, file=file, console=console
    )
