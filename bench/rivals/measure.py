"""`python -m bench.rivals.measure`: Darkroom, three libraries and the older design, in one table."""

import asyncio
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from bench.table import Row, machine

__all__ = [
    "Killed",
    "Pace",
    "Photos",
    "measure_all",
    "measure_kills",
    "measure_pace",
    "measure_rival",
]

SETS: Final = 100
"""700 photos: seconds of the quickest, half a minute of the slowest."""
KILL_SETS: Final = 30
WIDTH: Final = 80
TARGET: Final = 3
"""What we want to be ahead of every rival that keeps its promises."""
WAITING: Final = frozenset({"procrastinate", "pgqueuer", "previous"})
"""Their recovery waits for clocks, not for processors: these runs share the time."""


def measure_rival(server: str, name: str, sets: int) -> Photos:
    """Photos per second of the rival called `name`, as `bench.photos.measure_ours` measures ours."""
    return measure_pace(server, name, sets).photos


@dataclass(frozen=True, slots=True)
class Rivals:
    """What one run of all came to, by name; whoever is not installed is missing."""

    paces: Mapping[str, Sequence[Pace]]
    killed: Sequence[Killed]

    def as_json(self) -> dict[str, object]:
        """For the kept results."""
        return {
            "rivals": {name: [asdict(one) for one in runs] for name, runs in self.paces.items()},
            "killed": [asdict(one) for one in self.killed],
        }


def measure_all(
    server: str,
    progress: Progress,
    *,
    repeats: int,
    sets: int,
    kill_sets: int,
    seed: int,
    only: str = "",
) -> Rivals:
    """Photos of all in turns, then the kills: those that wait for clocks at once, the others at once."""
    wanted = [
        subject for subject in (OURS, BARE, *RIVALS) if not only or subject.name in only.split(",")
    ]
    for subject in wanted:
        if not subject.installed:
            progress.console.print(f"{subject.title} is not installed: `make bench` sees to that")
    there = [subject for subject in wanted if subject.installed]
    paces: dict[str, list[Pace]] = defaultdict(list)
    bar = progress.add_task("rivals", total=repeats * len(there) + 2)
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
    return Rivals(paces, killed)


def rows_of(rivals: Rivals) -> list[Row]:
    """Ours beside each, from the first task's creation to the last photo stored."""
    ours = tuple(one.whole_per_second for one in rivals.paces.get(OURS.name, ()))
    return [
        Row(
            what="photos: first created to last stored",
            beside_what=BY_NAME[name].title,
            unit="/s",
            ours=ours,
            beside=tuple(one.whole_per_second for one in runs),
            target=1 if name == BARE.name else TARGET,
        )
        for name, runs in rivals.paces.items()
        if name != OURS.name and len(runs) == len(ours)
    ]


def show_rivals(rivals: Rivals, console: Console) -> None:
    """Both tables, at 80 columns."""
    if rivals.paces:
        console.print(_table_of_paces(rivals.paces))
    if rivals.killed:
        console.print()
        console.print(_table_of_kills(rivals.killed))
    for one in rivals.killed:
        subject = BY_NAME[one.name]
        console.print(f"[dim]{subject.title}: comes back by {subject.after_death}.[/dim]")


def measure(
    repeats: Annotated[int, typer.Option(min=0, max=10, help="of the photos, in turns")] = 1,
    sets: Annotated[int, typer.Option(min=10, help="orders of seven photos for each")] = SETS,
    kill_sets: Annotated[int, typer.Option(min=0, help="orders while workers die")] = KILL_SETS,
    seed: Annotated[int, typer.Option(help="draws the moments of the kills")] = 1,
    only: Annotated[str, typer.Option(help="names, with commas between")] = "",
) -> None:
    """Measure all in turns, kill their workers, and print both."""
    console = Console(width=WIDTH)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with open_server() as server, Progress(*columns, console=console, transient=True) as progress:
        rivals = measure_all(
            server, progress, repeats=repeats, sets=sets, kill_sets=kill_sets, seed=seed, only=only
        )
    console.print(
        f"[bold]{machine()}[/bold]; PostgreSQL embedded, fsync on; one worker, 40 photos at once"
    )
    show_rivals(rivals, console)


async def _kill_together(server: str, names: Sequence[str], sets: int, seed: int) -> list[Killed]:
    return list(await asyncio.gather(*(kill_one(server, name, sets, seed) for name in names)))


def _table_of_paces(paces: Mapping[str, Sequence[Pace]]) -> Table:
    table = Table(
        "", title="Photos, from the first creation to the last one stored", title_justify="left"
    )
    for title in ("/s", "ours is", "CPU ms\neach", "over\nbare", "commits\neach", "bought"):
        table.add_column(title, justify="right")
    ours = paces.get(OURS.name, ())
    bare_ms = statistics.median([one.cpu_ms_each for one in paces.get(BARE.name, ())] or [math.nan])
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
            f"{statistics.median(one.cpu_ms_each for one in runs) - bare_ms:.1f}",
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
