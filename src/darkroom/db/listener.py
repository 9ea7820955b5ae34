"""Hearing NOTIFY on a connection of its own. Nothing rests on it: what is not heard is found by looking."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.db.database import CONNECTION_OPTIONS, Database, DatabaseUnavailableError


async def heard(database: Database, channel: str) -> AsyncGenerator[str | None]:
    """The payloads that others send to the channel; None first: whatever was sent before was not heard.

    Takes no connection of the pool, and holds one of its own until the generator is closed.

    Raises:
        DatabaseUnavailableError: no connection, or it was lost. Call again after a pause.
    """
    try:
        address = make_conninfo(database.dsn, **CONNECTION_OPTIONS)
        async with await AsyncConnection.connect(address, autocommit=True) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            yield None
            async with aclosing(connection.notifies()) as notifications:
                async for notification in notifications:
                    yield notification.payload
    except psycopg.Error as error:
        raise DatabaseUnavailableError(type(error).__name__) from error
