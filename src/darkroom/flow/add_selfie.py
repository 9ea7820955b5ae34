"""Selfies come in: looked at, stored, remembered.

The bytes first, then the row: a crash leaves an unused object, and the same file again is the same selfie. An
object that is being erased is nobody's: its bytes, sent again, get another key (`find_generation`).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from typing import Final

from darkroom.core.jobs import REFERENCES_MAX
from darkroom.core.people import owns_avatar
from darkroom.core.requests import lock_user
from darkroom.core.selfies import (
    KeptSelfie,
    NewSelfie,
    count_upload,
    find_generation,
    find_locale,
    find_owner,
    find_selfie_by_upload,
    keep_selfie,
)
from darkroom.db.database import Connection, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.selfie_messages import SELFIE_LIMIT, Remark, message_of, remarks_of
from darkroom.flow.watch_store import may_put
from darkroom.kit.checkpoint import checkpoint
from darkroom.ports.intake import RefusalCode, Selfie
from darkroom.ports.storage import StorageUnavailableError

SELFIES_MAX: Final = REFERENCES_MAX
"""An avatar keeps no more than a set is made from."""
PUTS_MAX: Final = 3
"""Keys tried for one file: each but the first means that an eraser took the one before, within seconds."""
LIKE_BITS: Final = 6
"""Of 64: a resaved, resized or slightly cropped picture differs in fewer, another pose in more."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as it came in.

    Attributes:
        sha256: of the whole file.
        read: gives its bytes; may block.
        refusal: what the door saw already; the file is then not looked at.
    """

    file_name: str
    sha256: str
    read: Callable[[], bytes]
    refusal: RefusalCode | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A good selfie, its bytes, and the row it may become."""

    selfie: Selfie
    row: NewSelfie


Seen = _Stored | KeptSelfie | RefusalCode
"""What a look at one file gave."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: a selfie, or a code and the reason."""

    file_name: str
    reference_id: int | None
    code: str | None
    message: str | None
    warnings: tuple[Remark, ...]


Receive = Callable[[], AbstractAsyncContextManager[Sequence[Upload]]]


async def add_selfies(
    darkroom: Darkroom, *, user_id: int, avatar_id: int, receive: Receive
) -> list[Outcome]:
    """Keep the good files of a request and say what is wrong with the others, each for itself.

    Whose avatar it is, is asked before `receive` reads the first byte. All that can be kept is kept in
    one transaction; whatever goes wrong before leaves unused objects and no row, and the same request
    again finds what an earlier one kept.

    Raises:
        RequestRefusedError: 404; 422 when no file was kept, with all reasons in `details.files`.
        StorageUnavailableError, RowBusyError, DatabaseUnavailableError: send it again.
    """
    async with darkroom.database.connection() as tx:
        locale = await find_locale(tx, user_id=user_id, avatar_id=avatar_id)
    if locale is None:
        raise not_found("avatar")
    await refuse_too_many_uploads(darkroom, user_id)
    async with receive() as uploads:
        seen = await _all_of([_look(darkroom, avatar_id, upload) for upload in uploads])
    kept = await _keep_all(darkroom, user_id, avatar_id, seen)
    await checkpoint("selfie.after_commit")
    outcomes = [
        _outcome(upload, result, locale) for upload, result in zip(uploads, kept, strict=True)
    ]
    if all(outcome.reference_id is None for outcome in outcomes):
        raise _nothing_kept(outcomes)
    return outcomes


async def refuse_too_many_uploads(darkroom: Darkroom, user_id: int) -> None:
    """Count one more upload before a byte of it is read. Raises RequestRefusedError 429, RowBusyError.

    Behind the user's lock: parallel uploads count each other.
    """
    limits = darkroom.limits
    async with darkroom.database.transaction() as tx:
        await lock_user(tx, user_id, lock_timeout_ms=limits.lock_timeout_ms)
        noted = await count_upload(
            tx,
            user_id=user_id,
            most=limits.uploads_max,
            window_seconds=limits.uploads_window_seconds,
        )
    if not noted:
        raise RequestRefusedError(
            429, "TOO_MANY_UPLOADS", "Too many uploads; please try again in a while"
        )


async def add_selfie(darkroom: Darkroom, *, avatar_id: int, data: bytes) -> int:
    """Keep one picture, as `add_selfies` does, for whoever the avatar belongs to. Returns the selfie's id."""
    async with darkroom.database.connection() as tx:
        owner = await find_owner(tx, avatar_id)
    if owner is None:
        raise not_found("avatar")
    upload = Upload("selfie", hashlib.sha256(data).hexdigest(), lambda: data)
    outcomes = await add_selfies(
        darkroom, user_id=owner, avatar_id=avatar_id, receive=lambda: _InHand([upload])
    )
    return next(one.reference_id for one in outcomes if one.reference_id is not None)


class _InHand(AbstractAsyncContextManager[Sequence[Upload]]):
    """Files that are there already."""

    def __init__(self, uploads: Sequence[Upload]) -> None:
        self._uploads = uploads

    async def __aenter__(self) -> Sequence[Upload]:
        return self._uploads

    async def __aexit__(self, *_error: object) -> None:
        return None


