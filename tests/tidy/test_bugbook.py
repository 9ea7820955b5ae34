"""Every line of the bug book is proven by a test that names it, or stands in tests/BUGBOOK.md with a reason."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Final

CHAPTERS: Final[dict[str, tuple[int, frozenset[int]]]] = {
    "A": (33, frozenset({10, 28, 32})),
    "B": (25, frozenset({13, 14, 18})),
    "C": (25, frozenset({17})),
    "D": (19, frozenset({14, 18})),
    "E": (22, frozenset({3, 9, 11, 21})),
    "F": (13, frozenset({3, 12})),
    "G": (26, frozenset({3, 14})),
    "H": (20, frozenset({14})),
}
"""The book's chapters: the last number, and those that the book leaves out. The book itself is not here."""
BOOK: Final = frozenset(
    f"{chapter}{number}"
    for chapter, (last, left_out) in CHAPTERS.items()
    for number in range(1, last + 1)
    if number not in left_out
)
TABLE: Final = Path("tests/BUGBOOK.md")
NOT_OURS: Final = Path("tests/crash/test_previous_design.py")
"""Shows the older design losing what the book says: that proves nothing of Darkroom."""
NAME: Final = re.compile(r"bugbook\s+([A-H][0-9]+)")
ROW: Final = re.compile(r"^\| ([A-H][0-9]+) \| (.*) \|$", re.MULTILINE)
REASON: Final = re.compile(
    r"waits for (part [4-7], |the .+ (adapters?|pages|bot)|the bot|chat delivery|referral programmes)"
    r"|cannot concern us: "
)
CAREFUL: Final = re.compile(r"bugbook\s+[A-H][0-9]+(?:\s*(?:,|and|or|/)\s*)[A-H][0-9]+\b")
"""A second id that does not follow the word: it would not be counted."""


def _docstrings() -> list[tuple[Path, str, str]]:
    """(file, function, docstring) of everything under tests/."""
    found: list[tuple[Path, str, str]] = []
    for path in sorted(Path("tests").rglob("*.py")):
        tree = ast.parse(path.read_text())
        found.append((path, "", ast.get_docstring(tree) or ""))
        found += [
            (path, node.name, ast.get_docstring(node) or "")
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return found


def _named() -> set[str]:
    return {
        found
        for path, name, text in _docstrings()
        if path != NOT_OURS and name.startswith("test_")
        for found in NAME.findall(text)
    }


def _waiting() -> list[tuple[str, str]]:
    return ROW.findall(TABLE.read_text())


def test_every_line_of_the_book_is_named_by_a_test_or_has_its_reason() -> None:
    named, waiting = _named(), {row for row, _ in _waiting()}
    assert named - BOOK == set(), "no such line in the book"
    assert waiting - BOOK == set(), "no such line in the book"
    assert named & waiting == set(), f"proven now: take them from {TABLE}"
    assert BOOK - named - waiting == set(), f"name them in a test, or give a reason in {TABLE}"


def test_the_count_is_known() -> None:
    """Each part that is built moves lines from the last number to the one before it."""
    assert (len(BOOK), len(_named()), len(_waiting())) == (165, 135, 30)


def test_the_table_is_in_order_and_gives_reasons() -> None:
    rows = [row for row, _ in _waiting()]
    assert rows == sorted(rows, key=lambda row: (row[0], int(row[1:])))
    assert [row for row, times in Counter(rows).items() if times > 1] == []
    assert [row for row, reason in _waiting() if not REASON.match(reason)] == []
    # No row is written so that it is not read.
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    heads = [line for line in lines if line in ("| id | why not yet |", "| --- | --- |")]
    assert len(lines) == len(rows) + len(heads)


def test_an_id_is_named_where_it_is_counted() -> None:
    """In the docstring of a test, each with the word before it: a module's docstring proves nothing."""
    assert not [(str(path), name) for path, name, text in _docstrings() if CAREFUL.search(text)]
    elsewhere = [
        (str(path), name)
        for path, name, text in _docstrings()
        if not name.startswith("test_") and NAME.search(text)
    ]
    assert elsewhere == []
