"""`darkroom twin`: the stand-ins alone, for people who want to point a Darkroom at them."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from darkroom.rehearsal.painter import studio_painter
from darkroom.rehearsal.town import Town, TownHabits, open_town

LOOK_SECONDS: Final = 0.5


async def run_twins(
    *, seed: int, fault_percent: float, public_url: str, file: Path, console: Console
) -> int:
    """Start every stand-in, write what points at them into `file`, and show what they do until stopped.

    They listen on loopback only, and everything that they keep is gone when they end.
    """
    folder = Path(tempfile.mkdtemp(prefix="darkroom-twin-"))
    try:
        async with studio_painter() as painter:
            habits = TownHabits(seed=seed, fault_rate=fault_percent / 100, painter=painter)
            async with open_town(folder, habits) as town:
                write_variables(file, town.variables(public_url))
                console.print(
                    f"kie.ai {town.kie.base_url} · QStash {town.queue.base_url}\n"
                    f"S3 {town.store.endpoint} · bank {town.bank_url}\n\n"
                    f"In another terminal:  [bold]set -a; . {file}; darkroom doctor; darkroom run[/bold]\n"
                )
                with Live(console=console, get_renderable=lambda: _draw(town), transient=True):
                    await asyncio.Event().wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def write_variables(file: Path, variables: Mapping[str, str]) -> None:
    """A file for a shell, readable by its owner alone: it holds the stand-ins' secrets."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


def _draw(town: Town) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=9, style="bold")
    kie, queue = town.kie, town.queue
    table.add_row(
        "kie.ai",
        f"{kie.tasks_created} tasks, {len(kie.callbacks)} callbacks, {kie.credits_spent:.0f} credits, "
        f"{kie.struck.total()} faults",
    )
    table.add_row(
        "QStash",
        f"{queue.counts['published']} messages, {queue.counts['delivered']} delivered, "
        f"{queue.counts['retried']} repeated, {queue.lots.struck.total()} faults",
    )
    table.add_row("bank", f"{len(town.bank.payments())} payments")
    return table
