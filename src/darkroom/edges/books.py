"""`darkroom reconcile`, `differences`, `evidence`: what a person looks at when somebody asks about money."""

import dataclasses
import hashlib
import json
import logging
import secrets
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom.config import Settings
from darkroom.core.differences import Difference
from darkroom.edges.evidence_page import evidence_html, evidence_json, verdict
from darkroom.edges.terminal import Wires, console, errors, fail, run, say_if_cut, settings_or_exit
from darkroom.flow.gather_evidence import Evidence, gather_evidence
from darkroom.flow.reconcile import (
    DAYS,
    DAYS_MAX,
    GRACE_SECONDS,
    LIST_MAX,
    Look,
    Reconciled,
    close_by_hand,
    read_differences,
    reconcile,
)
from darkroom.flow.reconcile import Progress as Read
from darkroom.kit.log import configure_logging
from darkroom.ports.money import Money

GRACE_MINUTES: Final = GRACE_SECONDS // 60
_COLUMNS: Final[dict[str, Literal["left", "right"]]] = {
    "id": "right",
    "what": "left",
    "their id": "left",
    "payment": "right",
    "ours": "right",
    "theirs": "right",
}


class NoProviderError(Exception):
    """There is nobody whose list could be read; the text is the line to be shown."""


def add_books(app: typer.Typer, wires: Wires) -> None:
    """The commands about money, on the command line."""
    _add_reconcile(app, wires)
    _add_evidence(app, wires)
    app.add_typer(_differences(wires), name="differences")


def _quiet(settings: Settings) -> None:
    """What these commands find is their output; the log is for what goes wrong beside it."""
    configure_logging(settings.log_shape, level=logging.CRITICAL)


def _add_reconcile(app: typer.Typer, wires: Wires) -> None:
    @app.command("reconcile")
    def reconcile_books(
        days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="how far back")] = DAYS,
        provider: Annotated[
            str | None, typer.Option(help="one way to pay; none given: all that are configured")
        ] = None,
        grace_minutes: Annotated[
            float, typer.Option(min=0, max=1440, help="younger moves are not judged yet")
        ] = GRACE_MINUTES,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    ) -> None:
        """Our ledger against the payment provider's own list. Exit code 0: nothing differs. 1: not so."""
        settings = settings_or_exit()
        _quiet(settings)
        look = Look(days=days, grace_seconds=grace_minutes * 60)
        try:
            done = run(_reconcile(wires, settings, provider, look, with_bar=not as_json))
        except NoProviderError as error:
            fail(str(error), code=2)
        if as_json:
            print(json.dumps(_plain(done), ensure_ascii=False, default=str))  # noqa: T201 - for pipes
        else:
            show_reconciled(done)
        sys.exit(0 if all(one.clean for one in done) else 1)


def _add_evidence(app: typer.Typer, wires: Wires) -> None:
    @app.command("evidence")
    def evidence(
        payment: Annotated[int, typer.Argument(min=1, help="the payment's number")],
        folder: Annotated[Path, typer.Option(help="where the two files go")] = Path("evidence"),
    ) -> None:
        """Everything of one order, for a dispute: a page for people and a file for machines."""
        settings = settings_or_exit()
        _quiet(settings)
        found = run(_evidence(wires, settings, payment))
        for path in write_evidence(found, folder):
            console.print(f"written: [bold]{escape(str(path))}[/bold]", soft_wrap=True)
        console.print(verdict(found))


async def _evidence(wires: Wires, settings: Settings, payment_id: int) -> Evidence:
    async with wires.open_darkroom(settings) as darkroom:
        return await gather_evidence(darkroom, payment_id)


def write_evidence(evidence: Evidence, folder: Path) -> tuple[Path, Path]:
    """Both files, each whole or not there. They name a customer: nobody but their owner reads them."""
    name = f"evidence-{evidence.record.payment['id']}"
    content = evidence_json(evidence)
    page = evidence_html(
        evidence,
        json_name=f"{name}.json",
        json_sha256=hashlib.sha256(content.encode()).hexdigest(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / f"{name}.json", folder / f"{name}.html")
    for path, text in zip(files, (content, page), strict=True):
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600, exist_ok=False)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    return files


def _plain(done: Sequence[Reconciled]) -> dict[str, object]:
    return {
        "clean": all(one.clean for one in done),
        "providers": [{"clean": one.clean, **dataclasses.asdict(one)} for one in done],
    }


