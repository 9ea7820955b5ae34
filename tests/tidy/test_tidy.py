"""House rules, as tests: what a reviewer would otherwise have to say each time."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from darkroom.config import Settings

ROOT = Path("src/darkroom")
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 450
"""400 is the aim; a module that is one list (settings, questions, scenes) may run a little over."""
BANNED_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|managers?|misc)(_|\.|$)")
SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b")


def _modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines without its docstring: a promise may be as long as it needs to be."""
    first = node.body[0]
    docstring = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        docstring = (first.end_lineno or 0) - first.lineno + 1
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_functions_are_small() -> None:
    long = {
        f"{path}:{node.name}": _code_lines(node)
        for path in _modules()
        for node in _functions(path)
        if _code_lines(node) > FUNCTION_LINES_MAX
    }
    assert not long


def test_modules_are_small() -> None:
    long = {str(path): len(path.read_text().splitlines()) for path in _modules()}
    assert not {path: lines for path, lines in long.items() if lines > MODULE_LINES_MAX}


def test_no_module_is_named_after_nothing() -> None:
    assert not [path for path in _modules() if BANNED_NAMES.search(path.stem)]


def test_sql_stands_in_core_and_db_only() -> None:
    """The stand-in bank keeps books of its own, in another database.

    Torture and rehearsal judge by their own questions: a judge who asked through our own code could not find it
    wrong.
    """
    allowed = {ROOT / "core", ROOT / "db", ROOT / "torture", ROOT / "rehearsal"}
    offenders = [
        path
        for path in _modules()
        if not allowed & set(path.parents)
        and path not in (ROOT / "twin" / "bank.py", ROOT / "twin" / "bank_books.py")
        and any(
            SQL.search(node.value)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
    ]
    assert not offenders


def test_no_statement_is_longer_than_what_the_driver_remembers() -> None:
    """psycopg reads the parameters of a longer one out of its text anew at each run: a twentieth of a claim."""
    long = {
        f"{path}:{node.lineno}": len(node.value)
        for path in (ROOT / "core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and SQL.search(node.value) and len(node.value) > MAX_CACHED_STATEMENT_LENGTH
    }  # fmt: skip
    assert not long


def test_every_checkpoint_has_one_name_and_one_place() -> None:
    names = Counter(
        name
        for path in _modules()
        for name in re.findall(r"""checkpoint\(\s*["']([^"']+)["']""", path.read_text())
    )
    assert names
    assert not [name for name, times in names.items() if times > 1]
    assert not [name for name in names if not re.fullmatch(r"[a-z]+\.[a-z_]+", name)]


def test_public_functions_of_core_and_flow_state_their_promise() -> None:
    silent = [
        f"{path}:{node.name}"
        for room in ("core", "flow")
        for path in (ROOT / room).rglob("*.py")
        for node in _functions(path)
        if not node.name.startswith("_")
        and ast.get_docstring(node) is None
        # A function inside a function is a step of it, not a promise.
        and node.col_offset == 0
    ]
    assert not silent


def test_every_setting_is_described_where_operators_look() -> None:
    page = Path("docs/operating.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.alias, name
        assert f"`{field.alias}`" in page, f"{field.alias} is not in docs/operating.md"
        assert field.description, name


def test_no_path_of_a_machine_and_no_address_in_a_lock_is_committed() -> None:
    here = str(Path.cwd().parent) + "/"
    index = "index" + "-url"
    for path in (*Path("src").rglob("*.py"), *Path("tests").rglob("*.py")):
        text = path.read_text()
        assert here not in text, path
        assert index not in text, path
    for path in Path().glob("*.lock"):
        assert "://" not in path.read_text(), path


def test_tests_do_not_sleep_for_time_to_pass() -> None:
    """Clocks are moved and checkpoints awaited. Waiting a moment for a real socket or lock is not that."""
    sleeping = [
        f"{path}: {line.strip()}"
        for path in Path("tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if (match := re.search(r"(?<!pg_)sleep\(([0-9.]+)\)", line)) and float(match[1]) > 0.05
    ]
    assert not sleeping


def test_decisions_are_short_and_numbered() -> None:
    decisions = sorted(Path("docs/decisions").glob("*.md"))
    assert len(decisions) >= 6
    for number, path in enumerate(decisions, start=1):
        assert path.name.startswith(f"{number:04}-"), path
        assert len(path.read_text().splitlines()) < 40, path
