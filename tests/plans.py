"""How PostgreSQL finds the rows of each statement that the program really sends.

A `PlanBook` stands between the program and the server: each statement is first planned as a prepared one is
after many runs (a generic plan, blind to its parameters), run and counted inside a savepoint that is rolled
back, and then sent as if nothing had been. What was counted: rows touched a table, whole tables read, and rows
sorted.
"""

import inspect
import itertools
import re
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psycopg
from psycopg import AsyncClientCursor, AsyncCursor, sql
from psycopg.adapt import PyFormat, Transformer

from darkroom.db.database import USE_SECONDS, Connection, Database

GROWING: Final = frozenset({
    "users", "avatars", "reference_photos", "payments", "idempotency_keys", "inbox", "generation_jobs",
    "kie_tasks", "task_attempts", "generated_photos", "late_photos", "generation_dead_letter_queue",
    "telegram_message_queue", "refunds", "refund_lines", "refund_attempts", "provider_refunds",
    "refund_settlements", "customer_messages", "differences", "move_log", "qstash_processed_messages",
    "sessions", "upload_requests", "direct_uploads", "sign_in_links", "mail_outbox", "photo_shares",
    "consents", "funnel_steps", "credit_readings",
})  # fmt: skip
"""Tables that have more rows the longer a shop is open."""
LOOKS: Final = 2
"""Of one text: with nothing there, and with something."""
ROWS_MAX: Final = 100
"""Of one table, by one statement: five batches of 20, or a set of 100 photos."""
BUFFERS_A_ROW: Final = 15
"""Pages: down an index and to the row, in a table with ten indexes and their constraints."""
NONE: Final[Mapping[str, tuple[int, str]]] = {}
_PARAMETER: Final = re.compile(r"%(?:\((\w+)\))?([sbt%])")
_READS_ROWS: Final = re.compile(r"\s*(?:\(|SELECT|WITH|INSERT|UPDATE|DELETE)", re.IGNORECASE)


@dataclass
class Look:
    """What one run of a statement did.

    Attributes:
        site: the function that sent it.
        touched: rows looked at by table, those that a filter threw away again included.
        whole: growing tables that were read from one end to the other.
        sorted_rows: the most that one sort was given.
        buffers: pages touched.
    """

    site: str
    text: str
    touched: dict[str, float] = field(default_factory=dict[str, float])
    whole: set[str] = field(default_factory=set[str])
    sorted_rows: float = 0
    buffers: int = 0

    @property
    def most_touched(self) -> float:
        """Rows of the growing table that most were looked at of."""
        return max((rows for name, rows in self.touched.items() if name in GROWING), default=0)


@dataclass
class PlanBook:
    """Every statement that was sent, and how it went."""

    looks: list[Look] = field(default_factory=list[Look])
    unread: list[str] = field(default_factory=list[str])
    _seen: dict[str, int] = field(default_factory=dict[str, int])
    _numbers: Generator[int] = field(default_factory=lambda: (n for n in itertools.count()))

    def beyond(self, bounds: Mapping[str, tuple[int, str]] = NONE) -> list[str]:
        """What touched or sorted more rows, or touched more pages, than a batch may; `bounds` by site is more.

        Of a table that is nearly empty every reader reads all: it is the rows that count, not the kind of scan.
        """
        found: dict[str, str] = {}
        for look in self.looks:
            rows = bounds.get(look.site, (ROWS_MAX, ""))[0]
            if (
                max(look.most_touched, look.sorted_rows) > rows
                or look.buffers > BUFFERS_A_ROW * rows
            ):
                most = {name: count for name, count in look.touched.items() if count > rows}
                found[look.text] = (
                    f"{look.site}: {most} touched, {look.sorted_rows} sorted, {look.buffers} pages, "
                    f"whole tables {look.whole}: {' '.join(look.text.split())[:300]}"
                )
        return sorted(found.values())

    async def look(self, connection: Connection, text: str, params: Any) -> None:  # noqa: ANN401 - as psycopg has it
        """Plan, run, count, undo."""
        site = _site()
        if not site or not _READS_ROWS.match(text) or self._seen.get(text, 0) >= LOOKS:
            return
        self._seen[text] = self._seen.get(text, 0) + 1
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        cursor = AsyncCursor(connection)
        await cursor.execute("BEGIN" if idle else "SAVEPOINT plan_book")
        try:
            self.looks.append(await self._explain(connection, site, text, params))
        except (psycopg.IntegrityError, psycopg.errors.LockNotAvailable):
            pass  # it will say so again, to the program
        except psycopg.Error as error:
            self.unread.append(f"{error}: {text}")
        await cursor.execute("ROLLBACK" if idle else "ROLLBACK TO SAVEPOINT plan_book")
        if not idle:
            await cursor.execute("RELEASE SAVEPOINT plan_book")

    async def _explain(self, connection: Connection, site: str, text: str, params: Any) -> Look:  # noqa: ANN401 - as above
        name = sql.Identifier(f"plan_{next(self._numbers)}")
        cursor = AsyncClientCursor(connection)
        prepared, types, values = _numbered(connection, text, params)
        await cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        head = sql.SQL("PREPARE {}").format(name)
        if types:
            head += sql.SQL("({})").format(sql.SQL(", ").join(sql.SQL(one) for one in types))  # pyright: ignore[reportArgumentType] - names of types
        await cursor.execute(head + sql.SQL(" AS " + prepared))  # pyright: ignore[reportArgumentType] - the program's text
        run = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE {}").format(name)
        if values:
            run += sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(values)))
        row = await (await cursor.execute(run, values or None)).fetchone()
        await cursor.execute(sql.SQL("DEALLOCATE {}").format(name))
        assert row is not None
        look = Look(site, text)
        _walk(row[0][0]["Plan"], look)
        plan = row[0][0]["Plan"]
        look.buffers = plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
        return look


