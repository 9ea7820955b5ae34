"""A provider's picture, fetched as if its address came from an enemy.

The address comes from outside, so it must not lead inside: every hop is parsed, resolved once,
judged, and connected to at exactly the judged IP (a second look-up could answer something else).
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from aiohttp import ClientError, ClientResponse
from yarl import URL

from darkroom.adapters.http_calls import NOTHING_SENT, HttpCaller, read_at_most
from darkroom.kit.outside import outside_call
from darkroom.ports.generation import BadResultError, LinkDeadError, ProviderUnavailableError

MAX_BYTES: Final = 50_000_000
"""A 4K PNG has up to 40 MB; nothing larger is a photo we sell."""
REDIRECTS_MAX: Final = 3
TIMEOUT_SECONDS: Final = 60
"""The largest result at 1 MB/s, rounded up."""
CONNECT_SECONDS: Final = 10
ADDRESSES_TRIED_MAX: Final = 3
"""A host's first address may be of an IP version that has no route from here."""

_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEAD: Final = frozenset({403, 404, 410})
_NOT_NOW: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
# S3 itself says binary/octet-stream when nobody told it a type.
_BYTES_TYPES: Final = frozenset({"application/octet-stream", "binary/octet-stream"})
_PORT_MAX: Final = 65_535
_PORTS: Final = {"http": 80, "https": 443}

_NAT64: Final = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_SPECIAL: Final = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"))
"""Protocol assignments and the old 6to4 relays: Python counts parts of them as global."""


def is_public(address: str) -> bool:
    """Whether an IP address is an ordinary one of the public internet.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) is judged by what it leads to.
    """
    judged: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(judged, IPv6Address):
        inner = judged.ipv4_mapped or judged.sixtofour
        if judged in _NAT64:
            inner = IPv4Address(int(judged) & 0xFFFF_FFFF)
        if inner is None and judged not in _GLOBAL_UNICAST:
            return False
        judged = inner or judged
    special = judged.is_multicast or judged.is_reserved or any(judged in net for net in _SPECIAL)
    return judged.is_global and not special


class Downloader:
    """Bounded downloads of results.

    Args:
        allow_private: results may come from private addresses and over plain http (stand-ins).
        hosts_allowed: the only hosts that may serve results, each in full; None allows any.
        max_bytes: the largest result.
        timeout_seconds: for the whole of one download with its redirects, however it drips.
        redirects_max: hops after the first address.
        caller: what carries the requests; tests put their own here.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        hosts_allowed: frozenset[str] | None,
        max_bytes: int = MAX_BYTES,
        timeout_seconds: float = TIMEOUT_SECONDS,
        redirects_max: int = REDIRECTS_MAX,
        caller: HttpCaller | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._allow_private = allow_private
        self._hosts_allowed = (
            None if hosts_allowed is None else frozenset(_plain(host) for host in hosts_allowed)
        )
        self._max_bytes = max_bytes
        self._redirects_max = redirects_max
        # A connection is kept for its address and name together: no host's certificate vouches for another.
        # One that was just closed there loses an answer, which is asked for again.
        self._caller = caller or HttpCaller(
            connect_seconds=min(CONNECT_SECONDS, timeout_seconds), keep_connections=True
        )

    async def fetch(self, url: str) -> bytes:
        """The whole body behind the address. Harmless to repeat.

        Raises:
            ProviderUnavailableError: timeout, 5xx, 429, lost connection, cut short.
            LinkDeadError: 403, 404 or 410.
            BadResultError: too large, empty, another type, or an address we do not go to.
        """
        try:
            async with outside_call("download.fetch", timeout_seconds=self.timeout_seconds):
                return await self._follow(url)
        except (TimeoutError, ClientError) as error:
            raise ProviderUnavailableError(f"download: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close what is open."""
        await self._caller.close()

    async def _follow(self, address: str) -> bytes:
        try:
            url = _parsed(address)
            for _ in range(self._redirects_max + 1):
                answer = await self._visit(url)
                if isinstance(answer, bytes):
                    return answer
                url = url.join(_parsed(answer))
        except NOTHING_SENT:
            # One of them, a certificate that nobody vouches for, is a ValueError: not the picture's fault.
            raise
        except ValueError as error:
            raise BadResultError("download: not an address") from error
        raise BadResultError("download: too many redirects")

    async def _visit(self, url: URL) -> bytes | str:
        """The body, or where it is said to be."""
        host = self._checked_host(url)
        failure: ClientError | None = None
        for address in await self._resolve(host, url.port or _PORTS[url.scheme]):
            try:
                return await self._open(url, host, address)
            except NOTHING_SENT as error:
                failure = error
        raise failure or ProviderUnavailableError("download: no address")

    def _checked_host(self, url: URL) -> str:
        if url.scheme != "https" and not (url.scheme == "http" and self._allow_private):
            raise BadResultError("download: refused scheme")
        if url.port is not None and not 0 < url.port <= _PORT_MAX:
            raise BadResultError("download: refused port")
        if url.raw_user is not None or url.raw_password is not None:
            raise BadResultError("download: refused credentials in the address")
        host = _plain(url.raw_host or "")
        if not host or (self._hosts_allowed is not None and host not in self._hosts_allowed):
            raise BadResultError("download: refused host")
        return host

    async def _resolve(self, host: str, port: int) -> list[str]:
        """The host's addresses, looked up once; all of them must be acceptable."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise ProviderUnavailableError("download: host not found") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise BadResultError("download: refused address")
        return addresses[:ADDRESSES_TRIED_MAX]

    async def _open(self, url: URL, host: str, address: str) -> bytes | str:
        headers = {
            "Host": url.host_port_subcomponent or host,
            "Accept": "image/*",
            # Bytes are counted as they come: a packed body could unpack to any size.
            "Accept-Encoding": "identity",
        }
        there = url.with_host(address)
        async with self._caller.open(
            "GET", there, headers=headers, server_hostname=host
        ) as response:
            if response.status in _REDIRECTS and "Location" in response.headers:
                return response.headers["Location"]
            _check_head(response)
            body = await read_at_most(response, self._max_bytes)
        if body is None:
            raise BadResultError("download: too large")
        if not body:
            raise BadResultError("download: empty")
        return body


def _parsed(address: str) -> URL:
    """What is written as an address should be is left as it is: signatures are of every letter of it.

    Raises:
        ValueError: not an address.
    """
    if not address.isprintable():
        raise ValueError("control characters")
    return URL(address, encoded=address.isascii() and " " not in address)


def _plain(host: str) -> str:
    """A host as it stands in a certificate and in our list."""
    return host.lower().rstrip(".")


def _check_head(response: ClientResponse) -> None:
    status = response.status
    if status in _DEAD:
        raise LinkDeadError(f"download: HTTP {status}")
    if status >= _SERVER_ERROR or status in _NOT_NOW:
        raise ProviderUnavailableError(f"download: HTTP {status}")
    if status != _OK:
        raise BadResultError(f"download: HTTP {status}")
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not content_type.startswith("image/") and content_type not in _BYTES_TYPES:
        raise BadResultError("download: not a picture's type")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadResultError("download: packed although not asked to")
