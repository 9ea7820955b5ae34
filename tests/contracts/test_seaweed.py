"""The stand-in for S3 is a good guest: on ports of its own, and gone when its block is."""

import os
from pathlib import Path

import pytest

from darkroom.adapters.storage import open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.twin.seaweed import SeaweedServer, seaweed


def place(server: SeaweedServer) -> S3Place:
    return S3Place(
        server.bucket, "", server.endpoint, "auto", server.access_key_id, server.secret_access_key
    )


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_two_at_once_do_not_meet_and_both_are_gone_afterwards(
    tmp_path: Path, s3_server: SeaweedServer
) -> None:
    seen: list[SeaweedServer] = []

    async def die_in_the_middle() -> None:
        async with seaweed(tmp_path / "second", bucket="other") as server:
            seen.append(server)
            await open_s3(place(server)).prove()
            await open_s3(place(server)).put_once("k", b"kept", "image/jpeg")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await die_in_the_middle()
    second = seen[0]
    assert second.endpoint != s3_server.endpoint
    assert not lives(second.pid)
    assert lives(s3_server.pid)
    assert second.secret_access_key not in repr(second)
    # What it kept is in its folder: the next one on it has it.
    async with seaweed(tmp_path / "second", bucket="other") as again:
        assert await open_s3(place(again)).get("k") == b"kept"
    assert not lives(again.pid)
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{again.endpoint.rsplit(':', 1)[1]}.sock"))  # noqa: S108
