"""Connections that wait for their next use."""

from operator import attrgetter
from typing import Final, TypeVar

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

C = TypeVar("C", bound=AsyncConnection)

_BEGINNING: Final = attrgetter("_created_at")
"""When the library opened a connection."""


class WarmestFirst(AsyncConnectionPool[C]):
    """A pool that hands out the connection that was opened first; the library's own takes each in turn.

    A connection plans each statement twice before it knows it by heart: some 30 statements of an order, a
    millisecond or two each, the longest 5. In turn, every connection that one busy moment opened asks for that
    again and again; the one given back last is, after a moment in which all lanes looked at once, any of them.
    This way the same few know everything, and the others are closed as the library does.
    """

    # Not promised by the library: a test holds that it still works so.
    async def _get_ready_connection(self, timeout: float | None) -> C | None:  # noqa: ASYNC109 - the library's
        # It takes the first of the line, and puts what comes back at its end.
        if len(self._pool) > 1:
            oldest = min(self._pool, key=_BEGINNING)
            self._pool.remove(oldest)
            self._pool.appendleft(oldest)
        return await super()._get_ready_connection(timeout)
