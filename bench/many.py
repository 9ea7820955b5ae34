"""`make bench-many`: more than one process, a pooler in front, and three servers of which the primary dies."""

import asyncio
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import claims, photos
from bench.cluster import ClusterError, open_cluster
from bench.failover import Failover, How, measure_failover
from bench.places import open_server
from bench.pooled import pooler_between
from bench.table import Row, keep, machine, show
from darkroom.twin.pgbouncer import PgBouncerError, pgbouncer_binary

SETS: Final = 100
CLAIMS: Final = 1600
WORKERS: Final = (1, 2, 4)
SERVERS: Final = (1, 2)
POOLED: Final = "PgBouncer"
EVEN: Final = 1.0
"""More processes on one machine are at least no loss."""
POOLED_TARGET: Final = 0.5
"""A pooler is one more process and a hop for each message, and nothing is prepared behind it."""
ORDERS: Final = 100
LOAD_SECONDS: Final = 60
"""Of orders that come in, 30 s a death more: the load goes on through each of them."""
DEATH_SECONDS: Final = 30
ONE_MACHINE: Final = (
    "all of it on the same cores: workers, servers, PostgreSQL, the instant provider, and whoever drives them. "
    "More processes add no cores here; what counts is that they cost nothing"
)

console: Final = Console()
Results = dict[str, list[float]]


def bench(
    repeats: Annotated[int, typer.Option(min=0, max=20, help="of each, in turns")] = 3,
    sets: Annotated[int, typer.Option(min=10, help="paid sets that are made each time")] = SETS,
    claimed: Annotated[
        int, typer.Option("--claims", min=64, help="sets started each time")
    ] = CLAIMS,
    deaths: Annotated[int, typer.Option(min=0, max=5, help="of the cluster's primary")] = 1,
    how: Annotated[How, typer.Option(help="how the primary dies")] = How.KILLED,
) -> None:
    """Measure, print one table and what the cluster did, and keep both in bench/results.

    Exits with 1 when an acknowledged commit is lost, the verdict is not clean, or a process was restarted.
    """
    # The pool tells of each connection that it tries while the primary is away.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    console.print(f"[bold]{machine()}[/bold]; PostgreSQL, fsync on; {repeats} repeats")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    more: dict[str, object] = {}
    failover: Failover | None = None
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            pgbouncer_binary()
            rows = _scale(progress, repeats, sets, claimed) if repeats else []
            if deaths:
                failover = _fail_over(progress, deaths, how)
                more["failover"] = asdict(failover)
    except (ClusterError, PgBouncerError) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(2) from None
    if rows:
        show(rows, (), console)
        console.print(f"[dim]{ONE_MACHINE}[/dim]")
    if failover is not None:
        _tell(failover, how)
    console.print(f"kept: {keep(rows, part='many', more=more)}")
    if failover is not None and not failover.held:
        raise typer.Exit(1)


def _scale(progress: Progress, repeats: int, sets: int, claimed: int) -> list[Row]:
    made: dict[str, list[photos.Photos]] = {}
    started: dict[str, list[claims.Claims]] = {}
    with open_server() as server:
        making: dict[str, Callable[[], photos.Photos]] = {
            **{str(n): lambda n=n: photos.measure_ours(server, sets, workers=n) for n in WORKERS},
            POOLED: lambda: photos.measure_ours(server, sets, door=pooler_between),
        }
        starting: dict[str, Callable[[], claims.Claims]] = {
            **{
                str(n): lambda n=n: claims.measure_ours(server, claimed, servers=n) for n in SERVERS
            },
            POOLED: lambda: claims.measure_ours(server, claimed, door=pooler_between),
        }
        bar = progress.add_task("", total=repeats * (len(making) + len(starting)))
        for _ in range(repeats):
            for name, make in making.items():
                progress.update(bar, description=f"photos: {name}")
                made.setdefault(name, []).append(make())
                progress.advance(bar)
            for name, start in starting.items():
                progress.update(bar, description=f"claims: {name}")
                started.setdefault(name, []).append(start())
                progress.advance(bar)
        progress.remove_task(bar)
    return [
        *_rows(
            "photos",
            "workers",
            {k: [one.per_second for one in v] for k, v in made.items()},
            _made(made),
        ),
        *_rows(
            "claims",
            "servers",
            {k: [one.per_second for one in v] for k, v in started.items()},
            _waits(started),
        ),
    ]


def _rows(what: str, who: str, results: Results, notes: dict[str, str]) -> list[Row]:
    """Everything beside one process that goes straight to PostgreSQL, turn by turn."""
    return [
        Row(
            what=f"{what}: {POOLED}, 1 {who[:-1]}" if name == POOLED else f"{what}: {name} {who}",
            beside_what=f"1 {who[:-1]}, straight",
            unit="/s",
            ours=tuple(figures),
            beside=tuple(results["1"]),
            target=POOLED_TARGET if name == POOLED else EVEN,
            note=notes[name],
        )
        for name, figures in results.items()
        if name != "1"
    ]


def _made(made: dict[str, list[photos.Photos]]) -> dict[str, str]:
    """What does not depend on a busy machine: commits a photo, and that nothing was bought twice."""
    return {
        name: f"{statistics.median(one.commits_each for one in runs):.1f} commits a photo (1: "
        f"{statistics.median(one.commits_each for one in made['1']):.1f}); "
        f"{sum(one.stored for one in runs)} photos, {sum(one.bought for one in runs)} bought, audit clean"
        for name, runs in made.items()
    }


def _waits(started: dict[str, list[claims.Claims]]) -> dict[str, str]:
    return {
        name: f"{claims.CLIENTS} clients; p50 {statistics.median(one.p50_ms for one in runs):.0f} ms, "
        f"p99 {statistics.median(one.p99_ms for one in runs):.0f} ms"
        for name, runs in started.items()
    }


def _fail_over(progress: Progress, deaths: int, how: How) -> Failover:
    bar = progress.add_task("three servers: starting", total=None)
    with open_cluster() as cluster:
        progress.remove_task(bar)
        return asyncio.run(
            measure_failover(
                cluster,
                progress,
                orders=ORDERS * max(deaths, 1),
                seconds=LOAD_SECONDS + DEATH_SECONDS * deaths,
                deaths=deaths,
                how=how,
            )
        )


def _tell(failover: Failover, how: How) -> None:
    """The cluster's run in some lines."""
    for gap, back in zip(failover.gaps, failover.rejoin_seconds, strict=True):
        console.print(
            f"primary {how.value} under load: no commit for [bold]{_seconds(gap.commits)}[/bold], "
            f"no answer to a customer for {_seconds(gap.answers)}, no photo for {_seconds(gap.photos)}; "
            f"a standby again {back:.0f} s later"
        )
    told = ", ".join(f"{count} {kind}" for kind, count in failover.acknowledged.items())
    lost = sum(failover.lost.values())
    console.print(f"acknowledged: {told}; [bold]lost {lost}[/bold]")
    verdict = failover.verdict
    complaints: Sequence[str] = [*verdict.lost, *verdict.doubled, *verdict.unexplained]
    console.print(
        f"verdict: {verdict.photos} photos with their bytes, lost {len(verdict.lost)}, doubled "
        f"{len(verdict.doubled)}, unexplained {len(verdict.unexplained)}; workers "
        f"{failover.workers_before} before, {failover.workers_after} after, {failover.restarts} restarts"
    )
    for complaint in complaints[:10]:
        console.print(f"[red]{complaint}[/red]")


def _seconds(value: float | None) -> str:
    return "the rest of the run" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    typer.run(bench)
