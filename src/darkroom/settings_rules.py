"""What a single setting must look like, and the rules about addresses and providers.

A wrong address or model is found at the start: later each photo would burn its paid tries on it.
Every refusal is a ValueError of one line that never repeats the value, which may hold a secret.
"""

import ipaddress
from email.utils import parseaddr
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from darkroom.kit.email_address import normal_email

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1"})
LINK_SECRET_MIN: Final = 32
"""`openssl rand -hex 16`: 128 bits, which nobody guesses from any number of links."""
GENERATION_NAMES: Final = "studio, kie, kie:MODEL"
KIE_MODELS: Final = (
    "nano-banana-pro",
    "nano-banana-2",
    "nano-banana-2-lite",
    "google/nano-banana-edit",
)
"""The models whose input kie.ai's adapter can spell; a test holds the two lists together."""


def strip_only(value: object) -> object:
    """For settings with a default: an empty one stays a mistake that is named."""
    return value.strip() if isinstance(value, str) else value


def strip(value: object) -> object:
    """Environment values come with stray newlines; an empty one is an unset one."""
    if isinstance(value, str):
        return value.strip() or None
    return value


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's."""
    return urlsplit(url).hostname in LOOPBACK_HOSTS


def _split_address(url: str) -> SplitResult:
    if any(letter.isspace() or not letter.isprintable() or letter == "\\" for letter in url):
        raise ValueError("an address has no spaces and no backslashes")
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise ValueError("this is no address: look at its host and its port") from None
    schemes = {"http", "https"} if parts.hostname in LOOPBACK_HOSTS else {"https"}
    if not parts.hostname or not has_port or parts.scheme not in schemes:
        raise ValueError(
            "an address begins with https:// (http:// on loopback only), and a host follows"
        )
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("an address has no user, no query and no fragment")
    return parts


def check_address(url: str) -> str:
    """A scheme and a host, with a port where it needs one; returned without a slash at its end.

    Raises:
        ValueError: it is something else, or goes over the network unencrypted.
    """
    if _split_address(url).path not in ("", "/"):
        raise ValueError("an address is a scheme and a host alone, without a path")
    return url.removesuffix("/")


def check_address_with_path(url: str) -> str:
    """Like `check_address`, and a path may follow.

    Raises:
        ValueError: it is something else, or goes over the network unencrypted.
    """
    _split_address(url)
    return url.rstrip("/")


def check_database_url(url: SecretStr | None) -> SecretStr | None:
    """An address that PostgreSQL's own library reads: what it cannot read, it would print.

    Raises:
        ValueError: it is something else.
    """
    if url is not None:
        try:
            conninfo_to_dict(url.get_secret_value())
        except ProgrammingError:
            raise ValueError(
                "this is no address of PostgreSQL: postgresql://user@host/name"
            ) from None
    return url


def check_kie_model(name: str) -> str:
    """A model that the adapter of kie.ai knows.

    Raises:
        ValueError: it knows none of this name.
    """
    if name not in KIE_MODELS:
        raise ValueError(f"kie.ai's model is one of {', '.join(KIE_MODELS)}")
    return name


def _optional_address(url: str | None) -> str | None:
    return None if url is None else check_address(url)


def _optional_address_with_path(url: str | None) -> str | None:
    return None if url is None else check_address_with_path(url)


Text = Annotated[str | None, BeforeValidator(strip)]
Secret = Annotated[SecretStr | None, BeforeValidator(strip)]
DatabaseUrl = Annotated[
    SecretStr | None, BeforeValidator(strip), AfterValidator(check_database_url)
]
Word = Annotated[str, BeforeValidator(strip_only), Field(min_length=1)]
Amount = Annotated[float | None, BeforeValidator(strip)]
Address = Annotated[str, BeforeValidator(strip_only), AfterValidator(check_address)]
OwnAddress = Annotated[str | None, BeforeValidator(strip), AfterValidator(_optional_address)]
AddressWithPath = Annotated[
    str | None, BeforeValidator(strip), AfterValidator(_optional_address_with_path)
]
KieModel = Annotated[str, BeforeValidator(strip_only), AfterValidator(check_kie_model)]


def refuse_odd_endpoint(endpoint: str | None, *, is_demo: bool) -> None:
    """Let in only an object store's address: a scheme and a host, in demo mode on loopback.

    Raises:
        ValueError: with one line that names S3_ENDPOINT.
    """
    parts = urlsplit(endpoint or "https://amazon")
    is_near = parts.hostname in LOOPBACK_HOSTS
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("S3_ENDPOINT is a scheme and a host alone: the bucket is not part of it")
    if not parts.hostname or parts.scheme not in ({"http", "https"} if is_near else {"https"}):
        raise ValueError("S3_ENDPOINT must begin with https:// (http:// on loopback only)")
    if is_demo and not is_near:
        raise ValueError("demo mode refuses a real object store: S3_ENDPOINT is not on loopback")


def refuse_odd_fallback(
    names: tuple[str, ...], *, first: str, kie_model: str, has_kie: bool
) -> None:
    """Let in only providers that exist, each once, and none that is the first one already.

    Raises:
        ValueError: with one line that names the variable.
    """
    for name in names:
        account, colon, model = name.partition(":")
        if account not in ("studio", "kie") or (colon and (account != "kie" or not model)):
            raise ValueError(
                f"DARKROOM_GENERATION_FALLBACK names something else than {GENERATION_NAMES}"
            )
        if colon and model not in KIE_MODELS:
            raise ValueError(
                f"DARKROOM_GENERATION_FALLBACK: MODEL is one of {', '.join(KIE_MODELS)}"
            )
        if account == "kie" and not has_kie:
            raise ValueError("the fallback is half configured: KIE_API_KEY is not set")
        if model == kie_model:
            raise ValueError("DARKROOM_GENERATION_FALLBACK names KIE_MODEL: say `kie`")
    if len({first, *names}) != len(names) + 1:
        raise ValueError("DARKROOM_GENERATION_FALLBACK names one provider twice, or the first one")


def refuse_half_a_mailer(folder: str | None, sender: str | None, *, is_demo: bool) -> None:
    """Let in a folder with a sender, or neither; demo mode has both by itself.

    Raises:
        ValueError: with one line that names the variable.
    """
    if sender is not None:
        try:
            address = normal_email(parseaddr(sender)[1])
        except ValueError:
            raise ValueError("DARKROOM_MAIL_FROM is no address: shop@example.com") from None
        # The parser reads over what does not belong there: what it made up is no address of the operator's.
        if address not in sender.lower():
            raise ValueError("DARKROOM_MAIL_FROM is no address: shop@example.com")
        if not sender.isprintable():
            raise ValueError("DARKROOM_MAIL_FROM has characters that stand in no header")
    if is_demo or (folder is None) == (sender is None):
        return
    missing = "DARKROOM_MAIL_FOLDER" if folder is None else "DARKROOM_MAIL_FROM"
    raise ValueError(f"mail is half configured: {missing} is not set")


def is_remote_database(dsn: str) -> bool:
    """Whether a host of the DSN is another machine: sockets and loopback are not.

    A DSN that nobody can read is not remote: it cannot be connected to either.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except ProgrammingError:
        return False
    hosts = str(parts.get("hostaddr") or parts.get("host") or "").split(",")
    return any(not _is_this_machine(host.strip()) for host in hosts)


def _is_this_machine(host: str) -> bool:
    # "" is the default socket, and a path or an abstract name is a socket, too.
    if not host or host[0] in "/@" or host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
