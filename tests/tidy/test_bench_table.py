"""The README's figures are those of a run that is kept, and of no other."""

import json
from pathlib import Path

import pytest
from bench.written import RESULTS, markdown, newest, put

README = Path("README.md")


def test_the_readme_shows_the_newest_run() -> None:
    content = json.loads(newest(list(RESULTS.glob("*.json"))).read_text(encoding="utf-8"))
    readme = README.read_text(encoding="utf-8")
    assert put(readme, markdown(content)) == readme, "python -m bench.written"


def test_twin_a_figure_that_nobody_measured_is_seen() -> None:
    content = json.loads(newest(list(RESULTS.glob("*.json"))).read_text(encoding="utf-8"))
    content["figures"][0]["value"] += 1000
    readme = README.read_text(encoding="utf-8")
    assert put(readme, markdown(content)) != readme


def test_a_readme_without_marks_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="no marks"):
        put("# Darkroom", "| |")
