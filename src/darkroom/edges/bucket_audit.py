"""`darkroom audit --bucket`: the stored bytes against their rows, for a person or a machine."""

import dataclasses
import json
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom.config import Settings
from darkroom.edges.terminal import Wires, console, errors, run
from darkroom.flow.check_bucket import BucketReport, audit_bucket
from darkroom.flow.check_bucket import Progress as Looked
from darkroom.kit.log import configure_logging


def audit_stored_bytes(
    wires: Wires, settings: Settings, *, limit: int | None, as_json: bool
) -> int:
    """Look, tell, and give the exit code: 0 nothing is missing or other; 1 something is, or was not read."""
    # What is found is the output; the log is for what goes wrong beside it.
    configure_logging(settings.log_shape, level=logging.CRITICAL)
    report = run(_look(wires, settings, limit, with_bar=not as_json))
    if as_json:
        told = {"clean": report.clean, **dataclasses.asdict(report)}
        print(json.dumps(told, ensure_ascii=False, default=str))  # noqa: T201 - for pipes
    else:
        show_bucket(report)
    return 0 if report.clean else 1


async def _look(
    wires: Wires, settings: Settings, limit: int | None, *, with_bar: bool
) -> BucketReport:
    async with wires.open_darkroom(settings) as darkroom:
        with _bar(shown=with_bar) as report:
            return await audit_bucket(darkroom, limit=limit, report=report)


@contextmanager
def _bar(*, shown: bool) -> Generator[Callable[[Looked], None]]:
    """A bar while photos are read; gone at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not shown) as progress:
        bar = progress.add_task("photos read", total=None)

        def report(looked: Looked) -> None:
            progress.update(bar, completed=looked.checked, total=looked.of)

        yield report


def show_bucket(report: BucketReport) -> None:
    """What was read, what is known to be wrong, and how far the rolling check is, at 80 columns."""
    since = report.oldest_check_at
    seen = "" if since is None else f", the others since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    console.print(
        f"photos read now [bold]{report.checked}[/bold] of {report.photos}; "
        f"never read {report.never_checked}{seen}"
    )
    if report.rows:
        console.print(_table(report))
    if report.findings > len(report.rows):
        console.print(f"... and {report.findings - len(report.rows)} more")
    if report.failure is not None:
        console.print(f"[red]not read to the end:[/red] {escape(report.failure)}")
    if report.clean:
        console.print("[green]bucket clean:[/green] no photo is known to be missing or other")
    elif report.findings:
        console.print(
            f"[red]bucket audit failed:[/red] {report.findings} photos; see docs/runbook.md"
        )


def _table(report: BucketReport) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("photo", "payment", "what", "key"):
        table.add_column(name, overflow="fold")
    for row in report.rows:
        table.add_row(
            str(row["photo_id"]),
            str(row["payment_id"]),
            str(row["finding"]).replace("_", " "),
            escape(str(row["object_key"])),
        )
    return table
