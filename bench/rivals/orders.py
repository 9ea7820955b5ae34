"""The order that every rival carries out, and what each of its photos costs outside of the rival's library.

The provider's adapter, the decoding, the thumbnail and the write-once put with fsync are the product's own, so
that what differs between two columns is what their libraries do.
"""

import asyncio
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString
from uuid import NAMESPACE_OID, UUID, uuid5

import psycopg

from bench.worker import make_provider
from darkroom.adapters.storage import open_storage
from darkroom.adapters.thumbnails import develop
from darkroom.kit.process import spare_the_collector
from darkroom.ports.generation import Created, FailedThere, GenerationRequest, Ready, Reference

PHOTOS_AN_ORDER: Final = 7
IN_FLIGHT: Final = 40
"""Photos that one worker has in hand at once: Darkroom's has two lanes of twenty."""
CONNECTIONS: Final = 20
"""Of one worker at most, the library's own beside them. More of them did not make any rival faster."""
ASK_SECONDS: Final = 1.0
"""Between two questions about one task."""
RETRIES_MAX: Final = 10
SELFIES: Final = tuple(Reference(f"references/{n}", f"{n:064x}", "image/jpeg") for n in range(4))

SCHEMA: Final[LiteralString] = """
CREATE TABLE orders (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    photo_count INTEGER NOT NULL,
    photos_stored INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL DEFAULT 'paid');
CREATE TABLE provider_tasks (
    order_id BIGINT NOT NULL REFERENCES orders,
    position INTEGER NOT NULL,
    provider_task_id TEXT NOT NULL,
    PRIMARY KEY (order_id, position));
CREATE TABLE photos (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id BIGINT NOT NULL REFERENCES orders,
    position INTEGER NOT NULL,
    provider_task_id TEXT NOT NULL,
    object_key TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    thumbnail_key TEXT NOT NULL,
    stored_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (order_id, position));
"""
"""The unique constraint is there because all three libraries ask for handlers that may run twice."""
CONSUME: Final[LiteralString] = (
    "UPDATE orders SET status = 'started' WHERE id = %s AND status = 'paid' RETURNING photo_count"
)
"""The payment is used up: whatever starts the work is written in the same transaction."""
FIND_TASK: Final[LiteralString] = (
    "SELECT provider_task_id FROM provider_tasks WHERE order_id = %(order)s AND position = %(position)s"
)
KEEP_TASK: Final[LiteralString] = (
    "INSERT INTO provider_tasks (order_id, position, provider_task_id) "
    "VALUES (%(order)s, %(position)s, %(task)s) ON CONFLICT DO NOTHING"
)
STORE_PHOTO: Final[LiteralString] = """
WITH stored AS (
    INSERT INTO photos
        (order_id, position, provider_task_id, object_key, sha256, size_bytes, thumbnail_key)
    VALUES (%(order)s, %(position)s, %(task)s, %(key)s, %(sha256)s, %(size)s, %(thumbnail)s)
    ON CONFLICT DO NOTHING RETURNING order_id)
UPDATE orders SET photos_stored = photos_stored + 1,
    status = CASE WHEN photos_stored + 1 = photo_count THEN 'complete' ELSE status END
WHERE id IN (SELECT order_id FROM stored)
"""
"""A photo, counted once; with the last one its order is complete."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of one order."""

    order_id: int
    position: int

    @property
    def token(self) -> UUID:
        """What the provider's books know it by, at every attempt the same."""
        return uuid5(NAMESPACE_OID, f"{self.order_id}/{self.position}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture in our storage."""

    object_key: str
    sha256: str
    size_bytes: int
    thumbnail_key: str


class TryAgainError(Exception):
    """The provider said no, or nothing: the library's own retry is to see to it."""


class Studio:
    """The provider and the storage, by the product's adapters."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self._provider = make_provider(base_url)
        self._store = open_storage(None, folder)

    async def create(self, photo: Photo) -> str:
        """The provider's id of a new task. Whoever calls twice buys twice.

        Raises:
            TryAgainError: no task, or nobody knows.
        """
        answer = await self._provider.create(_request_of(photo))
        if not isinstance(answer, Created):
            raise TryAgainError(repr(answer))
        return answer.provider_task_id

    async def ask(self, photo: Photo, task_id: str) -> str | None:
        """Where the picture is; None: not done yet.

        Raises:
            TryAgainError: it failed there.
            ProviderUnavailableError: no answer.
        """
        answer = await self._provider.ask(_request_of(photo), task_id)
        if isinstance(answer, FailedThere):
            raise TryAgainError(answer.code)
        return answer.result_url if isinstance(answer, Ready) else None

    async def wait_for(self, photo: Photo, task_id: str) -> str:
        """Ask until it is done; where the picture is. Raises as `ask`."""
        while (result_url := await self.ask(photo, task_id)) is None:  # noqa: ASYNC110 - nobody calls
            await asyncio.sleep(ASK_SECONDS)
        return result_url

    async def keep(self, photo: Photo, task_id: str, result_url: str) -> Kept:
        """Fetch, decode, store with its thumbnail, both on the disk. Harmless to repeat."""
        data = await self._provider.fetch(_request_of(photo), task_id, result_url)
        developed = await develop(data)
        facts, small = developed.facts, developed.thumbnail
        if small is None:
            raise AssertionError(developed.trouble)
        sha256 = hashlib.sha256(data).hexdigest()
        place = f"{photo.order_id}/{photo.position}"
        key = f"generated/{place}-{sha256[:16]}.{facts.extension}"
        name = hashlib.sha256(small.data).hexdigest()[:16]
        thumbnail_key = f"thumbnails/{place}-{name}.{small.extension}"
        await asyncio.gather(
            self._store.put_once(key, data, facts.content_type),
            self._store.put_once(thumbnail_key, small.data, small.content_type),
        )
        return Kept(key, sha256, len(data), thumbnail_key)

    async def close(self) -> None:
        """Give back connections."""
        await self._provider.close()


def say(word: str) -> None:
    """Tell whoever started this process that it has come so far: what stands by then stays, as in ours."""
    spare_the_collector()
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def row_of(photo: Photo, task_id: str, kept: Kept) -> dict[str, str | int]:
    """The values of `STORE_PHOTO`."""
    return {
        "order": photo.order_id,
        "position": photo.position,
        "task": task_id,
        "key": kept.object_key,
        "sha256": kept.sha256,
        "size": kept.size_bytes,
        "thumbnail": kept.thumbnail_key,
    }


def pay_orders(dsn: str, count: int) -> list[int]:
    """Tables, and orders that are paid and not started. Gives their ids."""
    with psycopg.connect(dsn) as one:
        one.execute(SCHEMA)
        rows = one.execute(
            "INSERT INTO orders (photo_count) SELECT %s FROM generate_series(1, %s) RETURNING id",
            [PHOTOS_AN_ORDER, count],
        ).fetchall()
    return [int(order_id) for (order_id,) in rows]


def _request_of(photo: Photo) -> GenerationRequest:
    return GenerationRequest(
        task_id=photo.order_id * 100 + photo.position,
        token=photo.token,
        prompt=f"Take {photo.position + 1} of order {photo.order_id}",
        prompt_index=photo.position,
        place=photo.position,
        take=0,
        seed=photo.position,
        style_id="signature",
        references=SELFIES,
    )
