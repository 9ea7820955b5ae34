"""What a person sees while it runs, and the last lines: at 80 columns."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from darkroom.adapters.contact_sheet import make_contact_sheet
from darkroom.rehearsal.judge import Judgement
from darkroom.rehearsal.standing import Standing
from darkroom.rehearsal.town import Town
from darkroom.twin.hosting import Hosting

NAME_WIDTH: Final = 9


@dataclass(slots=True)
class Scene:
    """What there is to see now."""

    town: Town
    hosting: Hosting
    orders: int
    standing: Standing = field(default_factory=Standing)
    began: float = field(default_factory=time.monotonic)

    def draw(self) -> RenderableType:
        """Photos as a bar, and a line for each who takes part."""
        table = Table.grid(padding=(0, 1))
        table.add_column(width=NAME_WIDTH, style="bold")
        table.add_column()
        now = self.standing
        bar = Progress(TextColumn("{task.completed}/{task.total}"), BarColumn(44))
        bar.add_task("photos", total=now.photos_paid or 1, completed=now.photos)
        table.add_row("photos", bar)
        for name, told in self.lines():
            table.add_row(name, told)
        return table

    def lines(self) -> list[tuple[str, str]]:
        """Who takes part, and what they counted."""
        now, kie, queue = self.standing, self.town.kie, self.town.queue
        counted, told = self.hosting.counted, queue.counts
        killed = counted["killed in the middle"] + counted["killed at the limit"]
        ticks = counted["ticks"] + counted["ticks doubled"]
        return [
            (
                "orders",
                f"{now.sets_ended}/{self.orders} ended, {now.unknown} photos of unknown fate",
            ),
            (
                "host",
                (
                    f"{counted['calls']} calls, {counted['cold starts']} cold starts, "
                    f"{killed} killed in the middle"
                ),
            ),
            (
                "QStash",
                (
                    f"{told['published']} messages, {told['delivered']} delivered, "
                    f"{told['retried']} repeated"
                ),
            ),
            ("cron", f"{ticks} ticks, {counted['ticks missed']} missed"),
            (
                "kie.ai",
                (
                    f"{kie.tasks_created} tasks, {len(kie.callbacks)} callbacks, "
                    f"{kie.credits_spent:.0f} credits"
                ),
            ),
            ("faults", _told(self.faults()) or "none yet"),
        ]

    def faults(self) -> Counter[str]:
        """What went wrong on purpose, by who did it."""
        found: Counter[str] = Counter()
        found["kie.ai"] = self.town.kie.struck.total()
        found["QStash"] = self.town.queue.lots.struck.total()
        found["host"] = sum(
            self.hosting.counted[name]
            for name in ("killed in the middle", "killed at the limit", "died with another call")
        )
        return +found


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counted.most_common())


def write_photos(folder: Path, photos: Sequence[bytes]) -> None:
    """The photos and a sheet of them, in place of those of an earlier run."""
    if folder.exists():
        for old in folder.glob("*.jpg"):
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(photos, 1):
        (folder / f"{number:02}.jpg").write_bytes(data)
    if photos:
        (folder / "contact-sheet.jpg").write_bytes(make_contact_sheet(photos))


def show_end(
    console: Console, scene: Scene, judgement: Judgement, folder: Path, *, seconds: float
) -> None:
    """Who did what, and the one line that counts."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=NAME_WIDTH, style="bold")
    table.add_column()
    for name, told in scene.lines():
        table.add_row(name, told)
    console.print(table)
    for finding in judgement.report.findings:
        console.print(f"  [red]{finding.name}[/red]: {finding.promise} ({finding.count} rows)")
    for complaint in judgement.complaints:
        console.print(f"  [red]wrong:[/red] {complaint}")
    console.print(
        f"[bold]{judgement.photos}[/bold] photos and contact-sheet.jpg in [bold]{folder}/[/bold], "
        f"{seconds:.0f} s in all"
    )
    colour = "green" if judgement.is_clean else "red"
    console.print(
        f"photos {judgement.photos} · paid back {judgement.photos_paid_back} · provider tasks "
        f"{judgement.tasks_there}, wasted {judgement.tasks_wasted} · faults survived "
        f"{scene.faults().total()}\n[{colour}]audit {'clean' if judgement.is_clean else 'failed'}[/{colour}]: "
        f"{judgement.report.questions} questions to the database, {judgement.bytes_read} photos read and "
        "hashed, the bank's list and kie.ai's bill",
        soft_wrap=True,
    )