async def _all_of(looks: Sequence[Awaitable[Seen]]) -> list[Seen]:
    """All results in order; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(look) for look in looks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _look(darkroom: Darkroom, avatar_id: int, upload: Upload) -> Seen:
    if upload.refusal is not None:
        return upload.refusal
    async with darkroom.database.connection() as tx:
        known = await find_selfie_by_upload(tx, avatar_id=avatar_id, upload_sha256=upload.sha256)
    if known is not None:
        return known
    selfie = await darkroom.intake.look(upload.read)
    if isinstance(selfie, RefusalCode):
        return selfie
    row = NewSelfie(
        object_key="",
        sha256=hashlib.sha256(selfie.data).hexdigest(),
        upload_sha256=upload.sha256,
        size_bytes=len(selfie.data),
        content_type=selfie.content_type,
        width=selfie.width,
        height=selfie.height,
        dhash=selfie.dhash,
        verdict={
            "warnings": list(selfie.warnings),
            "severe": list(selfie.severe),
            **asdict(selfie.measures),
        },
    )
    return await _put(darkroom, avatar_id, _Stored(selfie, row))


async def _put(darkroom: Darkroom, avatar_id: int, stored: _Stored) -> _Stored:
    """Store the bytes under the key that is nobody's but theirs now. Raises RequestRefusedError 404."""
    if not await may_put(darkroom):
        raise StorageUnavailableError("the store is another database's")
    async with darkroom.database.connection() as tx:
        key = await _key_of(tx, avatar_id, stored)
    await checkpoint("selfie.before_put")
    await darkroom.store.put_once(key, stored.selfie.data, stored.selfie.content_type)
    await checkpoint("selfie.stored")
    return replace(stored, row=replace(stored.row, object_key=key))


async def _key_of(tx: Connection, avatar_id: int, stored: _Stored) -> str:
    generation = await find_generation(tx, avatar_id=avatar_id, sha256=stored.row.sha256)
    if generation is None:
        raise not_found("avatar")  # deleted while its files were looked at
    name = stored.row.sha256 if generation == 0 else f"{stored.row.sha256}-{generation}"
    return f"references/{avatar_id}/{name}.{stored.selfie.extension}"


async def _keep_all(
    darkroom: Darkroom, user_id: int, avatar_id: int, seen: Sequence[Seen]
) -> list[KeptSelfie | str]:
    """Keep what can be kept, in one transaction, with no key among it that an eraser has taken."""

    async def keep(tx: Connection) -> list[KeptSelfie | str] | None:
        return await _keep(darkroom, tx, user_id, avatar_id, seen)

    async def read_back(tx: Connection) -> None:
        """Nothing to look for: keeping twice finds what the first time kept."""
        del tx

    for _ in range(PUTS_MAX):
        kept = await darkroom.database.settle(keep, read_back=read_back)
        if kept is not None:
            return kept
        seen = [
            await _put_elsewhere(darkroom, avatar_id, one) if isinstance(one, _Stored) else one
            for one in seen
        ]
    raise RowBusyError


async def _put_elsewhere(darkroom: Darkroom, avatar_id: int, stored: _Stored) -> _Stored:
    """Where an eraser has taken the key, take back what may have been put after it, and put again."""
    async with darkroom.database.connection() as tx:
        key = await _key_of(tx, avatar_id, stored)
    if key == stored.row.object_key:
        return stored
    await darkroom.store.delete(stored.row.object_key)
    return await _put(darkroom, avatar_id, stored)


async def _keep(
    darkroom: Darkroom, tx: Connection, user_id: int, avatar_id: int, seen: Sequence[Seen]
) -> list[KeptSelfie | str] | None:
    """None, and nothing kept: a key was taken by an eraser, whose mark is set behind the same lock."""
    await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
    if not await owns_avatar(tx, user_id=user_id, avatar_id=avatar_id):
        raise not_found("avatar")  # deleted while its files were looked at
    stored = [one for one in seen if isinstance(one, _Stored)]
    if any([await _key_of(tx, avatar_id, one) != one.row.object_key for one in stored]):
        return None
    results: list[KeptSelfie | str] = []
    for one in seen:
        if isinstance(one, _Stored):
            kept = await keep_selfie(
                tx, avatar_id=avatar_id, selfie=one.row, most=SELFIES_MAX, like_bits=LIKE_BITS
            )
            results.append(SELFIE_LIMIT if kept is None else kept)
        else:
            results.append(one)
    await checkpoint("selfie.before_commit")
    return results


def _outcome(upload: Upload, result: KeptSelfie | str, locale: str) -> Outcome:
    if isinstance(result, str):
        return Outcome(upload.file_name, None, str(result), message_of(result, locale), ())
    return Outcome(upload.file_name, result.id, None, None, remarks_of(result.verdict, locale))


def describe(outcome: Outcome) -> dict[str, object]:
    """One file's result as programs read it, in an answer and in a refusal alike."""
    found: dict[str, object] = {
        "fileName": outcome.file_name,
        "accepted": outcome.reference_id is not None,
        "warnings": [asdict(remark) for remark in outcome.warnings],
    }
    if outcome.reference_id is not None:
        found["referenceId"] = outcome.reference_id
    if outcome.code is not None:
        found |= {"code": outcome.code, "message": outcome.message}
    return found


def _nothing_kept(outcomes: Sequence[Outcome]) -> RequestRefusedError:
    """One reason shared by all is the answer's own; otherwise each file tells its own."""
    codes = {outcome.code for outcome in outcomes}
    first = outcomes[0]
    code, message = "NO_PHOTO_ACCEPTED", "None of the photos could be accepted"
    if len(codes) == 1 and first.code is not None and first.message is not None:
        code, message = first.code, first.message
    return RequestRefusedError(
        422, code, message, files=[describe(outcome) for outcome in outcomes]
    )
