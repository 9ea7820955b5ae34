"""Links that are their own permission: to one photo or one set, of one user, until one moment.

A picture tag and a phone's download manager send no session. What they get instead is signed under a key
that signs nothing else, and dies in minutes: a link that leaks from a chat or a log opens one picture, once
more, for a quarter of an hour. The row is still asked at every use, so a deleted photo is gone at once.
"""

import base64
import hmac
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode

from darkroom.kit.clock import Clock, system_clock

Variant = Literal["full", "thumb", "zip"]

BUCKETS: Final = 3
"""Links change this often within their lifetime. In between the same photo has the same address, so that a
browser finds it in its cache; a third of the lifetime is lost at most, and none lives longer than it."""
VERSION: Final = "darkroom-link-1"
"""Stands in what is signed: another layout some day makes another signature."""


@dataclass(frozen=True, slots=True)
class LinkClaim:
    """What a link says about itself; nothing of it is true before its signature was checked."""

    user_id: int
    row_id: int
    variant: Variant
    expires: int
    signature: str


class PhotoLinks:
    """Makes links and checks them.

    Args:
        previous: a key that signed until a rotation; its links are good until they expire.
    """

    def __init__(
        self, *, secret: str, previous: str | None, minutes: int, clock: Clock = system_clock
    ) -> None:
        self._keys = [key.encode() for key in (secret, previous) if key is not None]
        self._seconds = minutes * 60
        self._clock = clock

    def photo(
        self, *, user_id: int, photo_id: int, variant: Literal["full", "thumb"] = "full"
    ) -> str:
        """The path to a photo's picture."""
        return f"/api/photos/{photo_id}/image?{self._query(user_id, photo_id, variant)}"

    def archive(self, *, user_id: int, job_id: int) -> str:
        """The path to a set as a ZIP."""
        return f"/api/jobs/{job_id}/photos.zip?{self._query(user_id, job_id, 'zip')}"

    def seconds_valid(self, claim: LinkClaim) -> int | None:
        """For how long the link is good from now on; None: it is not ours, was changed, or is over.

        Every key is tried and compared in constant time before anything is said.
        """
        left = claim.expires - int(self._clock().timestamp())
        given = claim.signature.encode("utf-8", "surrogateescape")
        matches = [
            hmac.compare_digest(self._sign(key, claim).encode(), given) for key in self._keys
        ]
        return left if any(matches) and left > 0 else None

    def _query(self, user_id: int, row_id: int, variant: Variant) -> str:
        bucket = self._seconds // BUCKETS
        expires = (int(self._clock().timestamp()) + self._seconds) // bucket * bucket
        claim = LinkClaim(user_id, row_id, variant, expires, "")
        fields: dict[str, str | int] = {"expires": expires, "user": user_id}
        if variant != "zip":
            fields = {"variant": variant, **fields}
        return urlencode({**fields, "signature": self._sign(self._keys[0], claim)})

    @staticmethod
    def _sign(key: bytes, claim: LinkClaim) -> str:
        # Numbers and words of a fixed list, one a line: no two claims have the same text.
        text = f"{VERSION}\n{claim.variant}\n{claim.user_id}\n{claim.row_id}\n{claim.expires}"
        digest = hmac.digest(key, text.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
