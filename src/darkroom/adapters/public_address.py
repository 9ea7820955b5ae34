"""Does the address that we give to others lead to us?"""

from typing import Final

import httpx

from darkroom.adapters.http_calls import trusted_authorities
from darkroom.kit.outside import outside_call
from darkroom.ports.checkup import Finding, doubtful, well, wrong

CALL_SECONDS: Final = 10
ANSWER_BYTES_MAX: Final = 65_536
"""`/healthz` says some fifty."""
_OK: Final = 200
_AWAY: Final = 503


async def examine_public_address(url: str) -> Finding:
    """Ask `/healthz` there, as a provider's callback would come in. Nothing is changed by it."""
    try:
        async with (
            outside_call("public.healthz", timeout_seconds=CALL_SECONDS),
            httpx.AsyncClient(
                timeout=CALL_SECONDS, verify=trusted_authorities(), trust_env=False
            ) as client,
            client.stream("GET", f"{url}/healthz") as answer,
        ):
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    break
    except (httpx.HTTPError, TimeoutError, httpx.InvalidURL) as error:
        return doubtful(
            f"nobody answers at {url} ({type(error).__name__})",
            "is `darkroom serve` running, and does DNS, TLS and the proxy lead to it?",
        )
    if answer.status_code == _OK and b'"success":true' in body.replace(b" ", b""):
        return well(f"{url} leads to Darkroom")
    if answer.status_code == _AWAY and b"UNAVAILABLE" in body:
        return doubtful(f"{url} leads to Darkroom, which has no database", "see the database")
    return wrong(
        f"{url} leads to somebody else (HTTP {answer.status_code})",
        "DARKROOM_PUBLIC_URL, or the proxy's rules for /healthz and /api",
    )
