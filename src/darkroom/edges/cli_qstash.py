"""`darkroom qstash`: QStash as the clock of hosting that has none."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

import typer
from rich.table import Table

from darkroom.edges.terminal import Wires, console, fail, run, settings_or_exit
from darkroom.ports.schedules import Schedule, Schedules, SchedulesUnavailableError

T = TypeVar("T")
POLL_CRON: Final = "*/2 * * * *"
SWEEP_CRON: Final = "*/15 * * * *"
"""Together 816 messages a day: the free plan has 1000, and the rest is for rings (external-apis 2.6)."""
POLL_ID: Final = "darkroom-poll"
SWEEP_ID: Final = "darkroom-sweep"
PATHS: Final = {POLL_ID: "/api/cron/poll-kie-tasks", SWEEP_ID: "/api/cron/sweep"}


def qstash_cli(wires: Wires) -> typer.Typer:
    """The commands."""
    qstash = typer.Typer(help="QStash, the queue outside.", no_args_is_help=True)
    schedules = typer.Typer(help="QStash as our clock.", no_args_is_help=True)
    qstash.add_typer(schedules, name="schedules")

    @schedules.command("install")
    def install(
        poll_cron: Annotated[str, typer.Option(help="when photos move on")] = POLL_CRON,
        sweep_cron: Annotated[str, typer.Option(help="when the house is swept")] = SWEEP_CRON,
    ) -> None:
        """Have QStash call both rounds. Again overwrites: there are never more than two."""
        crons = {POLL_ID: poll_cron, SWEEP_ID: sweep_cron}

        async def work(clock: Schedules) -> None:
            for schedule_id, cron in crons.items():
                await clock.install(schedule_id, path=PATHS[schedule_id], cron=cron)

        _with_schedules(wires, work)
        for schedule_id, cron in crons.items():
            console.print(f"{schedule_id}: {cron}")

    @schedules.command("list")
    def list_schedules() -> None:
        """Every schedule of the account, also those that are not ours."""
        found = _with_schedules(wires, lambda clock: clock.list())
        console.print(_table(found) if found else "no schedules")

    @schedules.command("remove")
    def remove() -> None:
        """Have QStash call the rounds no more. Other schedules of the account stay."""

        async def work(clock: Schedules) -> list[str]:
            return [schedule_id for schedule_id in PATHS if await clock.remove(schedule_id)]

        gone = _with_schedules(wires, work)
        console.print(f"removed: {', '.join(gone)}" if gone else "there were none of ours")

    return qstash


def _with_schedules(wires: Wires, work: Callable[[Schedules], Awaitable[T]]) -> T:
    settings = settings_or_exit()
    if settings.qstash_token is None:
        fail("QSTASH_TOKEN is not set", code=2)

    async def main() -> T:
        async with wires.open_schedules(settings) as clock:
            return await work(clock)

    try:
        return run(main())
    except SchedulesUnavailableError as error:
        fail(f"QStash: {error}")


def _table(found: list[Schedule]) -> Table:
    table = Table("schedule", "cron", "calls", "next", box=None)
    for schedule in found:
        moment = "" if schedule.next_at is None else f"{schedule.next_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            schedule.id, schedule.cron, schedule.url, "paused" if schedule.is_paused else moment
        )
    return table
