"""What we ask about a person who knocks."""

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whose identity another party has signed."""

    telegram_user_id: int
    locale: Literal["ru", "en"]


class NotSignedError(Exception):
    """Unsigned, tampered with, stale or from the future. The text is for the log, never for the caller."""


class IdentityCheck(Protocol):
    """Checks what a client says of itself."""

    def check(self, init_data: str) -> Person:
        """Who signed in. Raises NotSignedError."""
        ...
