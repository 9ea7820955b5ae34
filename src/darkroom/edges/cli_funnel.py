"""`darkroom funnel`: how many people opened, uploaded, chose, paid and got, and how many of whom."""

import dataclasses
import json
from typing import Annotated, Final

import typer
from rich.table import Table

from darkroom.config import Settings
from darkroom.core.funnel import DAYS_MAX, STEPS, Cohort, Funnel, FunnelDay, read_funnel
from darkroom.edges.terminal import Wires, console, run, settings_or_exit

BAR_LETTERS: Final = 40
"""With the longest count and percentages a line has 77 letters."""


def add_funnel(app: typer.Typer, wires: Wires) -> None:
    """Put the command on the line."""

    @app.command("funnel")
    def funnel(
        days: Annotated[
            int, typer.Option(min=1, max=DAYS_MAX, help="UTC days, today's included")
        ] = 30,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    ) -> None:
        """How far people come: first times by day, and the share of new people that took each step."""
        found = run(_read(wires, settings_or_exit(), days))
        if as_json:
            print(json.dumps(plain_funnel(found), default=str))  # noqa: T201 - for pipes
        else:
            show_funnel(found)


async def _read(wires: Wires, settings: Settings, days: int) -> Funnel:
    async with wires.open_database(settings) as database, database.connection() as tx:
        return await read_funnel(tx, days=days)


def plain_funnel(funnel: Funnel) -> dict[str, object]:
    """For machines: every day, the sums of the days, and what became of the people who opened within them."""
    return {
        "days": [dataclasses.asdict(day) for day in funnel.days],
        "totals": _totals(funnel),
        "cohort": dataclasses.asdict(funnel.cohort),
    }


def show_funnel(funnel: Funnel) -> None:
    """For people, at 80 columns. Days on which nobody did anything are left out."""
    console.print(_days(funnel))
    console.print()
    console.print(_cohort(funnel.cohort, len(funnel.days)))


def _counts(line: FunnelDay | Cohort) -> tuple[int, ...]:
    return (line.opened, line.uploaded, line.chose, line.paid, line.got)


def _totals(funnel: Funnel) -> dict[str, int]:
    columns = zip(*(_counts(day) for day in funnel.days), strict=True)
    return dict(zip(STEPS, (sum(column) for column in columns), strict=True))


def _days(funnel: Funnel) -> Table:
    table = Table(
        title="first times, by UTC day",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        show_footer=True,
    )
    totals = _totals(funnel)
    table.add_column("day", footer="all", no_wrap=True)
    for step in STEPS:
        table.add_column(step, str(totals[step]), justify="right")
    for day in funnel.days:
        if any(_counts(day)):
            table.add_row(f"{day.day:%Y-%m-%d}", *(str(count) for count in _counts(day)))
    return table


def _cohort(cohort: Cohort, days: int) -> Table:
    """Of those who opened; and of those who took the step before."""
    table = Table(
        title=f"of the people who first opened in these {days} days",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for head in ("step", "people", "of all", "of last"):
        table.add_column(head, justify="left" if head == "step" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    counts = _counts(cohort)
    for step, count, before in zip(STEPS, counts, (cohort.opened, *counts), strict=False):
        letters = round(BAR_LETTERS * count / cohort.opened) if cohort.opened else 0
        table.add_row(
            step,
            str(count),
            _percent(count, cohort.opened),
            _percent(count, before),
            # Nobody is no bar; somebody is at least a sliver.
            "█" * letters if letters or not count else "▏",
        )
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"
