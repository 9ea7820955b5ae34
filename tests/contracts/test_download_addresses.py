"""A result's address comes from outside: it must not lead inside."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest

from darkroom.adapters.download import Downloader, is_public
from darkroom.ports.generation import BadResultError, ProviderUnavailableError
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import Fault, Kind
from tests.contracts.conftest import Rerouted, Resolve

PUBLIC = "93.184.216.34"


def as_seen_from_outside(result_url: str) -> str:
    return f"https://results.example{httpx.URL(result_url).path}"


@pytest.mark.parametrize(
    "url",
    [
        "http://results.example/a.png",
        "ftp://results.example/a.png",
        "file:///etc/passwd",
        "//results.example/a.png",
        "https:///a.png",
        "https://user:secret@results.example/a.png",
        "https://results.example:99999/a.png",
        "https://a..b/a.png",
        "https://results.example/\x00",
        "data:image/png;base64,AAAA",
        "",
    ],
)
async def test_only_plain_https_addresses_are_gone_to(
    strict: Downloader, internet: Rerouted, url: str
) -> None:
    with pytest.raises(BadResultError):
        await strict.fetch(url)
    assert internet.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f.1/a.png",
        "https://0/a.png",
        "https://localhost/a.png",
        "https://localhost./a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://[64:ff9b::7f00:1]/a.png",
        "https://[::]/a.png",
    ],
)
async def test_this_machine_is_refused_however_it_is_spelled(
    strict: Downloader, internet: Rerouted, url: str
) -> None:
    with pytest.raises(BadResultError, match="refused address"):
        await strict.fetch(url)
    assert internet.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse, not to listen on
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.251",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001:db8::1",
        "2001::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1%2",
        "fec0::1",
        "ff02::1",
    ],
)
async def test_a_name_that_leads_inside_is_refused(
    strict: Downloader, internet: Rerouted, resolve: Resolve, address: str
) -> None:
    assert not is_public(address)
    resolve([PUBLIC, address])
    with pytest.raises(BadResultError, match="refused address"):
        await strict.fetch("https://results.example/a.png")
    assert internet.requests == []


@pytest.mark.parametrize(
    "address", [PUBLIC, "2606:4700::1111", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(address)


async def test_the_judged_address_is_the_one_connected_to(
    strict: Downloader, internet: Rerouted, resolve: Resolve, result_url: str
) -> None:
    """A second look-up would answer 127.0.0.1: there is none."""
    resolve([PUBLIC], ["127.0.0.1"])
    assert await strict.fetch(as_seen_from_outside(result_url))
    (request,) = internet.requests
    assert request.url.host == PUBLIC
    assert request.headers["Host"] == "results.example"
    assert request.server_hostname == "results.example"


async def test_the_certificate_asked_for_is_the_names_not_the_addresses(
    downloader: Downloader, resolve: Resolve
) -> None:
    hello = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.extend(await reader.read(4096))
        writer.close()
        await writer.wait_closed()

    resolve(["127.0.0.1"])
    server = await asyncio.start_server(listen, sock=socket.create_server(("127.0.0.1", 0)))
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ProviderUnavailableError):
            await downloader.fetch(f"https://results.example:{port}/a.png")
    assert b"results.example" in hello


async def test_a_kept_connection_is_one_names_alone(
    downloader: Downloader, resolve: Resolve
) -> None:
    """Two hosts behind one address: whoever proved to be the first did not prove to be the second."""
    heard: list[list[bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append([])
        with suppress(asyncio.IncompleteReadError):
            while True:
                heard[-1].append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1\r\n\r\nx"
                )
        writer.close()

    resolve(*[["127.0.0.1"]] * 4)
    server = await asyncio.start_server(answer, sock=socket.create_server(("127.0.0.1", 0)))
    port = server.sockets[0].getsockname()[1]
    async with server:
        for host in ("one", "other", "one", "other"):
            assert await downloader.fetch(f"http://{host}.example:{port}/a.png") == b"x"
        await downloader.close()
    hosts = [{line for ask in one for line in ask.split() if b".example" in line} for one in heard]
    assert hosts == [{b"one.example:%d" % port}, {b"other.example:%d" % port}]
    assert [len(one) for one in heard] == [2, 2], (
        "the second picture came over the first one's connection"
    )


async def test_an_address_without_a_route_gives_way_to_the_next(
    downloader: Downloader, resolve: Resolve, result_url: str
) -> None:
    resolve(["127.0.0.77", "127.0.0.1"])
    url = httpx.URL(result_url).copy_with(host="results.example")
    assert await downloader.fetch(str(url))


async def test_a_host_that_nobody_answers_for_is_unavailable(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProviderUnavailableError):
        await downloader.fetch("http://127.0.0.1:9/a.png")

    async def getaddrinfo(*_arguments: object, **_options: object) -> list[Any]:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(ProviderUnavailableError, match="host not found"):
        await downloader.fetch("http://results.example/a.png")


@pytest.mark.parametrize(
    "target",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a.png",
        "http://results.example/a.png",
        "https://user@results.example/a.png",
        "file:///etc/passwd",
        "https://results.example:99999/",
    ],
)
async def test_a_redirect_is_judged_like_the_first_address(
    *,
    strict: Downloader,
    internet: Rerouted,
    twin: KieTwin,
    monkeypatch: pytest.MonkeyPatch,
    result_url: str,
    target: str,
) -> None:
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **_options: object) -> list[Any]:
        return await real(PUBLIC if host == "results.example" else host, port)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    twin.script("result", Fault(Kind.REDIRECT, text=target))
    with pytest.raises(BadResultError):
        await strict.fetch(as_seen_from_outside(result_url))
    assert len(internet.requests) == 1


async def test_a_redirect_is_resolved_again(
    strict: Downloader, internet: Rerouted, twin: KieTwin, resolve: Resolve, result_url: str
) -> None:
    resolve([PUBLIC], ["10.0.0.1"])
    twin.script("result", Fault(Kind.REDIRECT, text="/results/next.png"))
    with pytest.raises(BadResultError, match="refused address"):
        await strict.fetch(as_seen_from_outside(result_url))
    assert len(internet.requests) == 1


async def test_three_redirects_are_followed_and_a_fourth_is_not(
    downloader: Downloader, twin: KieTwin, result_url: str
) -> None:
    again = Fault(Kind.REDIRECT, text=httpx.URL(result_url).path)
    twin.script("result", again, again, again)
    assert await downloader.fetch(result_url)
    twin.script("result", again, again, again, again)
    with pytest.raises(BadResultError, match="too many redirects"):
        await downloader.fetch(result_url)


async def test_only_listed_hosts_are_gone_to_and_a_part_of_a_name_is_not_the_name(
    internet: Rerouted, twin: KieTwin, resolve: Resolve, result_url: str
) -> None:
    """bugbook F11: the older proxy compared substrings."""
    listed = Downloader(
        allow_private=False,
        hosts_allowed=frozenset({"Results.Example"}),
        timeout_seconds=5,
        caller=internet,
    )
    path = httpx.URL(result_url).path
    for host in ("results.example.evil.test", "evil-results.example", "a.results.example"):
        with pytest.raises(BadResultError, match="refused host"):
            await listed.fetch(f"https://{host}{path}")
    resolve([PUBLIC], [PUBLIC])
    assert await listed.fetch(f"https://results.example{path}")
    twin.script("result", Fault(Kind.REDIRECT, text="https://evil.test/a.png"))
    with pytest.raises(BadResultError, match="refused host"):
        await listed.fetch(f"https://RESULTS.example.{path}")
