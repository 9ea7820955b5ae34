"""`darkroom spend`: what became of each attempt at a provider, and what it cost."""

import dataclasses
import json
from typing import Annotated, Final

import typer
from rich.table import Table

from darkroom.config import Settings
from darkroom.core.credits import Reading
from darkroom.core.spend import SpendLine
from darkroom.edges.terminal import Wires, console, run, settings_or_exit
from darkroom.flow.read_balances import read_last_balances, read_ledger

COLUMNS: Final = {"tries": "attempts"} | {
    name: name for name in ("photos", "adopted", "wasted", "lost", "refused", "failed", "open")
}
"""Heads of the table, and the ledger's own names."""
Balances = list[tuple[Reading, float]]


def add_spend(app: typer.Typer, wires: Wires) -> None:
    """Put the command on the line."""

    @app.command("spend")
    def spend(
        days: Annotated[int, typer.Option(min=1, max=400, help="UTC days, today's included")] = 7,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    ) -> None:
        """What the providers took: photos, waste, lost answers, and credits, by day and model."""
        lines, balances = run(_read(wires, settings_or_exit(), days))
        if as_json:
            print(json.dumps(plain_spend(lines, balances), default=str))  # noqa: T201 - for pipes
        else:
            show_spend(lines, balances)


async def _read(wires: Wires, settings: Settings, days: int) -> tuple[list[SpendLine], Balances]:
    async with wires.open_darkroom(settings) as darkroom:
        return await read_ledger(darkroom, days=days), await read_last_balances(darkroom)


def plain_spend(lines: list[SpendLine], balances: Balances) -> dict[str, object]:
    """For machines: every line, and each account's last reading."""
    return {
        "lines": [dataclasses.asdict(line) for line in lines],
        "balances": [
            dataclasses.asdict(reading) | {"unexplained_last_day": unexplained}
            for reading, unexplained in balances
        ],
    }


def show_spend(lines: list[SpendLine], balances: Balances) -> None:
    """For people, at 80 columns."""
    if not lines:
        console.print("no attempts")
    for name in sorted({_name_of(line) for line in lines}):
        console.print(_table(name, [line for line in lines if _name_of(line) == name]))
    if lines:
        console.print(
            "credits: of photos / wasted / at most so many, of tasks whose cost nobody knows"
        )
    for reading, unexplained in balances:
        verdict = (
            f"[red]{unexplained:g} of the last day unexplained[/red]"
            if unexplained
            else "[green]all explained[/green]"
        )
        console.print(
            f"{reading.account}: {reading.credits_left:g} credits left "
            f"at {reading.read_at:%m-%d %H:%M}, {verdict}"
        )


def _name_of(line: SpendLine) -> str:
    return line.provider.partition(":")[0] + ("" if line.model is None else f" {line.model}")


def _table(name: str, lines: list[SpendLine]) -> Table:
    """One provider's model at 80 columns. Credits: of photos / of waste / at most, of what nobody knows."""
    table = Table(
        title=name, title_justify="left", box=None, padding=(0, 1, 0, 0), show_footer=True
    )
    counts = [tuple(getattr(line, column) for column in COLUMNS.values()) for line in lines]
    credit_sums = (
        sum(line.credits_photos for line in lines),
        sum(line.credits_wasted for line in lines),
        sum(line.credits_unknown for line in lines),
    )
    table.add_column("day", footer="all", no_wrap=True)
    for place, head in enumerate(COLUMNS):
        table.add_column(head, str(sum(row[place] for row in counts)), justify="right")
    table.add_column("credits", _slashed(*credit_sums), justify="right")
    for line, row in zip(lines, counts, strict=True):
        table.add_row(
            f"{line.day:%m-%d}",
            *(str(count) for count in row),
            _slashed(line.credits_photos, line.credits_wasted, line.credits_unknown),
        )
    return table


def _slashed(*amounts: float) -> str:
    return "/".join(f"{amount:.10g}" for amount in amounts)
