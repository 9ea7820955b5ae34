"""Who is measured: how each is started, and where each keeps what we count."""

import importlib.util
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from bench.places import open_database
from bench.rivals.orders import PHOTOS_AN_ORDER, Photo

Place = tuple[int, int]
"""An order (or a job) and a photo's position in it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One of those who are measured.

    Attributes:
        name: of its module in this package; `ours` is Darkroom.
        title: in the table.
        library: what has to be installed for it, if anything.
        promises: whether it promises that an order ends complete, whatever dies.
        after_death: what brings back what a dead worker held.
        photos: every photo's row: order, position, when it was stored (seconds).
        orders_open: how many orders somebody still works on.
        orders_wrong: how many orders do not have exactly their photos, or do not say that they are complete.
    """

    name: str
    title: str
    library: str | None
    promises: bool
    after_death: str
    photos: LiteralString
    orders_open: LiteralString
    orders_wrong: LiteralString

    @property
    def installed(self) -> bool:
        """Whether its library is there (`make bench` sees to it)."""
        return self.library is None or importlib.util.find_spec(self.library) is not None

    @property
    def worker(self) -> tuple[str, ...]:
        """The module of its worker; database, folder and provider follow."""
        return ("bench.worker",) if self.name == "ours" else ("bench.rivals", self.name, "work")

    def rows(self, one: psycopg.Connection[Any]) -> list[tuple[Place, float]]:
        """Its photos, and when each was stored, the earliest first."""
        found = one.execute(self.photos).fetchall()
        return sorted(
            (((int(order), int(position)), float(at)) for order, position, at in found),
            key=lambda row: row[1],
        )

    def count(self, one: psycopg.Connection[Any], query: LiteralString) -> int:
        """One number."""
        row = one.execute(query).fetchone()
        return 0 if row is None else int(row[0])

    def asked_for(self, one: psycopg.Connection[Any], tokens: Iterable[str]) -> set[Place]:
        """Which photos the provider's books mean by these tokens."""
        known = set(tokens)
        if self.name == "ours":
            rows = one.execute(
                "SELECT t.job_id, t.prompt_index FROM task_attempts a JOIN kie_tasks t ON t.id = a.task_id "
                "WHERE a.token::TEXT = ANY(%s)",
                [list(known)],
            ).fetchall()
            return {(int(job), int(position)) for job, position in rows}
        if self.name == "previous":
            # Its tokens begin with them.
            parts = [token.split("-") for token in known]
            return {(int(part[0]), int(part[1])) for part in parts}
        orders = one.execute("SELECT id, photo_count FROM orders").fetchall()
        return {
            (order, position)
            for order, count in orders
            for position in range(count)
            if str(Photo(order, position).token) in known
        }

    def shop(self, dsn: str, folder: Path, sets: int, pause_seconds: float) -> tuple[str, ...]:
        """The module, with what follows it, that starts `sets` paid orders, one every `pause_seconds`."""
        return (
            *("bench.rivals", self.name, "prepare"),
            *(dsn, str(folder), f"{sets}", f"{pause_seconds}"),
        )

    @contextmanager
    def database(self, server: str, sets: int) -> Generator[str]:
        """A fresh database; Darkroom's has `sets` customers who have paid."""
        if self.name == "ours":
            with open_database(server, customers=sets) as dsn:
                yield dsn
        else:
            with _empty_database(server, f"bench_{self.name}") as dsn:
                yield dsn


@contextmanager
def _empty_database(server: str, name: str) -> Generator[str]:
    drop = SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        yield make_conninfo(server, dbname=name)
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(drop)


_RIVAL_PHOTOS: Final[LiteralString] = (
    "SELECT order_id, position, extract(epoch FROM stored_at)::FLOAT8 FROM photos"
)
_RIVAL_OPEN: Final[LiteralString] = "SELECT count(*) FROM orders WHERE status <> 'complete'"
_RIVAL_WRONG: Final[LiteralString] = (
    "SELECT count(*) FROM orders o WHERE status <> 'complete' "
    "OR photo_count <> (SELECT count(*) FROM photos p WHERE p.order_id = o.id)"
)


def _rival(name: str, title: str, after_death: str, *, promises: bool = True) -> Subject:
    return Subject(
        name=name,
        title=title,
        library=name if promises else None,
        promises=promises,
        after_death=after_death,
        photos=_RIVAL_PHOTOS,
        orders_open=_RIVAL_OPEN,
        orders_wrong=_RIVAL_WRONG,
    )


OURS: Final = Subject(
    name="ours",
    title="Darkroom",
    library=None,
    promises=True,
    after_death=(
        "any worker, after the lease (9 s). A creation whose answer was lost is not repeated before its "
        "callback or 90 s: that wait is what nothing bought twice costs"
    ),
    photos=(
        "SELECT t.job_id, t.prompt_index, extract(epoch FROM g.created_at)::FLOAT8 FROM generated_photos g "
        "JOIN kie_tasks t ON t.id = g.task_id"
    ),
    orders_open="SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')",
    orders_wrong=(
        "SELECT count(*) FROM generation_jobs j WHERE status <> 'completed' "
        "OR total_photos <> completed_photos OR total_photos <> "
        "(SELECT count(*) FROM generated_photos g JOIN kie_tasks t ON t.id = g.task_id WHERE t.job_id = j.id)"
    ),
)
PREVIOUS: Final = Subject(
    name="previous",
    title="older design",
    library=None,
    promises=False,
    after_death=(
        "its queue's redeliveries and its crons; a job without progress is given up and paid back in whole "
        "after 60 s here (10 minutes there)"
    ),
    photos=(
        "SELECT job_id, prompt_index, extract(epoch FROM created_at)::FLOAT8 FROM generated_photos"
    ),
    orders_open=(
        "SELECT (SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')) "
        "+ (SELECT count(*) FROM kie_tasks WHERE status = 'pending')"
    ),
    orders_wrong=(
        "SELECT count(*) FROM generation_jobs j WHERE status <> 'completed' OR total_photos <> "
        "(SELECT count(*) FROM generated_photos g WHERE g.job_id = j.id)"
    ),
)
BARE: Final = _rival("bare", "no rival", "nothing: it remembers nothing", promises=False)
"""What the photos cost when nobody writes anything down: a ceiling for whoever does as much for a photo."""
RIVALS: Final = (
    _rival(
        "dbos",
        "DBOS",
        "a worker of the same executor id that starts; another one only by hand or by Conductor, which is sold",
    ),
    _rival(
        "procrastinate",
        "Procrastinate",
        "one's own job that looks for stalled ones (here every minute, in its how-to every ten), after 30 s",
    ),
    _rival(
        "pgqueuer",
        "PgQueuer",
        "any worker, after 30 s without a heartbeat and up to 30 s more until it looks: its defaults",
    ),
    PREVIOUS,
)
BY_NAME: Final = {subject.name: subject for subject in (OURS, BARE, *RIVALS)}
WANTED_A_SET: Final = PHOTOS_AN_ORDER
