"""A file that is coming in: counted and hashed as it streams, spooled, and gone when it is closed."""

import hashlib
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from darkroom.flow.add_selfie import Upload
from darkroom.ports.intake import RefusalCode

FILE_BYTES_MAX: Final = 30 * 1024 * 1024
"""What customers were promised (domain facts, "Reference-photo rules"); a phone's largest have 25 MB."""
SPOOL_BYTES: Final = 1024 * 1024
"""In memory up to here, then in an unnamed file: eight files of a request are at most 8 MB of memory."""


class ReceivedFile:
    """One file that is coming in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._spool: IO[bytes] = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed by its receiver

    def add(self, data: bytes) -> None:
        """Take a piece. What is beyond the limit is counted and not kept."""
        self.size_bytes += len(data)
        if self.size_bytes <= FILE_BYTES_MAX:
            self._hash.update(data)
            self._spool.write(data)

    def read(self) -> bytes:
        """The whole file."""
        self._spool.seek(0)
        return self._spool.read()

    def close(self) -> None:
        """Give the disk's space back."""
        self._spool.close()

    def as_upload(self) -> Upload:
        """What is looked at next; an empty or too large one is refused already."""
        refusal = None
        if self.size_bytes == 0:
            refusal = RefusalCode.EMPTY
        elif self.size_bytes > FILE_BYTES_MAX:
            refusal = RefusalCode.TOO_LARGE
        return Upload(self.name, self._hash.hexdigest(), self.read, refusal)
