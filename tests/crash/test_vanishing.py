"""The harness of the crash stories itself: what it must not trip over."""

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.crash import vanishing
from tests.crash.vanishing import end_every_connection


def test_a_connection_that_appears_late_is_dropped_too(
    dsn: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may vanish while it connects: told once, the server kept that one, and the story hung."""
    monkeypatch.setattr(vanishing, "TERMINATE_SECONDS", 5)
    opened = [psycopg.connect(dsn)]
    with psycopg.connect(server, autocommit=True) as admin:
        looks = admin.execute

        def look_and_connect(query: LiteralString, values: list[object]) -> psycopg.Cursor[Any]:
            answer = looks(query, values)
            if len(opened) == 1:
                opened.append(psycopg.connect(dsn))
            return answer

        monkeypatch.setattr(admin, "execute", look_and_connect)
        end_every_connection(admin, conninfo_to_dict(dsn)["dbname"])
    assert len(opened) == 2
    for dropped in opened:
        with pytest.raises(psycopg.OperationalError):
            dropped.execute("SELECT 1")
        dropped.close()
