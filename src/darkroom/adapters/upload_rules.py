"""Do the bucket's CORS rules let our pages put selfies into it?"""

from typing import Final

import httpx

from darkroom.adapters.http_calls import trusted_authorities
from darkroom.kit.outside import outside_call
from darkroom.ports.checkup import Finding, doubtful, well, wrong

CALL_SECONDS: Final = 10
METHOD: Final = "PUT"
HEADER: Final = "content-type"
"""What the pages send beside the file: its type."""
ANY: Final = "*"


async def examine_upload_rules(link: str, origin: str) -> Finding:
    """Ask before a PUT, as a browser on our pages does. Nothing is put, and only the answer's head is read.

    Args:
        link: an address of the bucket's to which one object can be put.
        origin: of our pages.
    """
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": METHOD,
        "Access-Control-Request-Headers": HEADER,
    }
    try:
        async with (
            outside_call("uploads.preflight", timeout_seconds=CALL_SECONDS),
            httpx.AsyncClient(
                timeout=CALL_SECONDS, verify=trusted_authorities(), trust_env=False
            ) as client,
            client.stream("OPTIONS", link, headers=asked) as answer,
        ):
            missing = _missing(answer, origin)
    except (httpx.HTTPError, TimeoutError, httpx.InvalidURL) as error:
        return doubtful(
            f"the bucket does not answer ({type(error).__name__})", "see the object store"
        )
    if not missing:
        return well(f"pages of {origin} may put selfies into the bucket")
    return wrong(
        f"browsers may not put selfies into the bucket: {', '.join(missing)} (HTTP {answer.status_code})",
        'the bucket\'s CORS rule, docs/operating.md, "Without a process"',
    )


def _missing(answer: httpx.Response, origin: str) -> list[str]:
    """Which parts of the rule the answer lacks."""
    allowed = {
        "AllowedOrigins": ("origin", origin),
        "AllowedMethods": ("methods", METHOD),
        "AllowedHeaders": ("headers", HEADER),
    }
    missing: list[str] = []
    for name, (kind, needed) in allowed.items():
        given = answer.headers.get(f"access-control-allow-{kind}", "")
        words = {word.strip().lower() for word in given.split(",")}
        if not answer.is_success or not words & {ANY, needed.lower()}:
            missing.append(f"{name} {needed}")
    return missing
