"""What a run has measured: rows of ours beside something else, as ratios of medians, shown and kept."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results"
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH = 360, 22, 300


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. Each list holds one figure a repetition, the two sides taken in turns.

    Attributes:
        target: the ratio (ours / beside) that we want to reach at least.
    """

    what: str
    beside_what: str
    unit: str
    ours: tuple[float, ...]
    beside: tuple[float, ...]
    target: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Median of the repetitions' own ratios: a slow minute slows both sides."""
        return statistics.median(
            mine / other for mine, other in zip(self.ours, self.beside, strict=True)
        )

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest of those ratios."""
        ratios = [mine / other for mine, other in zip(self.ours, self.beside, strict=True)]
        return min(ratios), max(ratios)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure that stands beside nothing but what we want of it.

    Attributes:
        at_most: what it should not exceed; None: nothing is wanted.
        at_least: what it should reach; None: nothing is wanted.
    """

    what: str
    unit: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def wanted(self) -> str:
        """What is wanted, in words; empty where nothing is."""
        if self.at_most is not None:
            return f"at most {self.at_most:,.0f}"
        return "" if self.at_least is None else f"at least {self.at_least:,.0f}"

    @property
    def reached(self) -> bool:
        """Whether it is what is wanted of it."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def machine() -> str:
    """What the figures are of."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"


def show(rows: Sequence[Row], figures: Sequence[Figure], console: Console) -> None:
    """Both tables, at 80 columns: what stands beside something, and what stands alone."""
    _show_rows(rows, console)
    if not figures:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("wanted", justify="right")
    for one in figures:
        colour = "green" if one.reached else "yellow"
        note = f"\n[dim]{one.note}[/dim]" if one.note else ""
        value = f"{one.value:,.0f} {one.unit}".rstrip()
        table.add_row(f"{one.what}{note}", f"[{colour}]{value}[/{colour}]", one.wanted)
    console.print()
    console.print(table)


def _show_rows(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("what", "left"),
        ("ours", "right"),
        ("beside", "right"),
        ("ratio", "right"),
    ):
        table.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType] - the two words it knows
    for row in rows:
        low, high = row.spread
        reached = "" if row.ratio >= row.target else f" (wanted {row.target:.2f})"
        table.add_row(
            f"{row.what}\n[dim]beside {row.beside_what}[/dim]",
            f"{statistics.median(row.ours):,.0f} {row.unit}",
            f"{statistics.median(row.beside):,.0f}",
            f"[bold]{row.ratio:.2f}[/bold]{reached}\n[dim]{low:.2f} to {high:.2f}[/dim]",
        )
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"[dim]{row.what}: {row.note}[/dim]")


def keep(
    rows: Sequence[Row],
    figures: Sequence[Figure] = (),
    *,
    part: str = "",
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write the run as JSON and as a picture; gives the picture's path.

    Args:
        rows: the table.
        figures: what stands beside nothing.
        part: of a whole bench: kept under the day and this name.
        more: what is no row, for the JSON.
    """
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC)
    content = {
        "at": at.isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "figures": [asdict(figure) for figure in figures],
        **(more or {}),
    }
    name = f"{at:%Y-%m-%d}{part and '-'}{part}"
    (RESULTS / f"{name}.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    picture = RESULTS / f"{name}.svg"
    picture.write_text(draw(rows, f"{at:%Y-%m-%d}, {machine()}"), encoding="utf-8")
    return picture


def draw(rows: Sequence[Row], title: str) -> str:
    """A bar a row: how much of what stands beside it ours reaches, and where the target is."""
    longest = max([1.0, *(max(row.ratio, row.target) for row in rows)])
    width, height = LABEL_WIDTH + BAR_WIDTH + 80, 50 + len(rows) * 2 * BAR_HEIGHT
    parts = [
        _opening(width, height),
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="24" font-weight="bold">Ours beside the limit ({escape(title)})</text>',
    ]
    for number, row in enumerate(rows):
        top = 44 + number * 2 * BAR_HEIGHT
        bar, goal = (BAR_WIDTH * value / longest for value in (row.ratio, row.target))
        parts += [
            f'<text x="10" y="{top + 15}">{escape(row.what)}</text>',
            f'<text x="10" y="{top + 31}" fill="#666" font-size="11">beside {escape(row.beside_what)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{bar:.0f}" height="{BAR_HEIGHT}" fill="#8a4b08"/>',
            _goal_line(LABEL_WIDTH + goal, top),
            f'<text x="{LABEL_WIDTH + bar + 6:.0f}" y="{top + 16}">{row.ratio:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _opening(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">'
    )


def _goal_line(x: float, top: int) -> str:
    return (
        f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 3}" y2="{top + BAR_HEIGHT + 3}" '
        'stroke="#111" stroke-dasharray="3 2"/>'
    )
