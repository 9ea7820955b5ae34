"""`darkroom doctor`: every configured part, examined for real, and what to do about what is wrong."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from darkroom.config import Settings
from darkroom.edges.terminal import Wires, console, run, settings_or_exit
from darkroom.kit.log import configure_logging, get_logger
from darkroom.ports.checkup import Check, Finding, Grade, wrong

log = get_logger("edges")

CHECK_SECONDS: Final = 60
"""The slowest: an object store that answers each of its seven calls at the last moment, and retries."""
_MARKS: Final = {
    Grade.WELL: "[green]✓[/green]",
    Grade.DOUBTFUL: "[yellow]?[/yellow]",
    Grade.WRONG: "[red]✗[/red]",
}
_PART_WIDTH: Final = 18
_LEVEL_CRITICAL: Final = 50


def add_doctor(app: typer.Typer, wires: Wires) -> None:
    """The command."""

    @app.command("doctor")
    def doctor(
        *, as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False
    ) -> None:
        """Examine every configured part for real. Exit code 0: nothing is wrong. 1: something is."""
        settings = settings_or_exit()
        # What a part says of itself stands in its finding; log lines would only say it twice.
        configure_logging("console", level=_LEVEL_CRITICAL)
        raise typer.Exit(run(_examine_all(wires, settings, as_json=as_json)))


async def _examine_all(wires: Wires, settings: Settings, *, as_json: bool) -> int:
    findings: dict[str, Finding] = {}
    async with wires.open_checks(settings) as checks:
        for check in checks:
            findings[check.part] = await _examine(check)
            if not as_json:
                _show(check.part, findings[check.part])
    if as_json:
        plain = {
            part: {"grade": one.grade.value, "text": one.text, "advice": one.advice}
            for part, one in findings.items()
        }
        print(json.dumps(plain, ensure_ascii=False))  # noqa: T201 - for pipes
    else:
        _sum_up(list(findings.values()))
    return 1 if any(one.grade is Grade.WRONG for one in findings.values()) else 0


async def _examine(check: Check) -> Finding:
    """A check that breaks is a finding, too: the others still have their say."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.examine()
    except TimeoutError:
        return wrong(f"no verdict within {CHECK_SECONDS} s", "is it reachable from here?")
    except Exception as error:
        log.exception("check broke", part=check.part)
        return wrong(f"the check itself broke: {type(error).__name__}", "please report it")


def _show(part: str, finding: Finding) -> None:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=_PART_WIDTH)
    table.add_column()
    table.add_row(_MARKS[finding.grade], part, escape(finding.text))
    if finding.advice:
        table.add_row("", "", f"[dim]→ {escape(finding.advice)}[/dim]")
    console.print(table)


def _sum_up(findings: Sequence[Finding]) -> None:
    bad = sum(one.grade is Grade.WRONG for one in findings)
    odd = sum(one.grade is Grade.DOUBTFUL for one in findings)
    if bad:
        console.print(f"[red]{bad} wrong[/red], {odd} doubtful, of {len(findings)} parts")
    elif odd:
        console.print(f"[yellow]{odd} doubtful[/yellow] of {len(findings)} parts, none wrong")
    else:
        console.print(f"[green]all well:[/green] {len(findings)} parts")
