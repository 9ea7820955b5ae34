"""Everything of one order for a dispute: what is written, and whether the stored pictures are the same."""

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

from darkroom.core.evidence import (
    EVIDENCE_SECONDS,
    OrderRecord,
    StoredObject,
    read_order_record,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError
from darkroom.kit.checkpoint import checkpoint
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError

READERS: Final = 4
"""Pictures read side by side: a set of 23 at the store's slowest (30 s each) is three minutes."""
_BIGINT_BELOW: Final = 2**63

Bytes = Literal["same", "differs", "missing", "not answered"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An order's record, and how each of its stored pictures was found, by object key."""

    record: OrderRecord
    stored: dict[str, Bytes]


async def gather_evidence(darkroom: Darkroom, payment_id: int) -> Evidence:
    """Read everything of one order, then every stored picture of it. Changes nothing; harmless to repeat.

    Raises:
        RequestRefusedError: no such payment.
        DatabaseUnavailableError: the database is gone; ask again.
    """
    record = await _read(darkroom, payment_id) if 0 < payment_id < _BIGINT_BELOW else None
    if record is None:
        raise RequestRefusedError(404, "PAYMENT_NOT_FOUND", f"No such payment: {payment_id}")
    await checkpoint("evidence.record_read")
    turns = asyncio.Semaphore(READERS)

    async def look(wanted: StoredObject) -> Bytes:
        async with turns:
            return await _compare(darkroom, wanted)

    objects = record.objects()
    found = await asyncio.gather(*(look(wanted) for wanted in objects))
    return Evidence(record, {one.key: said for one, said in zip(objects, found, strict=True)})


async def _read(darkroom: Darkroom, payment_id: int) -> OrderRecord | None:
    async with darkroom.database.transaction(timeout_seconds=EVIDENCE_SECONDS) as tx:
        return await read_order_record(tx, payment_id)


async def _compare(darkroom: Darkroom, wanted: StoredObject) -> Bytes:
    """Hash what the store gives now, piece by piece."""
    digest = hashlib.sha256()
    try:
        pieces = await darkroom.store.read(wanted.key)
        async with aclosing(pieces):
            async for piece in pieces:
                digest.update(piece)
    except ObjectMissingError:
        return "missing"
    except StorageUnavailableError:
        return "not answered"
    return "same" if digest.hexdigest() == wanted.sha256 else "differs"
