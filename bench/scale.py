"""`make bench-scale`: claims, photos and gallery pages on databases with a long past, beside an empty one.

One database a size, filled once and kept for all repetitions; each repetition brings customers of its own to
each, in turns. What is compared is the same work, done now, with 0, 1 million and `--most` photos lying
behind it.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import psycopg
import typer
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.claims import WARM_UP, drive
from bench.gallery import measure_pages
from bench.history import BYTES_A_PHOTO, fill_history
from bench.photos import END_SECONDS, LOOK_SECONDS, PHOTOS_A_SET, rate, running, start_sets
from bench.places import (
    CUSTOMERS,
    FIRST_TELEGRAM,
    TEMPLATE,
    look_at_tables,
    open_server,
    picture_folder,
)
from bench.table import Row, keep, machine, show
from darkroom.core.audit import run_audit
from darkroom.db.database import Database, DatabaseUnavailableError

MILLION: Final = 1_000_000
TARGET: Final = 0.9
"""Within a tenth."""
OPEN: Final = (
    "SELECT EXISTS (SELECT FROM kie_tasks "
    "WHERE status IN ('queued', 'submitting', 'unknown', 'pending', 'storing'))"
)
END_CLAIMED: Final = (
    "SET LOCAL session_replication_role = replica",
    "UPDATE kie_tasks SET status = 'failed' WHERE status = 'queued'",
    "UPDATE generation_jobs SET status = 'failed', finished_at = darkroom_now() WHERE status = 'pending'",
)
"""The sets that a measurement of claims has started are out of the way of the next one."""

console: Final = Console()


@dataclass(slots=True)
class Past:
    """A database with so many old photos, and what was measured on it, one figure a repetition."""

    photos: int
    dsn: str
    batches: int = 0
    figures: dict[str, list[float]] = field(
        default_factory=lambda: {"claims": [], "photos": [], "pages": []}
    )

    def bring_customers(self, count: int) -> None:
        """Customers who have paid and whose sets nobody has started."""
        self.batches += 1
        with psycopg.connect(self.dsn, autocommit=True) as one:
            one.execute(CUSTOMERS, {"first": FIRST_TELEGRAM * (1 + self.batches), "count": count})
            look_at_tables(one)
            one.execute("CHECKPOINT")

    def end_claimed(self) -> None:
        """Nothing is open any more."""
        with psycopg.connect(self.dsn) as one:
            for statement in END_CLAIMED:
                one.execute(statement.encode())


def need_room(most: int, sizes: Sequence[int]) -> None:
    """Refuse in one line where the disk would fill up. Raises typer.Exit."""
    needed, free = sum(sizes) * BYTES_A_PHOTO, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        console.print(
            f"[red]{most:,} old photos need {needed / 1e9:,.0f} GB in {tempfile.gettempdir()}, "
            f"where {free / 1e9:,.0f} GB are free.[/red] Take fewer: --most {MILLION}"
        )
        raise typer.Exit(2)


@contextmanager
def open_past(server: str, photos: int, progress: Progress) -> Generator[Past]:
    """A database with so many old photos; gone at the end."""
    name = f"bench_past_{photos}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(TEMPLATE))
        )
    dsn = make_conninfo(server, dbname=name)
    try:
        if photos:
            bar = progress.add_task(f"a past of {photos:,} photos", total=photos)
            began = time.monotonic()
            fill_history(dsn, photos, lambda more: progress.advance(bar, more))
            seconds = time.monotonic() - began
            progress.remove_task(bar)
            with psycopg.connect(dsn) as one:
                size = one.execute("SELECT pg_database_size(current_database())").fetchone()
            gigabytes = 0 if size is None else size[0] / 1e9
            console.print(f"filled {photos:,} photos: {gigabytes:.1f} GB in {seconds:.0f} s")
        with psycopg.connect(dsn) as one:
            # The photos' bytes are nowhere, or in a folder that is gone: nobody is to look for them.
            one.execute("UPDATE bucket_walks SET due_at = darkroom_now() + INTERVAL '1 year'")
        yield Past(photos, dsn)
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


async def make_photos(past: Past, sets: int, provider_port: str) -> float:
    """Photos per second of one worker of ours through the whole way."""
    with psycopg.connect(past.dsn, autocommit=True) as one:
        before = one.execute("SELECT coalesce(max(id), 0) FROM generated_photos").fetchone()
        folder = str(picture_folder())
        async with running("bench.worker", past.dsn, folder, f"http://127.0.0.1:{provider_port}"):
            await _until_nothing_is_open(one)
        stored = one.execute(
            "SELECT extract(epoch FROM created_at)::FLOAT8 FROM generated_photos WHERE id > %s ORDER BY 1",
            before,
        ).fetchall()
    if len(stored) != sets * PHOTOS_A_SET:
        raise AssertionError(f"{len(stored)} photos of {sets} sets")
    return rate([at for (at,) in stored])


async def _until_nothing_is_open(one: psycopg.Connection[Any]) -> None:
    ends_at = time.monotonic() + END_SECONDS
    while one.execute(OPEN.encode()).fetchone() != (False,):
        if time.monotonic() > ends_at:
            raise AssertionError("the photos are not there in time")
        await asyncio.sleep(LOOK_SECONDS)


async def measure(past: Past, *, claims: int, sets: int, provider_port: str) -> None:
    """One repetition on one database: claims, photos, and pages of the customers who have those photos."""
    past.bring_customers(claims + WARM_UP)
    past.figures["claims"].append((await drive(past.dsn, claims)).per_second)
    past.end_claimed()
    past.bring_customers(sets)
    start_sets(past.dsn)
    past.figures["photos"].append(await make_photos(past, sets, provider_port))
    past.figures["pages"].append(await measure_pages(past.dsn, sets))


async def audit_time(past: Past) -> str:
    """How long the audit of all of it takes, in words."""
    database = Database(past.dsn)
    await database.open()
    began = time.monotonic()
    try:
        await run_audit(database)
    except DatabaseUnavailableError:
        return f"{past.photos:,} old: longer than it may take, {time.monotonic() - began:.0f} s"
    finally:
        await database.close()
    return f"{past.photos:,} old: {time.monotonic() - began:.1f} s"


WHAT: Final = {
    "claims": "claims: POST /api/generate",
    "photos": "photos stored by one worker",
    "pages": "pages of a gallery",
}


def rows_of(pasts: Sequence[Past]) -> list[Row]:
    """Each size beside the empty database."""
    empty, *others = pasts
    return [
        Row(
            what=f"{WHAT[what]}, {past.photos:,} old",
            beside_what="none old",
            unit="/s",
            ours=tuple(past.figures[what]),
            beside=tuple(empty.figures[what]),
            target=TARGET,
        )
        for past in others
        for what in WHAT
    ]


@asynccontextmanager
async def _provider() -> AsyncGenerator[str]:
    """One for the whole run: its task ids are never given twice."""
    async with running("bench.provider") as port:
        yield port


async def _measure_all(
    pasts: Sequence[Past], repeats: int, claims: int, sets: int, progress: Progress
) -> None:
    bar = progress.add_task("measuring", total=repeats * len(pasts))
    async with _provider() as port:
        for number in range(repeats):
            # In turns, the other way round each time: nobody is always the first after a pause.
            for past in pasts if number % 2 == 0 else reversed(pasts):
                await measure(past, claims=claims, sets=sets, provider_port=port)
                progress.advance(bar)


def bench_scale(
    most: Annotated[int, typer.Option(min=0, help="old photos in the largest database")] = MILLION,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="on each database, in turns")] = 5,
    claims: Annotated[int, typer.Option(min=32, help="paid sets started a repetition")] = 1600,
    sets: Annotated[int, typer.Option(min=10, help="sets made a repetition")] = 120,
) -> None:
    """Measure, print one table, and keep it in bench/results."""
    sizes = sorted({0, min(most, MILLION), most})
    need_room(most, sizes)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console.print(f"[bold]{machine()}[/bold]; PostgreSQL embedded, fsync on; {repeats} repeats")
    with (
        open_server() as server,
        Progress(*columns, console=console, transient=True) as progress,
        _open_all(server, sizes, progress) as pasts,
    ):
        asyncio.run(_measure_all(pasts, repeats, claims, sets, progress))
        audits = [asyncio.run(audit_time(past)) for past in pasts]
    rows = rows_of(pasts)
    show(rows, (), console)
    console.print(f"[dim]the audit of everything: {', '.join(audits)}[/dim]")
    console.print(f"kept: {keep(rows, part='scale')}")


@contextmanager
def _open_all(server: str, sizes: Sequence[int], progress: Progress) -> Generator[list[Past]]:
    if not sizes:
        yield []
        return
    with (
        open_past(server, sizes[0], progress) as first,
        _open_all(server, sizes[1:], progress) as others,
    ):
        yield [first, *others]


if __name__ == "__main__":
    typer.run(bench_scale)
