"""Connections that wait for their next use."""

from itertools import count
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

C = TypeVar("C", bound=AsyncConnection)


class WarmestFirst(AsyncConnectionPool[C]):
    """A pool that hands out the connection that has been there longest; the library's own takes each in turn.

    A connection plans each statement twice before it knows it by heart: some 30 statements of an order, a
    millisecond or two each, the longest 5. In turn, every connection that one busy moment opened asks for that
    again and again; the one given back last is, after a moment in which all lanes looked at once, any of them.
    This way the same few know everything, and the others are closed as the library does.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__(*arguments, **settings)
        self._order: Final[WeakKeyDictionary[C, int]] = WeakKeyDictionary()
        self._numbers: Final = count()

    # Not promised by the library: a test holds that it still works so.
    async def _get_ready_connection(self, timeout: float | None) -> C | None:  # noqa: ASYNC109 - the library's
        # It takes the first of the line, and puts what comes back at its end.
        if len(self._pool) > 1:
            oldest = min(self._pool, key=self._number_of)
            self._pool.remove(oldest)
            self._pool.appendleft(oldest)
        return await super()._get_ready_connection(timeout)

    def _number_of(self, connection: C) -> int:
        """In the order in which they were first seen waiting, which is that of their age or nearly so."""
        number = self._order.get(connection)
        if number is None:
            number = self._order[connection] = next(self._numbers)
        return number
