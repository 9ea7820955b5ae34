"""Print docs/flow.md from core/lifecycle.py."""

import sys

from darkroom.core.lifecycle import MOVES, STATUSES, TABLES
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS


def print_flow() -> str:
    """The page: one state picture a machine, then every status and every move."""
    lines = [
        "# The flow",
        "",
        "Printed from `core/lifecycle.py` by `make flow`; a test fails when this page differs.",
        "",
        "The steps, in the order a payment takes them: "
        + ", ".join(f"`{step.name}`" for step in (*WORK_STEPS, *HOUSE_STEPS))
        + ".",
        "",
    ]
    for kind, table in TABLES.items():
        lines += [f"## {kind} (`{table}`)", "", "```mermaid", "stateDiagram-v2"]
        for move in MOVES:
            if move.kind == kind:
                source = "[*]" if move.source == "new" else move.source
                lines.append(f"    {source} --> {move.target}")
        lines += ["```", "", "| status | longest stay | meaning |", "| --- | --- | --- |"]
        for status in STATUSES:
            if status.kind == kind:
                lines.append(
                    f"| {status.name} | {_stay(status.longest_stay_seconds)} | {status.meaning} |"
                )
        lines += ["", "| move | when | made by |", "| --- | --- | --- |"]
        for move in MOVES:
            if move.kind == kind:
                made_by = ", ".join(f"`flow/{name}.py`" for name in move.by.split()) or "nobody yet"
                lines.append(f"| {move.source} → {move.target} | {move.when} | {made_by} |")
        lines.append("")
    return "\n".join(lines)


def _stay(seconds: int | None) -> str:
    if seconds is None:
        return "for ever"
    for size, word in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds % size == 0 and seconds >= 2 * size:
            return f"{seconds // size} {word}"
    return f"{seconds // 60} minutes"


if __name__ == "__main__":
    sys.stdout.write(print_flow())
