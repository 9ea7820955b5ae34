"""Are our signing keys those that QStash signs with? Facts: external-apis.md, sections 2.1 and 2.4."""

from typing import Final

import httpx
from qstash.asyncio.signing_key import AsyncSigningKeyApi
from qstash.errors import QStashError

from darkroom.adapters.qstash_http import BoundedHttp
from darkroom.kit.outside import outside_call
from darkroom.ports.checkup import Finding, doubtful, well, wrong

CALL_SECONDS: Final = 15
"""A person waits for it."""
TEXT_MAX: Final = 120


async def examine_queue(*, token: str, base_url: str, current_key: str, next_key: str) -> Finding:
    """Ask QStash for the account's keys, and hold ours against them. Changes nothing; shows no key."""
    http = BoundedHttp(token, base_url=base_url, timeout_seconds=CALL_SECONDS)
    try:
        async with outside_call("qstash.keys", timeout_seconds=CALL_SECONDS):
            theirs = await AsyncSigningKeyApi(http).get()
    except QStashError as error:
        return wrong(
            f"refuses us: {str(error)[:TEXT_MAX]}",
            "QSTASH_TOKEN, and QSTASH_URL of the token's own region",
        )
    except (httpx.HTTPError, TimeoutError, KeyError, TypeError, ValueError) as error:
        return wrong(
            f"does not answer as QStash does ({type(error).__name__})",
            "QSTASH_URL, and the way there",
        )
    finally:
        await http.close()
    if (theirs.current, theirs.next) == (current_key, next_key):
        return well("the token is taken, and deliveries are signed with our keys")
    if theirs.current == next_key:
        return doubtful(
            "the keys were rolled once: deliveries still pass, after the next roll none would",
            "set QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY anew, then restart",
        )
    return wrong(
        "signs with other keys than ours: every delivery is refused",
        "QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY of this account and region",
    )
