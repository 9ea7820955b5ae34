"""`python -m bench.rivals.measure`: Darkroom, three libraries and the older design, in one table."""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.photos import Photos
from bench.places import open_server
from bench.rivals.kills import BOUND_SECONDS, Killed, kill_one, measure_kills
from bench.rivals.runs import Pace, measure_pace
from bench.rivals.subjects import BARE, BY_NAME, OURS, RIVALS
from bench.table import machine

__all__ = ["Killed", "Pace", "Photos", "measure_kills", "measure_pace", "measure_rival"]

SETS: Final = 50
KILL_SETS: Final = 30
WIDTH: Final = 80
WAITING: Final = frozenset({"procrastinate", "pgqueuer", "previous"})
"""Their recovery waits for clocks, not for processors: these runs share the time."""

console: Final = Console(width=WIDTH)


def measure_rival(server: str, name: str, sets: int) -> Photos:
    """Photos per second of the rival called `name`, as `bench.photos.measure_ours` measures ours."""
    return measure_pace(server, name, sets).photos


def measure(
    repeats: Annotated[int, typer.Option(min=0, max=10, help="of the photos, in turns")] = 1,
    sets: Annotated[int, typer.Option(min=10, help="orders of seven photos for each")] = SETS,
    kill_sets: Annotated[int, typer.Option(min=0, help="orders while workers die")] = KILL_SETS,
    seed: Annotated[int, typer.Option(help="draws the moments of the kills")] = 1,
    only: Annotated[str, typer.Option(help="names, with commas between")] = "",
) -> None:
    """Measure all in turns, kill their workers, and print both."""
    wanted = [
        subject for subject in (OURS, BARE, *RIVALS) if not only or subject.name in only.split(",")
    ]
    for subject in wanted:
        if not subject.installed:
            console.print(f"{subject.title} is not installed: `make bench` sees to that")
    there = [subject for subject in wanted if subject.installed]
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    paces: dict[str, list[Pace]] = defaultdict(list)
    with open_server() as server, Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("photos", total=repeats * len(there) + 2)
        for _ in range(repeats):
            for subject in there:
                progress.update(bar, description=f"photos: {subject.title}")
                paces[subject.name].append(measure_pace(server, subject.name, sets))
                progress.advance(bar)
        killed: list[Killed] = []
        names = [subject.name for subject in there if subject is not BARE and kill_sets]
        for group in (
            [name for name in names if name not in WAITING],
            [name for name in names if name in WAITING],
        ):
            progress.update(bar, description=f"kills: {', '.join(group)}")
            killed += asyncio.run(_kill_together(server, group, kill_sets, seed))
            progress.advance(bar)
    console.print(
        f"[bold]{machine()}[/bold]; PostgreSQL embedded, fsync on; one worker, 40 photos at once"
    )
    if paces:
        console.print(_table_of_paces(paces))
    if killed:
        console.print(_table_of_kills(killed))
    for one in killed:
        subject = BY_NAME[one.name]
        console.print(f"[dim]{subject.title}: comes back by {subject.after_death}.[/dim]")


async def _kill_together(server: str, names: Sequence[str], sets: int, seed: int) -> list[Killed]:
    return list(await asyncio.gather(*(kill_one(server, name, sets, seed) for name in names)))


def _table_of_paces(paces: Mapping[str, Sequence[Pace]]) -> Table:
    table = Table(
        "", title="Photos, from the first creation to the last one stored", title_justify="left"
    )
    for title in ("/s", "ours is", "CPU ms each", "commits each", "bought"):
        table.add_column(title, justify="right")
    ours = paces.get(OURS.name, ())
    for name, runs in paces.items():
        ratios = [
            one.whole_per_second / other.whole_per_second
            for one, other in zip(ours, runs, strict=False)
        ]
        photos = sum(one.photos.stored for one in runs)
        table.add_row(
            BY_NAME[name].title,
            f"{statistics.median(one.whole_per_second for one in runs):.1f}",
            f"{statistics.median(ratios):.2f}x" if ratios else "",
            f"{statistics.median(one.cpu_ms_each for one in runs):.1f}",
            f"{statistics.median(one.photos.commits_each for one in runs):.1f}",
            f"{sum(one.photos.bought for one in runs)} of {photos}",
        )
    return table


def _table_of_kills(killed: Sequence[Killed]) -> Table:
    table = Table(
        "", title="The worker killed three times, another started at once", title_justify="left"
    )
    for title in ("held", "lost", "bought\ntwice", "doubled", "wrong\norders"):
        table.add_column(title, justify="right")
    table.add_column("s to the first /\nlast that was held", justify="right")
    for one in killed:
        table.add_row(
            BY_NAME[one.name].title,
            " ".join(str(held) for held in one.held),
            *(
                f"[bold]{count}[/bold]" if count else "0"
                for count in (one.lost, one.bought_twice, one.doubled, one.orders_wrong)
            ),
            "\n".join(
                f"{_seconds(first)} / {_seconds(last)}" if held else "-"
                for held, first, last in zip(
                    one.held, one.first_seconds, one.last_seconds, strict=True
                )
            ),
        )
    return table


def _seconds(value: float | None) -> str:
    return f"over {BOUND_SECONDS}" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    typer.run(measure)
