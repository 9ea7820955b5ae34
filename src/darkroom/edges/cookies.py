"""Cookies as they are written. The standard library of Python 3.11 does not know `Partitioned` yet."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptCookie:
    """A cookie of ours: its value holds nothing but letters, digits, `-` and `_`.

    Attributes:
        days: 0 takes the cookie away.
        framed: also sent where Telegram Web shows us in a frame of another site. Such a cookie belongs to that
            frame alone (`Partitioned`), so that browsers which refuse others' cookies keep it.
    """

    name: str
    value: str
    days: int
    framed: bool = False


def cookie_text(cookie: KeptCookie, *, secure: bool) -> str:
    """The value of `Set-Cookie`. A framed cookie is always `Secure`: browsers take no other there."""
    parts = [
        f"{cookie.name}={cookie.value}",
        f"Max-Age={cookie.days * 86_400}",
        "Path=/",
        "SameSite=None" if cookie.framed else "SameSite=Lax",
        # No script of ours reads any.
        "HttpOnly",
    ]
    if secure or cookie.framed:
        parts.append("Secure")
    if cookie.framed:
        parts.append("Partitioned")
    return "; ".join(parts)