async def _reconcile(
    wires: Wires, settings: Settings, provider: str | None, look: Look, *, with_bar: bool
) -> list[Reconciled]:
    async with wires.open_darkroom(settings) as darkroom:
        names = list(darkroom.payments) if provider is None else [provider]
        if not darkroom.payments:
            raise NoProviderError("no payment provider is configured: there is no list to read")
        if provider is not None and provider not in darkroom.payments:
            known = ", ".join(darkroom.payments)
            raise NoProviderError(f"no payment provider {provider} is configured, only {known}")
        with _reading_bar(shown=with_bar) as report:
            return [await reconcile(darkroom, name, look, report=report) for name in names]


@contextmanager
def _reading_bar(*, shown: bool) -> Generator[Callable[[Read], None]]:
    """A bar a provider while its pages come in; gone at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[lines]} lines"),
        TimeElapsedColumn(),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=errors, transient=True, disable=not shown) as progress:

        def report(read: Read) -> None:
            if read.provider not in bars:
                bars[read.provider] = progress.add_task(read.provider, total=1, lines=0)
            progress.update(bars[read.provider], completed=read.share, lines=read.lines)

        yield report


def show_reconciled(done: Sequence[Reconciled]) -> None:
    """What each list said, and every difference that is open, at 80 columns."""
    for one in done:
        console.print(
            f"[bold]{one.provider}[/bold]: {one.lines} lines, "
            f"{_minute(one.since)} to {_minute(one.until)} UTC"
        )
        console.print(f"  differences: {one.found} found, {one.closed} gone, {one.open} open")
        if one.failure is not None:
            console.print(f"  [red]{escape(one.failure)}[/red]; nothing was closed")
        if one.differences:
            console.print(difference_table(one.differences))
        if one.open > len(one.differences):
            console.print(f"... and {one.open - len(one.differences)} more")
    if all(one.clean for one in done):
        console.print("[green]reconciled:[/green] nothing differs")
    elif any(one.open for one in done):
        console.print("[red]not reconciled:[/red] docs/runbook.md says what to do about each kind")
    else:
        console.print("[red]not reconciled:[/red] not every list was read to its end")


def difference_table(differences: Sequence[Difference]) -> Table:
    """Open differences, one a row."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in _COLUMNS.items():
        table.add_column(name, justify=justify, overflow="fold")
    for one in differences:
        table.add_row(
            str(one.id),
            f"{one.kind.replace('_', ' ')}\n"
            f"[dim]{escape(one.provider)}, {one.first_seen_at.astimezone(UTC):%d %b}[/dim]",
            escape(one.subject),
            _or_dash(one.payment_id),
            _amount(one.ours_minor, one.ours_currency),
            _amount(one.theirs_minor, one.currency),
        )
    return table


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _amount(minor: int | None, currency: str | None) -> str:
    if minor is None or currency is None:
        return _or_dash(minor)
    return str(Money(minor, currency))


def _differences(wires: Wires) -> typer.Typer:
    differences = typer.Typer(
        help="What our ledger and a provider's say differently.", no_args_is_help=True
    )

    @differences.callback()
    def about() -> None:
        """What our ledger and a provider's say differently."""

    @differences.command("list")
    def list_open() -> None:
        """Every open difference, oldest first."""
        found = run(_list_differences(wires, settings_or_exit()))
        console.print(difference_table(found[:LIST_MAX]) if found else "no differences")
        say_if_cut(found, LIST_MAX)

    @differences.command("close")
    def close(
        difference: Annotated[int, typer.Argument(min=1, help="its number")],
        note: Annotated[str, typer.Option(help="what was done about it")],
    ) -> None:
        """Say that a difference was dealt with, and how. If it still differs, the next look opens a new one."""
        settings = settings_or_exit()
        _quiet(settings)
        if not note.strip():
            fail("say with --note what was done about it", code=2)
        if not run(_close(wires, settings, difference, note.strip())):
            fail(f"no open difference {difference}")
        console.print(f"difference {difference} closed")

    return differences


async def _list_differences(wires: Wires, settings: Settings) -> list[Difference]:
    async with wires.open_darkroom(settings) as darkroom:
        return await read_differences(darkroom)


async def _close(wires: Wires, settings: Settings, difference_id: int, note: str) -> bool:
    async with wires.open_darkroom(settings) as darkroom:
        return await close_by_hand(darkroom, difference_id, note=note)
