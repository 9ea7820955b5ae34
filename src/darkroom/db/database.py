"""The pool, transactions, and what to do when the database is not there."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from darkroom.db.pool import WarmestFirst
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.outside import transaction_marked

T = TypeVar("T")
Connection = AsyncConnection[TupleRow]

CONNECT_SECONDS: Final = 5
"""How long a request may wait for a connection before it is told 503."""
DRAIN_PAUSE_SECONDS: Final = 5
"""A server that restarts is gone for about a second; connections opened since then are good."""
USE_SECONDS: Final = 20
"""The longest one use of a connection may take: a server that hangs with its sockets open answers nobody.
Work of ours takes milliseconds; what legitimately takes longer says so."""
CUT_SECONDS: Final = 1
"""After its limit a use is cut, and notices within a turn of the loop; whatever does not is cancelled then."""
SESSION_LIMITS: Final = (
    "SELECT set_config('lock_timeout', '5s', FALSE), set_config('statement_timeout', '15s', FALSE), "
    "set_config('idle_in_transaction_session_timeout', '10s', FALSE), "
    "set_config('plan_cache_mode', 'force_generic_plan', FALSE)"
)
"""Held by the server, for a client that vanished inside a transaction without a word: nobody's row stays locked
by a dead machine longer than a lease. One row that a peer holds costs 5 s, not a lane.

