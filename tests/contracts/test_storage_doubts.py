"""What works, and keeps more than it should or shows it to others, is said."""

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from darkroom.adapters.storage import Storage, open_s3, open_storage
from darkroom.adapters.storage_s3 import S3Place
from darkroom.flow.examine import examine_store
from darkroom.ports.checkup import Grade
from darkroom.ports.storage import ObjectMissingError, StoreDoubt
from darkroom.twin.store_faults import StoreProxy

JPEG = "image/jpeg"
SELFIE = "references/1/a.jpg"
VERSIONS_ON = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


@pytest.fixture
async def versioned(s3_place: S3Place) -> S3Place:
    """A bucket of its own that keeps versions."""
    place = replace(s3_place, bucket=f"versions-{s3_place.prefix[-12:]}", prefix="")
    async with httpx.AsyncClient(trust_env=False) as http:
        for query, body in (("", b""), ("versioning=", VERSIONS_ON)):
            url = f"{place.endpoint}/{place.bucket}?{query}"
            headers = _signed("PUT", url, place, body)
            answer = await http.put(url, content=body, headers=headers)
            assert answer.is_success, answer.text
    return place


async def test_a_bucket_that_keeps_erased_selfies_is_doubtful(versioned: S3Place) -> None:
    """Neither a start nor the doctor saw it, and each selfie that was erased could be read for ever."""
    storage = open_s3(versioned)
    await storage.put_once(SELFIE, b"selfie", JPEG)
    await storage.delete(SELFIE)
    with pytest.raises(ObjectMissingError):
        await storage.get(SELFIE)
    assert await storage.prove() == {StoreDoubt.KEEPS_VERSIONS}
    finding = await examine_store(storage)
    assert finding.grade is Grade.DOUBTFUL
    assert "NoncurrentVersionExpiration" in finding.advice


async def test_versions_that_are_only_names_are_no_doubt(
    behind: Storage, bucket: Storage, proxy: StoreProxy
) -> None:
    """R2 names one at each put and keeps none."""
    proxy.names_versions = True
    assert await behind.prove() == frozenset()
    assert await bucket.prove() == frozenset()
    assert (await examine_store(behind)).grade is Grade.WELL


async def test_nobody_else_on_the_machine_reads_selfies(tmp_path: Path) -> None:
    """By the usual umask every user could."""
    folder = tmp_path / "data" / "objects"
    storage = open_storage(None, folder)
    await storage.put_once(SELFIE, b"selfie", JPEG)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert await storage.prove() == frozenset()


async def test_a_folder_from_before_is_closed_and_what_is_in_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir(mode=0o755)
    (folder / "k").write_bytes(b"photo")
    storage = open_storage(None, folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert await storage.get("k") == b"photo"


async def test_a_folder_that_is_somebody_elses_is_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = tmp_path / "objects"
    folder.mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    storage = open_storage(None, folder)
    await storage.put_once(SELFIE, b"selfie", JPEG)
    assert await storage.prove() == {StoreDoubt.OPEN_TO_OTHERS}
    finding = await examine_store(storage)
    assert (finding.grade, "chmod 700" in finding.advice) == (Grade.DOUBTFUL, True)


def _signed(method: str, url: str, place: S3Place, body: bytes) -> dict[str, str]:
    """Signature version 4, for what obstore does not ask: buckets and what is set on them."""
    parts = urlsplit(url)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    asked = f"{method}\n{parts.path}\n{parts.query}\n{lines}\n{names}\n{digest}"
    steps = (moment[:8], place.region, "s3", "aws4_request")
    scope = "/".join(steps)
    hashed = hashlib.sha256(asked.encode()).hexdigest()
    key = f"AWS4{place.secret_access_key}".encode()
    for step in steps:
        key = hmac.digest(key, step.encode(), "sha256")
    signed = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    signature = hmac.new(key, signed.encode(), "sha256").hexdigest()
    credential = f"Credential={place.access_key_id}/{scope}"
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
    )
    return headers
