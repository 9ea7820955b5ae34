"""What a person sees while it runs, and the last lines."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from darkroom.torture.design import Standing, Verdict
from darkroom.torture.recovery import percentile

COMPLAINTS_SHOWN: Final = 12


@dataclass(slots=True)
class Scene:
    """What there is to see now."""

    design: str
    seed: int
    seconds: float
    orders: int
    began: float = field(default_factory=time.monotonic)
    phase: str = "preparing"
    ordered: int = 0
    standing: Standing = field(default_factory=lambda: Standing(0, 0, 0))
    workers: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])

    def begin(self, phase: str, seconds: float) -> None:
        """A new bar."""
        self.phase, self.seconds, self.began = phase, seconds, time.monotonic()

    def draw(self) -> RenderableType:
        """A small table: it fits into 80 columns."""
        passed = min(time.monotonic() - self.began, self.seconds)
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %")
        )
        bar.add_task(self.phase, total=self.seconds, completed=int(passed))
        table = Table.grid(padding=(0, 2))
        table.add_row(bar)
        table.add_row(
            f"orders [bold]{self.ordered}[/bold]/{self.orders}  sets ended "
            f"[bold]{self.standing.jobs_ended}[/bold]  photos [bold]{self.standing.photos}[/bold]  "
            f"open rows {self.standing.open_work}  workers alive {self.workers}"
        )
        for place, kinds in _by_place(self.faults).items():
            table.add_row(f"  {kinds.total():>6}  {place}")
        return table


def show_faults(console: Console, faults: Counter[str]) -> None:
    """Everything that went wrong on purpose, a line for each place."""
    table = Table(
        title="what went wrong, on purpose", title_justify="left", box=None, show_header=False
    )
    for place, kinds in _by_place(faults).items():
        told = ", ".join(f"{kind} {times}" for kind, times in kinds.most_common())
        table.add_row(f"{kinds.total():>6}", place, told)
    console.print(table)


def _by_place(faults: Counter[str]) -> dict[str, Counter[str]]:
    """`place: kind` becomes a place and its kinds; the largest place first."""
    places: dict[str, Counter[str]] = {}
    for name, times in faults.items():
        place, _, kind = name.partition(": ")
        places.setdefault(place, Counter())[kind.replace("_", " ")] += times
    return dict(sorted(places.items(), key=lambda one: -one[1].total()))


def show_recovery(
    console: Console, after_kill: list[float], after_restart: list[float], promised_seconds: float
) -> None:
    """How soon interrupted work went on, beside what is promised."""
    for name, values in (
        ("a worker's death", after_kill),
        ("the database's return", after_restart),
    ):
        if values:
            console.print(
                f"work goes on after {name}: p50 {percentile(values, 0.5):.1f} s, "
                f"p99 {percentile(values, 0.99):.1f} s, max {max(values):.1f} s of "
                f"{promised_seconds:.0f} promised ({len(values)} times)",
                soft_wrap=True,
            )


def show_rented(console: Console, *, queue: Counter[str], store: Counter[str]) -> None:
    """How much went through the queue and the store."""
    console.print(
        f"queue: {queue['published']} rings published, {queue['delivered']} delivered, "
        f"{queue['retried']} repeated, {queue['dlq']} given up · store: {store['PUT']} puts, "
        f"{store['GET']} reads",
        soft_wrap=True,
    )


def show_spending(console: Console, *, tasks: int, photos: int) -> None:
    """What the unreliable provider cost beyond the photos."""
    console.print(
        f"provider tasks {tasks}: {tasks - photos} more than photos (lost answers, failures there)"
    )


def show_verdict(console: Console, verdict: Verdict, *, orders: int, faults: int) -> None:
    """The complaints, if there are any, and the one line that counts."""
    for name, complaints in (
        ("lost", verdict.lost),
        ("doubled", verdict.doubled),
        ("unexplained", verdict.unexplained),
    ):
        counted = Counter(complaints)
        for text, times in list(counted.items())[:COMPLAINTS_SHOWN]:
            console.print(
                f"  [red]{name}[/red] {f'{times} x ' if times > 1 else ''}{text}", soft_wrap=True
            )
        if len(counted) > COMPLAINTS_SHOWN:
            console.print(f"  [red]{name}[/red] ... and {len(counted) - COMPLAINTS_SHOWN} more")
    if verdict.returned_minor or verdict.with_a_person:
        console.print(
            f"money back {verdict.returned_minor / 100:.2f} RUB by the bank's own books · refused for good "
            f"and with a person {verdict.with_a_person} · lines reconciled {verdict.lines_reconciled}",
            soft_wrap=True,
        )
    colour = "green" if verdict.clean else "red"
    met = "survived" if verdict.clean else "met"
    paid_back = f" ({verdict.paid_back} paid back)" if verdict.paid_back else ""
    console.print(
        f"orders {orders} · photos {verdict.photos}{paid_back} · faults {met} {faults} · "
        f"[{colour}]lost {len(verdict.lost)} · doubled {len(verdict.doubled)} · "
        f"unexplained {len(verdict.unexplained)}[/{colour}]",
        soft_wrap=True,
    )
