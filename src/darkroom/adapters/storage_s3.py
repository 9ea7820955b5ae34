"""S3 and R2 as obstore opens them: every option said, none left to the environment; and what they answer."""

import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

REQUEST_SECONDS: Final = 12
"""One request: MULTIPART_ABOVE_BYTES at 2 MB/s take 8 s."""
RETRY_SECONDS: Final = 15
"""No request begins later than this after the first: with REQUEST_SECONDS on top the last one still ends within
`storage.CALL_SECONDS`."""
RETRIES_MAX: Final = 3
BACKOFF_FIRST_SECONDS, BACKOFF_MOST_SECONDS = 0.1, 2
CONNECT_SECONDS: Final = 5
STREAM_SECONDS: Final = 3600
"""A download that a customer reads at their own pace; each piece of it is timed by itself."""
MULTIPART_ABOVE_BYTES: Final = 16 * 1024 * 1024
"""More than this would not surely go within one request of REQUEST_SECONDS."""
PART_BYTES: Final = 8 * 1024 * 1024
"""R2 wants parts of equal size but for the last, at least 5 MiB each (external-apis 6.1)."""
PARTS_AT_ONCE: Final = 2
"""Two parts that share 2 MB/s take 8 s, within REQUEST_SECONDS."""
PATH_CHARACTERS_MAX: Final = 200
"""Of a strange key in a log line: enough to find it by."""
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1"})
READ_BY_OBSTORE: Final = "AWS_"
"""obstore takes options from variables that begin so: a token, an address, encryption, weaker TLS."""

_opening: Final = threading.Lock()
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_PATH: Final = re.compile(r'Path "(.*?)"(?: contained|: Encountered)', re.DOTALL)
_NO_KEY: Final = "NoSuchKey"
_WRONG: Final = {
    "InvalidAccessKeyId": "S3_ACCESS_KEY_ID is not known there",
    "SignatureDoesNotMatch": "S3_SECRET_ACCESS_KEY is not the secret of S3_ACCESS_KEY_ID",
    "AccessDenied": "the key S3_ACCESS_KEY_ID may not read, write and delete in this bucket",
    "Unauthorized": "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are not accepted there",
    "NoSuchBucket": "DARKROOM_STORAGE_URL names a bucket that is not there",
    "InvalidBucketName": "DARKROOM_STORAGE_URL names no possible bucket",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than a quarter of an hour",
    "AuthorizationHeaderMalformed": "S3_REGION is not the bucket's region",
    "PermanentRedirect": "S3_ENDPOINT or S3_REGION is not the bucket's",
    "NotImplemented": "the store does not know conditional writes",
}
"""What an operator can do about a code (external-apis 6)."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket, or a part of one, and the keys to it.

    Attributes:
        prefix: before every key, without slashes around; empty for none.
        endpoint: None is Amazon's own, by region.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


def place_of(
    url: str, *, endpoint: str | None, region: str, access_key_id: str, secret_access_key: str
) -> S3Place:
    """The place that `s3://bucket/optional/prefix` names. Raises ValueError for another kind of address."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("a store's address is s3://bucket/optional/prefix")
    return S3Place(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=None if endpoint is None else endpoint.rstrip("/"),
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
    )


def open_bucket(place: S3Place, *, request_seconds: float = REQUEST_SECONDS) -> S3Store:
    """The bucket, opened; nothing is asked yet.

    The bucket's name goes into the path wherever an endpoint is given: R2 takes both ways, SeaweedFS and
    everything on loopback only this one. Amazon's own gets it as the host's first word. Plain HTTP is for
    loopback alone. R2 knows no tags, and one DELETE an object says what became of it (external-apis 6.1).

    Amazon's certificates are for one word before its own name: a bucket with dots in its name goes into the
    path there, too.
    """
    host = None if place.endpoint is None else urlsplit(place.endpoint).hostname
    client: ClientConfig = {
        "allow_http": host in LOOPBACK_HOSTS,
        "timeout": timedelta(seconds=request_seconds),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
    }
    retries: RetryConfig = {
        "max_retries": RETRIES_MAX,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=BACKOFF_FIRST_SECONDS),
            "max_backoff": timedelta(seconds=BACKOFF_MOST_SECONDS),
            "base": 2,
        },
    }
    options: S3Config = {
        "region": place.region,
        "access_key_id": place.access_key_id,
        "secret_access_key": place.secret_access_key,
        "virtual_hosted_style_request": place.endpoint is None and "." not in place.bucket,
        "conditional_put": "etag",
        "disable_tagging": True,
        "disable_bulk_delete": True,
    }
    if place.endpoint is not None:  # Amazon's own address follows from the region
        options["endpoint"] = place.endpoint
    with _environment_hidden():
        return S3Store(
            place.bucket,
            prefix=place.prefix or None,
            config=options,
            client_options=client,
            retry_config=retries,
        )


@contextmanager
def _environment_hidden() -> Generator[None]:
    """What stands in the environment for other programs is not there while a store is opened.

    obstore reads it first and our options after it, but some of it no option takes back (encryption), and what
    it learns to read next no list of ours would name. It is read when a store is opened and never after. Hosts
    like Lambda set a token of their own there, which S3 refuses beside our keys.
    """
    with _opening:
        hidden = {name: os.environ[name] for name in os.environ if name.startswith(READ_BY_OBSTORE)}
        try:
            for name in hidden:
                del os.environ[name]
            yield
        finally:
            os.environ.update(hidden)


def reason_of(error: BaseException) -> str:
    """What went wrong, for a log line: the kind of error and the store's own code. Never its whole text."""
    code = _code_of(error)
    if isinstance(error, InvalidPathError):
        return f"{type(error).__name__}: {_path_in(error)}"
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


def is_of_the_key(error: BaseException) -> bool:
    """Whether the store itself says that there is no such object: by its code, not by a 404 alone.

    A proxy whose store is being restarted says 404, too, with a page of its own; and a bucket that is not there
    says nothing of its objects. HEAD has no body and so no code (external-apis 6.2).
    """
    return _code_of(error) == _NO_KEY


def advice_of(error: BaseException) -> str:
    """What is wrong, for an operator who is about to mend it."""
    code = _code_of(error)
    known = None if code is None else _WRONG.get(code)
    if known is not None:
        return known
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are refused there ({code or 'no reason given'})"
    if code is None and isinstance(error, FileNotFoundError):
        return "S3_ENDPOINT answers 404 as no store does: a proxy, or another server?"
    if code is None and isinstance(error, TimeoutError):
        return "S3_ENDPOINT does not answer in time"
    return f"the store refuses or does not answer ({reason_of(error)})"


def _code_of(error: BaseException) -> str | None:
    found = _CODE.search(str(error))
    return None if found is None else found[1]


def _path_in(error: BaseException) -> str:
    """The key that obstore cannot name, in ASCII and not too long: somebody else chose it."""
    found = _PATH.search(str(error))
    return "a key" if found is None else ascii(found[1][:PATH_CHARACTERS_MAX])
