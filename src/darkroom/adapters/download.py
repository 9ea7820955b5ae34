"""A provider's picture, fetched as if its address came from an enemy.

The address comes from outside, so it must not lead inside: every hop is parsed, resolved once,
judged, and connected to at exactly the judged IP (a second look-up could answer something else).
"""

import asyncio
import socket
import ssl
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import httpx

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


@cache
def trusted_authorities() -> ssl.SSLContext:
    """Who may vouch for the hosts we call. Reading them takes 30 ms: once a process."""
    return httpx.create_ssl_context(trust_env=False)


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
        transport: what carries the requests; tests put their own here.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        hosts_allowed: frozenset[str] | None,
        max_bytes: int = MAX_BYTES,
        timeout_seconds: float = TIMEOUT_SECONDS,
        redirects_max: int = REDIRECTS_MAX,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._allow_private = allow_private
        self._hosts_allowed = (
            None if hosts_allowed is None else frozenset(_plain(host) for host in hosts_allowed)
        )
        self._max_bytes = max_bytes
        self._redirects_max = redirects_max
        # A bare transport: no cookies, no proxies, no redirects of its own. No connection is kept,
        # because the pool knows it by IP only: one host's certificate would vouch for another host.
        self._transport = transport or httpx.AsyncHTTPTransport(
            verify=trusted_authorities(),
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
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
        except (TimeoutError, httpx.TransportError) as error:
            raise ProviderUnavailableError(f"download: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.aclose()

    async def _follow(self, address: str) -> bytes:
        try:
            url = httpx.URL(address)
            for _ in range(self._redirects_max + 1):
                answer = await self._visit(url)
                if isinstance(answer, bytes):
                    return answer
                url = url.join(answer)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise BadResultError("download: not an address") from error
        raise BadResultError("download: too many redirects")

    async def _visit(self, url: httpx.URL) -> bytes | str:
        """The body, or where it is said to be."""
        self._check_url(url)
        response = await self._open(url, await self._resolve(url))
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return response.headers["location"]
            _check_head(response)
            return await self._read(response)
        finally:
            await response.aclose()

    def _check_url(self, url: httpx.URL) -> None:
        if url.scheme != "https" and not (url.scheme == "http" and self._allow_private):
            raise BadResultError("download: refused scheme")
        if url.port is not None and not 0 < url.port <= _PORT_MAX:
            raise BadResultError("download: refused port")
        if url.userinfo:
            raise BadResultError("download: refused credentials in the address")
        host = _plain(url.raw_host.decode("ascii"))
        if not host or (self._hosts_allowed is not None and host not in self._hosts_allowed):
            raise BadResultError("download: refused host")

    async def _resolve(self, url: httpx.URL) -> list[str]:
        """The host's addresses, looked up once; all of them must be acceptable."""
        host = _plain(url.raw_host.decode("ascii"))
        port = url.port or _PORTS[url.scheme]
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

    async def _open(self, url: httpx.URL, addresses: list[str]) -> httpx.Response:
        failure: httpx.TransportError = httpx.ConnectError("no address")
        for address in addresses:
            request = httpx.Request(
                "GET",
                url.copy_with(host=address, fragment=None),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "Accept": "image/*",
                    # Bytes are counted as they come: a packed body could unpack to any size.
                    "Accept-Encoding": "identity",
                },
                extensions={
                    "sni_hostname": _plain(url.raw_host.decode("ascii")),
                    "timeout": httpx.Timeout(
                        self.timeout_seconds, connect=CONNECT_SECONDS
                    ).as_dict(),
                },
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _read(self, response: httpx.Response) -> bytes:
        """Count while reading: the length that was announced is not believed."""
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > self._max_bytes:
                raise BadResultError("download: too large")
        if not body:
            raise BadResultError("download: empty")
        return bytes(body)


def _plain(host: str) -> str:
    """A host as it stands in a certificate and in our list."""
    return host.lower().rstrip(".")


def _check_head(response: httpx.Response) -> None:
    status = response.status_code
    if status in _DEAD:
        raise LinkDeadError(f"download: HTTP {status}")
    if status >= _SERVER_ERROR or status in _NOT_NOW:
        raise ProviderUnavailableError(f"download: HTTP {status}")
    if status != _OK:
        raise BadResultError(f"download: HTTP {status}")
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith("image/") and content_type not in _BYTES_TYPES:
        raise BadResultError("download: not a picture's type")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadResultError("download: packed although not asked to")
