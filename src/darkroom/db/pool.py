"""Connections that wait for their next use."""

from typing import TypeVar

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

C = TypeVar("C", bound=AsyncConnection)


class WarmestFirst(AsyncConnectionPool[C]):
    """A pool that hands out the connection that was given back last; the library's own takes each in turn.

    A connection plans each statement twice before it knows it by heart: some 30 statements of an order, a
    millisecond or two each. In turn, every connection that one busy minute opened asks for that again and
    again; this way the few that are needed know everything, and the others are closed as the library does.
    """

    # Not promised by the library: a test holds that it still works so.
    async def _get_ready_connection(self, timeout: float | None) -> C | None:  # noqa: ASYNC109 - the library's
        # It takes the first of the line, and puts what comes back at its end.
        self._pool.rotate(1)
        return await super()._get_ready_connection(timeout)
