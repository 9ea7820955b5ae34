"""The tables as they were, and a driver that knows one statement at a time.

The older system spoke SQL over HTTP: every statement was a request and a transaction of its own. Nothing here
can join two of them, which is where most of the flaws begin (bugbook I, lesson 1).
"""

import asyncio
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg.rows import DictRow, dict_row

from darkroom.kit.checkpoint import checkpoint
from darkroom.torture.design import Surroundings

CONNECT_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 10
CONNECTIONS_MAX: Final = 12
"""Of one process, as many as Darkroom's has on the same torture."""

# A1: nothing says that a payment has one job. B7: nothing says that a photo of a job has one task.
# C14: the design knows no job of a photo. A photo's job_id, prompt_index and sha256 are the judge's: nothing
# else reads them. So is callback_token: it tells the judge which of the provider's tasks a row knows.
SCHEMA: Final[LiteralString] = """
CREATE TABLE users (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    telegram_user_id BIGINT UNIQUE NOT NULL);
CREATE TABLE avatars (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users, name TEXT NOT NULL);
CREATE TABLE tiers (id TEXT PRIMARY KEY, photo_count INTEGER NOT NULL, amount_minor BIGINT NOT NULL);
CREATE TABLE pack_prompts (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, style_id TEXT NOT NULL,
    position INTEGER NOT NULL, prompt TEXT NOT NULL);
CREATE SEQUENCE payment_numbers;
CREATE TABLE payments (id BIGINT PRIMARY KEY, user_id BIGINT NOT NULL REFERENCES users,
    bank_payment_id TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending', tier_id TEXT NOT NULL,
    photo_count INTEGER NOT NULL, amount_minor BIGINT NOT NULL,
    generation_consumed BOOLEAN NOT NULL DEFAULT FALSE, consumed_at TIMESTAMPTZ, consumed_avatar_id BIGINT,
    refund_status TEXT, refund_amount_minor BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE generation_jobs (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id BIGINT NOT NULL REFERENCES payments, avatar_id BIGINT NOT NULL REFERENCES avatars,
    style_id TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending', total_photos INTEGER NOT NULL,
    completed_photos INTEGER NOT NULL DEFAULT 0, used_prompt_ids BIGINT[] NOT NULL, error_message TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE kie_tasks (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id BIGINT NOT NULL REFERENCES generation_jobs, avatar_id BIGINT NOT NULL, style_id TEXT NOT NULL,
    prompt TEXT NOT NULL, prompt_index INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    kie_task_id TEXT NOT NULL, callback_token TEXT, result_url TEXT, error_message TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE generated_photos (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, avatar_id BIGINT NOT NULL,
    style_id TEXT NOT NULL, prompt TEXT NOT NULL, image_url TEXT NOT NULL,
    job_id BIGINT NOT NULL, prompt_index INTEGER NOT NULL, sha256 TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE qstash_processed_messages (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id VARCHAR(255) UNIQUE NOT NULL, processed_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE INDEX ON payments (user_id, created_at DESC);
CREATE INDEX ON generation_jobs (status);
CREATE INDEX ON generation_jobs (payment_id);
CREATE INDEX ON kie_tasks (job_id, prompt_index);
CREATE INDEX ON kie_tasks (status, created_at);
CREATE INDEX ON generated_photos (avatar_id, style_id);
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process is told, as one JSON object on its command line.

    Attributes:
        life: what its own accidents are drawn from.
        poll_seconds: stands for the minute between two runs of the cron.
        poll_limit: tasks looked at in one run; it was 10 a minute (C4, which is not what is measured here).
        stuck_seconds: without progress for so long a job is given up; it was 10 minutes.
        pending_seconds: not begun for so long a job is given up; it was 15 minutes.
    """

    folder: str
    dsn: str
    server_port: int
    server_url: str
    provider_url: str
    provider_key: str
    bank_url: str
    bank_secret: str
    queue_key: str
    life: str
    poll_seconds: float = 1
    poll_limit: int = 30
    stuck_seconds: float = 60
    pending_seconds: float = 90

    @classmethod
    def of(cls, places: Surroundings, *, life: str) -> Self:
        """What a process has to know of its surroundings."""
        known: dict[str, Any] = asdict(places) | {"folder": str(places.folder), "life": life}
        # What it never sees, and what it does not know how to use.
        del known["calm_dsn"], known["rented"]
        return cls(**known)


class Statements:
    """One statement at a time, each committed when it is answered. A lost connection is the caller's error."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: list[psycopg.AsyncConnection[DictRow]] = []
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)

    async def run(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[DictRow]:
        """Run it and give its rows, if it has any.

        Raises:
            psycopg.Error: refused, or nobody knows: the connection was lost.
        """
        async with self._room:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                with _cut_after(connection, STATEMENT_SECONDS):
                    cursor = await connection.execute(query, params)
                    rows = await cursor.fetchall() if cursor.description else []
            finally:
                if connection.closed:
                    # The next request finds new ones: over HTTP there was nothing to go stale.
                    await self.close()
                else:
                    self._idle.append(connection)
        await checkpoint("previous.statement")
        return rows

    async def first(
        self, query: LiteralString, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> DictRow | None:
        """The first row, or None. Raises as `run`."""
        rows = await self.run(query, params)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Let go of every connection that nobody uses."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[DictRow]:
        return await psycopg.AsyncConnection[DictRow].connect(
            self._dsn, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_SECONDS
        )


@contextmanager
def _cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Generator[None]:
    """A server that says nothing is given up by cutting the wire: asking it to cancel would wait again."""

    def cut() -> None:
        if not connection.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    cutting = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        yield
    finally:
        cutting.cancel()
