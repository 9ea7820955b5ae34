"""Every name under which an adapter calls the outside, read from the code, also those given by variables."""

import ast
from collections.abc import Generator
from pathlib import Path
from typing import Final

ADAPTERS: Final = Path("src/darkroom/adapters")
PARTS: Final = 2


def _first_arguments(tree: ast.AST) -> Generator[str]:
    """Every text that some call gets first and that is a name as calls have them: `who.what`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "assert_no_transaction":
            continue  # names whoever asks, and calls nobody
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            parts = first.value.split(".")
            if len(parts) == PARTS and all(part.isidentifier() for part in parts):
                yield first.value


def _calls_outside(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("outside_call", "OwnProcesses")
        for node in ast.walk(tree)
    )


def _names() -> set[str]:
    found: set[str] = set()
    for path in sorted(ADAPTERS.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if _calls_outside(tree):
            names = set(_first_arguments(tree))
            # `processes` is told its name by those who use it.
            assert names or path.stem == "processes", f"{path} calls the outside by no name"
            found |= names
    return found


OUTSIDE_CALLS: Final = _names()
UNSPOKEN: Final = {
    "intake.look": "a process of ours that keeps nothing: it opens a file, and its owner's death is its own",
    "picture.apart": "as intake.look; test_picture_that_kills strikes it",
    "studio.render": "as intake.look; the studio is struck by the larger day's scripted provider",
    "storage.remove_unfinished": "a folder's alone, and here is a bucket; test_every_checkpoint strikes it",
    "kie.reask": "a question that changes nothing, before a photo whose links are dead is made again",
    "qstash.keys": "a doctor's question, which changes nothing",
    "qstash.schedules": "an operator's command, which sets the same schedules each time",
    "uploads.preflight": "a doctor's question, which changes nothing",
    "public.healthz": "a doctor's question, which changes nothing",
}
"""Calls that the story does not make, and why."""
