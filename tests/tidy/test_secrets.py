"""No secret lies in the tree, and a failing check fails the run: both went wrong where Darkroom came from."""

import os
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

BY_HAND: Final = (
    "src",
    "tests",
    "scripts",
    "docs",
    "bench",
    ".ci",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
    ".gitignore",
)
"""What people write. Pictures and lock files are left out: their hashes look like anything."""
PUBLISHED: Final = frozenset(
    {
        # Telegram's own examples of init data.
        "5768337691:AAH5YkoiEuPk8-FZa32hStHTqXiLPtAEhx8",
        "7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4",
        # The keys of QStash's development server.
        "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r",
        "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs",
    }
)
SHAPES: Final = {
    "a database's address with its password": r"postgres(?:ql)?://[^\s:/@{}]+:[^\s@{}]+@",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a Telegram bot's token": r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
    "a QStash signing key": r"\bsig_[A-Za-z0-9]{28}\b",
    "an S3 key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of a code host": r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "a password's hash": r"\$2[aby]\$[0-9]{2}\$[A-Za-z0-9./]{53}",
    "a live key of a provider": r"\bsk_live_[A-Za-z0-9]{16,}",
}


def _files() -> Iterator[Path]:
    for name in BY_HAND:
        place = Path(name)
        found = place.rglob("*") if place.is_dir() else [place]
        for path in found:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _secrets_in(text: str) -> list[str]:
    return [
        what
        for what, shape in SHAPES.items()
        if any(match[0] not in PUBLISHED for match in re.finditer(shape, text))
    ]


def test_no_secret_is_committed() -> None:
    """bugbook G19: credentials of the live database, and a super-admin's password in a migration."""
    found: dict[str, list[str]] = {}
    for path in _files():
        secrets = _secrets_in(path.read_text(encoding="utf-8", errors="replace"))
        if secrets:
            found[str(path)] = secrets
    assert found == {}


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("a database's address with its password", ("postgresql:", "//shop:hunter2@db/shop")),
        ("a private key", ("-----BEGIN RSA ", "PRIVATE KEY-----")),
        ("a Telegram bot's token", ("1234567890:AA", "x" * 33)),
        ("a QStash signing key", ("sig_", "a" * 28)),
        ("an S3 key", ("AKIA", "A" * 16)),
        ("a token of a code host", ("ghp_", "a" * 36)),
        ("a password's hash", ("$2b$12$", "a" * 53)),
        ("a live key of a provider", ("sk_", "live_" + "a" * 24)),
    ],
)
def test_a_secret_would_be_found(what: str, parts: tuple[str, ...]) -> None:
    """Each shape is seen; written in parts, so that this file holds none."""
    assert _secrets_in("key = '" + "".join(parts) + "'") == [what]


def test_no_environment_file_lies_in_the_tree() -> None:
    """bugbook H20: four of them did, with credentials. None is read, none is there, none can be added."""
    found = [path for path in _files() if fnmatch(path.name, ".env*")]
    assert [*found, *Path().glob(".env*")] == []
    assert ".env*" in Path(".gitignore").read_text().splitlines()
    assert "env_file" not in Path("src/darkroom/config.py").read_text()


@pytest.mark.parametrize("failing", ["none", "check", "test"])
def test_a_failing_check_fails_the_run(tmp_path: Path, failing: str) -> None:
    """bugbook H11: a step that was allowed to fail made every run a success."""
    script = tmp_path / ".ci" / "run"
    tools = tmp_path / "tools"
    for folder in (script.parent, tools):
        folder.mkdir()
    script.write_bytes(Path(".ci/run").read_bytes())
    make = tools / "make"
    make.write_text(f'#!/bin/sh\necho "$1" >> made\n[ "$1" != {failing} ]\n')
    for program in (make, tools / "curl"):
        program.touch()
        program.chmod(0o755)
    ran = subprocess.run(  # noqa: S603 - our own script
        ["bash", str(script)],  # noqa: S607 - the machine's own
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        check=False,
    )
    wanted = ["check"] if failing == "check" else ["check", "test"]
    assert (tmp_path / "made").read_text().split() == wanted
    assert (ran.returncode == 0) == (failing == "none")
    # And no line of a recipe is allowed to fail unseen.
    recipes = [line for line in Path("Makefile").read_text().splitlines() if line.startswith("\t")]
    assert not [line for line in recipes if re.match(r"\t@?-", line) or "|| true" in line]