def _site() -> str:
    """The function of `core` that is sending; "" when a test asks for itself."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent.name == "core" and path.parent.parent.name == "darkroom":
            return f"{path.stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def _text(query: object) -> str:
    """Of a statement; "" of what is composed: a session's settings, a test's own."""
    return query if isinstance(query, str) else ""


def _numbered(connection: Connection, text: str, params: Any) -> tuple[str, list[str], list[Any]]:  # noqa: ANN401 - as above
    """The text with $1, $2 ... and the type and value of each, as psycopg would send them."""
    if params is None:
        return text, [], []
    order: list[Any] = []
    by_name: dict[str, int] = {}

    def numbered(found: re.Match[str]) -> str:
        name, kind = found.groups()
        if kind == "%":
            return "%"
        if name is None:
            order.append(params[len(order)])
            return f"${len(order)}"
        if name not in by_name:
            order.append(params[name])
            by_name[name] = len(order)
        return f"${by_name[name]}"

    prepared = _PARAMETER.sub(numbered, text)
    transformer = Transformer(connection)
    types: list[str] = []
    for value in order:
        oid = 0
        if value is not None:
            dumper = transformer.get_dumper(value, PyFormat.AUTO)
            oid = dumper.upgrade(value, PyFormat.AUTO).oid
        known = connection.adapters.types.get(oid) if oid else None
        array = known is not None and oid == known.array_oid
        types.append("unknown" if known is None else known.regtype + ("[]" if array else ""))
    return prepared, types, order


def _walk(node: dict[str, Any], look: Look) -> None:
    loops = node.get("Actual Loops", 0)
    kind = node["Node Type"]
    if "Relation Name" in node and "Scan" in kind:
        rows = node.get("Actual Rows", 0)
        rows += node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        name = node["Relation Name"]
        look.touched[name] = look.touched.get(name, 0) + rows * loops
        if kind == "Seq Scan" and name in GROWING:
            look.whole.add(name)
    children = node.get("Plans", [])
    if kind in {"Sort", "Incremental Sort"}:
        given = max(
            (one.get("Actual Rows", 0) * one.get("Actual Loops", 0) for one in children), default=0
        )
        look.sorted_rows = max(look.sorted_rows, given)
    for child in children:
        _walk(child, look)


class WatchedDatabase(Database):
    """A pool whose every statement goes through a book first."""

    def __init__(self, dsn: str, book: PlanBook, **options: Any) -> None:  # noqa: ANN401 - as the pool takes them
        super().__init__(dsn, **options)
        self.book = book

        class Cursor(AsyncCursor[Any]):
            async def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as psycopg has it
                await book.look(self.connection, _text(query), params)
                return await super().execute(query, params, **kwargs)

        self._cursor = Cursor

    @asynccontextmanager
    async def connection(
        self, *, timeout_seconds: float = USE_SECONDS
    ) -> AsyncGenerator[Connection]:
        """As the pool's, watched."""
        async with super().connection(timeout_seconds=timeout_seconds) as connection:
            connection.cursor_factory = self._cursor
            yield connection
