"""What a store's answers mean, as the port names them."""

from collections.abc import Generator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from darkroom.adapters.storage_line import LineFullError
from darkroom.adapters.storage_s3 import is_of_the_key, reason_of
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError


@contextmanager
def errors_of(call: str, key: str, *, is_bucket: bool) -> Generator[None]:
    """A call's errors. "Not found" of a bucket counts when the store itself says it of the key.

    Raises:
        ObjectMissingError: no such object, surely.
        StorageUnavailableError: anything else.
    """
    try:
        yield
    except FileNotFoundError as error:
        if is_bucket and not is_of_the_key(error):
            raise StorageUnavailableError(f"{call}: {reason_of(error)}") from error
        raise ObjectMissingError(key) from error
    except (BaseError, OSError, TimeoutError, LineFullError) as error:
        raise StorageUnavailableError(f"{call}: {reason_of(error)}") from error
