"""What an e-mail address may look like here: one form for each, so that nobody is two customers."""

import re
from typing import Final

EMAIL_MAX: Final = 254
"""A path in SMTP has 256 characters, two of which are its brackets (RFC 5321, 4.5.3.1.3)."""
_LOCAL_MAX: Final = 64
_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")


def normal_email(text: str) -> str:
    """The address in lower case, without white space around it.

    Letters, digits and signs that stand in a header unquoted: no quotes, no other alphabets. Lower case also
    before the @: no provider of today tells two mailboxes apart by it.

    Raises:
        ValueError: it is no address. The text never repeats it.
    """
    # Bounded before anything walks over it.
    address = text.strip().lower() if len(text) <= 2 * EMAIL_MAX else ""
    local, at, domain = address.partition("@")
    if not at or len(address) > EMAIL_MAX or len(local) > _LOCAL_MAX:
        raise ValueError("this is no e-mail address")
    dotted = local.startswith(".") or local.endswith(".") or ".." in local
    if dotted or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise ValueError("this is no e-mail address")
    return address
