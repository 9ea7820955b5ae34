"""Tokens that name a row and cannot be guessed: `{id}.{signature}`. The database holds none of them.

What is signed is a purpose and a row's id. Whether the row still permits anything (its time, that it was not
used, that nobody ended it) is asked of the row at every use.
"""

import base64
import hmac
from typing import Final, Literal

Purpose = Literal["sign-in", "share"]

VERSION: Final = "darkroom-token-1"
"""Stands in what is signed, beside the links' own: a link's signature opens nothing here."""
TOKEN_MAX: Final = 64
"""19 digits, a dot and 43 characters of signature are 63; longer text is not compared at all."""
ID_DIGITS_MAX: Final = 18


class SignedTokens:
    """Makes tokens and reads them.

    Args:
        previous: a key that signed until a rotation; its tokens are good as long as their rows are.
    """

    def __init__(self, *, secret: str, previous: str | None) -> None:
        self._keys = [key.encode() for key in (secret, previous) if key is not None]

    def make(self, purpose: Purpose, row_id: int) -> str:
        """The token of this row; the same every time under the same key."""
        return f"{row_id}.{self._sign(self._keys[0], purpose, row_id)}"

    def read(self, purpose: Purpose, token: str) -> int | None:
        """The row that a token names; None: it is not ours. Every key is tried, in constant time."""
        number, _, signature = token.partition(".")
        if len(token) > TOKEN_MAX or not token.isascii():
            return None
        if not number.isdigit() or number.startswith("0") or len(number) > ID_DIGITS_MAX:
            return None
        row_id = int(number)
        matches = [
            hmac.compare_digest(self._sign(key, purpose, row_id), signature) for key in self._keys
        ]
        return row_id if any(matches) else None

    @staticmethod
    def _sign(key: bytes, purpose: str, row_id: int) -> str:
        digest = hmac.digest(key, f"{VERSION}\n{purpose}\n{row_id}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
