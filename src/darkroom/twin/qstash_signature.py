"""What QStash puts on a delivery: a signature that its official receiver accepts (external-apis, section 2)."""

import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

import jwt

VALID_SECONDS: Final = 300


def sign_delivery(body: bytes, *, url: str, key: str, age_seconds: int = 0) -> str:
    """The `Upstash-Signature` of a delivery of `body` to `url`, good for five minutes since it was made."""
    now = int(time.time()) - age_seconds
    claims: dict[str, Any] = {
        "iss": "Upstash",
        "sub": url,
        "exp": now + VALID_SECONDS,
        # Two clocks are never the same.
        "nbf": now - 1,
        "iat": now,
        "jti": f"jwt_{uuid4().hex}",
        # With its padding, as the vendor's pages show it.
        "body": urlsafe_b64encode(sha256(body).digest()).decode(),
    }
    return jwt.encode(claims, key, algorithm="HS256")  # pyright: ignore[reportUnknownMemberType] - its stubs lack one type
