"""Every place where a crash can strike, read from the code: nothing here is written down by hand twice.

- each `checkpoint("name")`: the process vanishes there;
- each `outside_call("name")` of an adapter: it vanishes before the call, or before its answer is used;
- each transaction and each statement of a flow: it vanishes before the commit or right after it, or it lives
  on with an error: the connection was lost before the commit (undone) or after it (done, and nobody said so).
"""

import ast
import inspect
import re
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Final

SOURCE: Final = Path("src/darkroom")
_CHECKPOINT: Final = re.compile(r"""checkpoint\(\s*["']([a-z_.]+)["']\s*\)""")
_OUTSIDE: Final = re.compile(r"""outside_call\(\s*["']([a-z_.]+)["']""")
BEFORE_COMMIT: Final = "database.before_commit"
DONE: Final = "database.done"
_WAYS: Final = {"connection": False, "statement": False, "transaction": True, "settle": True}
"""The ways to the database, and whether there is a moment between the work and the commit. A statement has one
only behind a pooler without sessions."""


class Form(Enum):
    """What happens at a place."""

    VANISH = "vanish"
    """The process stands still for good; the server drops its connections."""
    UNDONE = "undone"
    """The connection is lost before the commit: an error, and nothing was kept."""
    UNHEARD = "unheard"
    """The commit is done and its acknowledgement lost: an error, and everything was kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place and one form of going wrong there."""

    checkpoint: str
    form: Form
    site: str = ""

    def __str__(self) -> str:
        """The id of the case."""
        where = f"{self.site}:{self.checkpoint}" if self.site else self.checkpoint
        return f"{where}:{self.form.value}"


def _literals(pattern: re.Pattern[str]) -> list[str]:
    found = {name for path in SOURCE.rglob("*.py") for name in pattern.findall(path.read_text())}
    return sorted(found - {BEFORE_COMMIT, DONE})


CHECKPOINTS: Final = _literals(_CHECKPOINT)
OUTSIDE_CALLS: Final = _literals(_OUTSIDE)


def _calls(tree: ast.AST, name: str = "") -> Generator[tuple[str, str]]:
    """(qualified name of the function, way to the database) of every use in it."""
    for child in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(child, ast.ClassDef):
            inner = f"{name}{child.name}."
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{name}{child.name}.<locals>."
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            base = child.func.value
            of = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if child.func.attr in _WAYS and of.lstrip("_") == "database":
                yield name.removesuffix(".<locals>."), child.func.attr
        yield from _calls(child, inner)


def _sites() -> dict[str, bool]:
    """Every function of a flow that goes to the database, and whether it does so in a transaction."""
    found: dict[str, bool] = {}
    for path in sorted((SOURCE / "flow").glob("*.py")):
        for function, way in _calls(ast.parse(path.read_text())):
            site = f"{path.stem}.{function.replace('.<locals>', '')}"
            found[site] = found.get(site, False) or _WAYS[way]
    return found


SITES: Final = _sites()


UNSPOKEN: Final = {
    "qstash.schedules": "a person's command, and setting it twice is setting it once",
    "download.fetch": "kie.ai's own; here a scripted provider stands between the same two checkpoints",
    "public.healthz": "the doctor's question, which changes nothing",
    "uploads.preflight": "the doctor's question, which changes nothing",
    "qstash.keys": "the doctor's question, which changes nothing",
}
"""Calls that no flow makes in the story, and why."""


def places() -> list[Place]:
    """Every case there is."""
    cases = [Place(name, Form.VANISH) for name in CHECKPOINTS]
    for call in OUTSIDE_CALLS:
        if call in UNSPOKEN:
            continue
        cases += [Place(f"outside.{call}.{when}", Form.VANISH) for when in ("before", "after")]
    for site, transaction in SITES.items():
        if transaction:
            cases += [Place(BEFORE_COMMIT, form, site) for form in (Form.VANISH, Form.UNDONE)]
        cases += [Place(DONE, form, site) for form in (Form.VANISH, Form.UNHEARD)]
    return cases


def site_of_caller() -> str:
    """Which function of a flow went to the database, seen from inside a checkpoint's handler."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent.name == "flow" and path.parent.parent.name == "darkroom":
            return f"{path.stem}.{frame.f_code.co_qualname.replace('.<locals>', '')}"
        if path.parent.name == "core" or path.stem == "shop":
            return ""
        frame = frame.f_back
    return ""
