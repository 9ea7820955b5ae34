"""A run as Markdown, as it stands in the README: `python -m bench.written` puts the newest there.

The README's table is a copy of a file in `bench/results/`; a test holds them together.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.rivals.kills import BOUND_SECONDS
from bench.rivals.subjects import BY_NAME

RESULTS: Final = Path(__file__).parent / "results"
README: Final = Path(__file__).parent.parent / "README.md"
BEGIN: Final = "<!-- make bench wrote what follows: python -m bench.written -->"
END: Final = "<!-- until here -->"
KILLED_HEAD: Final = (
    "| a worker killed three times, another started at once | photos held | lost | bought twice "
    "| stored twice | seconds to the last that was held |"
)


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of one run."""
    repeats = len(content["rows"][0]["ours"])
    lines = [
        f"{content['at'][:10]}, {content['machine']}; fsync on; medians of {repeats} repeats in turns.",
        "",
        "| | ours | beside | ratio | wanted |",
        "| --- | --: | --: | --: | --: |",
        *(_row(row) for row in content["rows"]),
        "",
        "| | measured | wanted |",
        "| --- | --: | --: |",
        *(_figure(one) for one in content["figures"]),
    ]
    killed = content.get("killed", [])
    if killed:
        lines += [
            "",
            KILLED_HEAD,
            "| --- | --: | --: | --: | --: | --: |",
            *(_killed(one) for one in killed),
        ]
    if note := content.get("killed_note"):
        lines += ["", note]
    return "\n".join([*lines, ""])


def _row(row: Mapping[str, Any]) -> str:
    ours, beside = (statistics.median(row[side]) for side in ("ours", "beside"))
    ratio = f"{row['ratio']:.2f}"
    if row["ratio"] >= row["target"]:
        ratio = f"**{ratio}**"
    return (
        f"| {row['what']}, beside {row['beside_what']} | {ours:,.0f}{row['unit']} | {beside:,.0f} "
        f"| {ratio} | {row['target']:g} |"
    )


def _figure(one: Mapping[str, Any]) -> str:
    value = f"{one['value']:,.0f} {one['unit']}".rstrip()
    if one["at_most"] is not None:
        wanted = f"at most {one['at_most']:,.0f}"
    else:
        wanted = "" if one["at_least"] is None else f"at least {one['at_least']:,.0f}"
    note = f" ({one['note']})" if one["note"] else ""
    return f"| {one['what']}{note} | {value} | {wanted} |"


def _killed(one: Mapping[str, Any]) -> str:
    last = ", ".join(
        "-" if not count else f"over {BOUND_SECONDS}" if value is None else f"{value:.0f}"
        for count, value in zip(one["held"], one["last_seconds"], strict=True)
    )
    held = ", ".join(str(count) for count in one["held"])
    return (
        f"| {BY_NAME[one['name']].title} | {held} | {one['lost']} | {one['bought_twice']} | {one['doubled']} "
        f"| {last} |"
    )


def newest(results: Sequence[Path]) -> Path:
    """The newest whole run: its name is a day."""
    return max(path for path in results if len(path.stem) == len("2026-01-01"))


def put(readme: str, table: str) -> str:
    """The README with this table between the marks. Raises ValueError: there are no marks."""
    before, mark, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError("the README has no marks for the table")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


if __name__ == "__main__":
    source = newest(list(RESULTS.glob("*.json")))
    content: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    README.write_text(put(README.read_text(encoding="utf-8"), markdown(content)), encoding="utf-8")
    sys.stdout.write(f"{source.name} stands in the README\n")