A plan is made once a connection, blind to its parameters: so are all those that the tests count the rows of.
Left to itself PostgreSQL planned some statements anew each time, which took it longer than running them."""
TRANSACTION_LIMITS: Final = (
    "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '10s'"
)
"""The same where there is no session. Not a SELECT: that would be the transaction's first query, and an
isolation level (audit, progress) can only be set before it."""
PREPARE_AFTER: Final = 1
"""Runs of a statement on a connection before it is prepared: what comes twice comes always. Not at once: what
is refused while it is prepared stays at the server, and the library forgets it."""
PREPARED_MAX: Final = 200
"""Statements that a connection keeps prepared, some 75 KB each at the server. Orders with all they need, a
worker's looks and the pages are some 100, the library's own limit, beyond which the oldest is planned anew."""
SETTLE_TRIES: Final = 4
"""Tries of a transaction that lost its connection or a lock fight: 4 with growing pauses is about 2 s."""


CONNECTION_OPTIONS: Final = {
    "connect_timeout": CONNECT_SECONDS,
    # A peer that vanished without a word is noticed within 15 s.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "application_name": "darkroom",
    # After a failover the old primary, or a replica, is no place to write to.
    "target_session_attrs": "read-write",
}


class DatabaseUnavailableError(Exception):
    """The database could not be reached, or the connection was lost. Nothing is known of the last commit."""


class DatabaseRefusedError(Exception):
    """The database said no to a statement (a constraint, a trigger). Nothing of it was kept."""


class RowBusyError(Exception):
    """Another transaction held the row longer than we may wait. Nothing was changed; ask again."""


_USELESS: Final = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)
"""Errors of the session, not of the statement, that psycopg files elsewhere."""


async def _limit_session(connection: Connection) -> None:
    connection.prepared_max = PREPARED_MAX
    await connection.execute(SESSION_LIMITS)


@contextmanager
def _cut_at(connection: Connection, ends_at: float, limit: asyncio.Timeout) -> Generator[None]:
    """At the limit the socket is cut, before anything is cancelled.

    Cancelled while it waits for the server, psycopg first asks that server, over a new connection, to stop,
    and gives it ten seconds: a network that hangs would hold a lease's renewal for longer than the lease.
    What the server is still doing for us ends by its own limits.
    """

    def cut() -> None:
        if not connection.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    if not limit.expired():
        limit.reschedule(ends_at + CUT_SECONDS)
    cutting = asyncio.get_running_loop().call_at(ends_at, cut)
    try:
        yield
    finally:
        cutting.cancel()


class Database:
    """A pool of connections to the primary.

    Everything that decides reads from here; there are no replicas in this class on purpose.
    Works through transaction-mode poolers: no session state, prepared statements can be off.

    Attributes:
        has_sessions: whether a connection is ours alone, so that LISTEN makes sense on it. A pooler that
            does not know prepared statements keeps no session either.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 10,
        prepare_statements: bool = True,
        check_before_use: bool = False,
    ) -> None:
        """Prepare the pool.

        Args:
            dsn: of the primary.
            pool_size: connections at most.
            prepare_statements: off behind a pooler that does not know them.
            check_before_use: ask each connection whether it lives before it is used, one round trip: for a
                process that is frozen between calls, whose connections die meanwhile without a word.
        """
        self.dsn = dsn
        self.has_sessions = prepare_statements
        # Hosting that freezes gives addresses of poolers, which may know prepared statements: what a session
        # was told there stays with the one server connection that it met.
        self._limits_each = check_before_use or not prepare_statements
        self._draining: asyncio.Task[None] | None = None
        self._drains_again_at = 0.0
        self._pool: WarmestFirst[Connection] = WarmestFirst(
            dsn,
            min_size=1,
            max_size=pool_size,
            timeout=CONNECT_SECONDS,
            open=False,
            name="darkroom",
            reconnect_timeout=0,
            configure=_limit_session if prepare_statements else None,
            check=self._check if check_before_use else None,
            kwargs={
                "autocommit": True,
                "prepare_threshold": PREPARE_AFTER if prepare_statements else None,
                **CONNECTION_OPTIONS,
            },
        )

    async def open(self) -> None:
        """Start the pool. Does not wait for the database: it may come later."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close the pool; connections in use are closed when they are given back."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def connection(
        self, *, timeout_seconds: float = USE_SECONDS
    ) -> AsyncGenerator[Connection]:
        """A connection in autocommit, for one statement that is its own transaction.

        Raises:
            DatabaseUnavailableError: no connection, it was lost, it took too long, or the server only
                reads; the statement may have happened.
            RowBusyError: a lock was not given in time.
            DatabaseRefusedError: a constraint or trigger refused the statement.
        """
        ends_at = asyncio.get_running_loop().time() + timeout_seconds
        has_one = False
        limit = asyncio.timeout_at(ends_at)
        try:
            async with limit, self._pool.connection() as connection:
                has_one = True
                with transaction_marked(), _cut_at(connection, ends_at, limit):
                    try:
                        yield connection
                        # Here an answer may get lost: the server has committed, the caller does not know.
                        await checkpoint("database.done")
                    except _USELESS:
                        # Healthy to look at and good for nothing: it must not go back to the pool.
                        await connection.close()
                        raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            if has_one:
                self._drop_idle_connections()
            raise DatabaseUnavailableError("no answer in time") from error
        except psycopg.errors.LockNotAvailable as error:
            raise RowBusyError from error
        except PoolTimeout as error:
            # Everybody is busy, or nothing can be opened: closing what there is would help in neither case.
            raise DatabaseUnavailableError(type(error).__name__) from error
        except (psycopg.OperationalError, psycopg.InterfaceError, *_USELESS) as error:
            self._drop_idle_connections()
            raise DatabaseUnavailableError(type(error).__name__) from error
        except psycopg.Error as error:
            raise DatabaseRefusedError(f"{type(error).__name__}: {error}") from error

    async def _check(self, connection: Connection) -> None:
        """Raises what the library counts as a dead connection, once all that lay beside it are gone, too.

        They died together while the process was frozen. The library would try one after the other, with growing
        pauses, and give up before it came to one that lives.
        """
        try:
            await AsyncConnectionPool.check_connection(connection)
        except Exception:
            self._drop_idle_connections()
            if self._draining is not None:
                await asyncio.wait([self._draining])
            raise

    def _drop_idle_connections(self) -> None:
        """After a restart of the server every idle connection is dead: replace them all, not one by one.

        In the background: whoever found out has waited long enough. Seldom: one restart is one drain, and a
        network that loses a connection now and then must not cost all the others each time. Under load that
        fed itself: drained, too few, waited for in vain, drained again.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._drains_again_at:
            self._drains_again_at = now + DRAIN_PAUSE_SECONDS
            self._draining = asyncio.create_task(self._pool.drain(), name="drop-connections")

    @asynccontextmanager
    async def transaction(
        self, *, timeout_seconds: float = USE_SECONDS
    ) -> AsyncGenerator[Connection]:
        """One transaction: commits when the block ends, rolls back when it raises.

        No call to the outside can be made inside (see `kit.outside`). Raises as `connection`.
        """
        async with (
            self.connection(timeout_seconds=timeout_seconds) as connection,
            connection.transaction(),
        ):
            if self._limits_each:
                # Behind a pooler a session is anybody's: the limits are this transaction's own.
                await connection.execute(TRANSACTION_LIMITS)
            yield connection
            await checkpoint("database.before_commit")
            if connection.closed:
                # The driver would leave the block without a word, as if it had committed.
                raise psycopg.OperationalError("the connection was lost inside of its transaction")

    @asynccontextmanager
    async def statement(self) -> AsyncGenerator[Connection]:
        """A connection for one statement that may wait for rows: its own transaction, under our limits.

        Where a connection has no session, the limits come with a transaction around it. Raises as `connection`.
        """
        async with self.transaction() if self._limits_each else self.connection() as connection:
            yield connection

    async def settle(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        read_back: Callable[[Connection], Awaitable[T | None]],
        patient: bool = False,
    ) -> T:
        """Run `work` in a transaction until its outcome is known.

        A connection lost at COMMIT says nothing about the commit: `read_back` looks for what `work`
        would have left, by an id of our own, before `work` is tried again. Deadlocks and serialization
        failures take the same way.

        Raises:
            DatabaseUnavailableError: still not known after SETTLE_TRIES tries.
            RowBusyError: a lock was not given in time. A `patient` caller, for whom nobody waits, gets it
                only at the first try, when nothing was changed.
        """
        failure: Exception | None = None
        for attempt in range(SETTLE_TRIES):
            try:
                async with self.transaction() as tx:
                    if failure is not None:
                        found = await read_back(tx)
                        if found is not None:
                            return found
                    return await work(tx)
            except DatabaseUnavailableError as error:
                failure = error
                await asyncio.sleep(backoff_seconds(attempt, base_seconds=0.1, cap_seconds=1))
            except RowBusyError as error:
                if failure is None or not patient:
                    raise
                # Perhaps held by our own first try, whose loss the server has not noticed yet.
                failure = error
        raise DatabaseUnavailableError("no outcome after every try") from failure

    async def ping(self) -> None:
        """Return when the database answers and takes writes.

        Raises:
            DatabaseUnavailableError: it does not, or it only reads.
        """
        async with self.connection() as connection:
            row = await (await connection.execute("SHOW transaction_read_only")).fetchone()
        if row is None or row[0] != "off":
            raise DatabaseUnavailableError("the database only reads")

    async def fetch_value(self, query: Any, params: Any = None) -> Any:  # noqa: ANN401 - one column of any type
        """The first column of the first row, or None."""
        async with self.connection() as connection:
            row = await (await connection.execute(query, params)).fetchone()
            return row[0] if row else None
