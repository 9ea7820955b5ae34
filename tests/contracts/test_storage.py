"""The object store's contract, on the embedded default."""

import asyncio
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from darkroom.adapters.storage import PIECE_BYTES, Storage, open_storage
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.storage import ObjectConflictError, ObjectMissingError, StorageUnavailableError


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return (
        open_storage(None, tmp_path / "o") if request.param == "folder" else Storage(MemoryStore())
    )


async def test_what_was_put_is_there(storage: Storage) -> None:
    await storage.put_once("a/b/c.jpg", b"data", "image/jpeg")
    assert await storage.get("a/b/c.jpg") == b"data"


async def test_the_same_bytes_again_are_success_and_others_a_conflict(storage: Storage) -> None:
    """bugbook C16: a retry stored the same photo again under a random key."""
    await asyncio.gather(*(storage.put_once("k", b"data", "image/jpeg") for _ in range(10)))
    with pytest.raises(ObjectConflictError):
        await storage.put_once("k", b"other", "image/jpeg")
    assert await storage.get("k") == b"data"


async def test_a_missing_object_is_missing_and_deleting_it_is_harmless(storage: Storage) -> None:
    with pytest.raises(ObjectMissingError):
        await storage.get("nothing")
    await storage.delete("nothing")
    await storage.put_once("k", b"data", "image/jpeg")
    await storage.delete("k")
    with pytest.raises(ObjectMissingError):
        await storage.get("k")


async def test_the_keys_of_one_folder_are_listed(storage: Storage) -> None:
    for key in ("people/1/a", "people/1/b/c", "people/12/a", "others/1/a"):
        await storage.put_once(key, b"data", "image/jpeg")
    assert await storage.list_keys("people/1") == ["people/1/a", "people/1/b/c"]
    assert await storage.list_keys("people/2") == []


async def test_it_is_never_called_inside_a_transaction(storage: Storage) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await storage.put_once("k", b"data", "image/jpeg")


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "o")
    (tmp_path / "o" / "blocked").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageUnavailableError):
        await storage.put_once("blocked/k", b"data", "image/jpeg")


async def test_a_part_is_read_piece_by_piece(storage: Storage) -> None:
    data = bytes(range(256)) * 4000
    await storage.put_once("k", data, "image/jpeg")
    for first, beyond in (
        (0, None),
        (0, 1),
        (5, 700_000),
        (len(data) - 1, len(data)),
        (1000, None),
    ):
        pieces = [piece async for piece in await storage.read("k", first=first, beyond=beyond)]
        assert b"".join(pieces) == data[first:beyond], (first, beyond)
    left = await storage.read("k")
    assert (await anext(left))[:3] == data[:3]
    await left.aclose()
    with pytest.raises(ObjectMissingError):
        await storage.read("nothing")


async def test_a_slow_reader_of_a_folder_holds_one_piece(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "o")
    await storage.put_once("k", bytes(3 * PIECE_BYTES + 1), "image/jpeg")
    sizes = [len(piece) async for piece in await storage.read("k")]
    assert sizes == [PIECE_BYTES] * 3 + [1]
