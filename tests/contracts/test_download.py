"""Results are fetched whole, bounded, and told apart when they fail."""

import asyncio
import io
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import ClientConnectorCertificateError, ClientResponse
from aiohttp.client_reqrep import ConnectionKey
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from darkroom.adapters.download import Downloader
from darkroom.adapters.http_calls import HttpCaller
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.generation import BadResultError, LinkDeadError, ProviderUnavailableError
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import Fault, Kind
from darkroom.twin.loopback import loopback
from tests.contracts.conftest import MakeDownloader


async def test_a_result_comes_whole_and_decodable(
    downloader: Downloader, twin: KieTwin, result_url: str
) -> None:
    data = await downloader.fetch(result_url)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
    assert [data] == [task.picture() for task in twin.tasks.values()]
    assert twin.wasted == []


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_dead_link_is_said_to_be_dead(
    downloader: Downloader, twin: KieTwin, result_url: str, status: int
) -> None:
    """bugbook C15: the provider's address dies, and is told apart from a provider that is down."""
    twin.script("result", Fault(Kind.ANSWER, status))
    with pytest.raises(LinkDeadError):
        await downloader.fetch(result_url)


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(Kind.ANSWER, status) for status in (408, 425, 429, 500, 502, 503, 524)),
        Fault(Kind.DROP),
        Fault(Kind.TRUNCATED),
    ],
)
async def test_a_passing_trouble_is_not_the_pictures_fault(
    downloader: Downloader, twin: KieTwin, result_url: str, fault: Fault
) -> None:
    twin.script("result", fault)
    with pytest.raises(ProviderUnavailableError):
        await downloader.fetch(result_url)
    assert await downloader.fetch(result_url)


class _Unvouched(HttpCaller):
    """Nobody whom we trust vouches for who answers."""

    def open(self, *_: object, **__: object) -> AbstractAsyncContextManager[ClientResponse]:
        """Fails as the library does."""
        key = ConnectionKey("results.example", 443, True, True, None, None, None)
        raise ClientConnectorCertificateError(key, ssl.SSLCertVerificationError("expired"))


async def test_a_certificate_that_has_expired_is_not_the_pictures_fault() -> None:
    """The library's error is a ValueError, too: taken for a bad address, it would buy the photo again."""
    downloader = Downloader(
        allow_private=True, hosts_allowed=None, caller=_Unvouched(connect_seconds=1)
    )
    with pytest.raises(ProviderUnavailableError, match="Certificate"):
        await downloader.fetch("https://127.0.0.1/a.png")


@pytest.mark.parametrize("reset", [True, False])
async def test_an_answer_without_a_length_ends_when_its_sender_ends_it(
    downloader: Downloader, *, reset: bool
) -> None:
    """Cut off, half of it would be taken for a bad picture, three of which buy another photo."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + b"x" * 1000)
        await writer.drain()
        wire: socket.socket = writer.get_extra_info("socket")
        if reset:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(send, sock=socket.create_server(("127.0.0.1", 0)))
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png"
        if reset:
            with pytest.raises(ProviderUnavailableError, match="BrokenOff"):
                await downloader.fetch(address)
        else:
            assert await downloader.fetch(address) == b"x" * 1000


@pytest.mark.parametrize("status", [204, 206, 400, 401, 451])
async def test_any_other_answer_is_no_picture(
    downloader: Downloader, twin: KieTwin, result_url: str, status: int
) -> None:
    twin.script("result", Fault(Kind.ANSWER, status))
    with pytest.raises(BadResultError):
        await downloader.fetch(result_url)


@pytest.mark.parametrize("kind", [Kind.HANG, Kind.DRIP])
async def test_neither_silence_nor_a_drip_outlasts_the_deadline(
    make_downloader: MakeDownloader, twin: KieTwin, result_url: str, kind: Kind
) -> None:
    """bugbook C23: one slow answer costs its own time limit and no more."""
    twin.script("result", Fault(kind))
    hasty = make_downloader(timeout_seconds=0.2)
    with pytest.raises(ProviderUnavailableError, match="TimeoutError"):
        await hasty.fetch(result_url)


async def test_a_page_instead_of_a_picture_is_refused(
    downloader: Downloader, twin: KieTwin, result_url: str
) -> None:
    twin.script("result", Fault(Kind.NOT_A_PICTURE))
    with pytest.raises(BadResultError):
        await downloader.fetch(result_url)


async def test_a_picture_larger_than_the_limit_is_refused(
    make_downloader: MakeDownloader, result_url: str
) -> None:
    small = make_downloader(max_bytes=100)
    with pytest.raises(BadResultError, match="too large"):
        await small.fetch(result_url)


async def test_a_picture_of_exactly_the_limit_passes(
    make_downloader: MakeDownloader, twin: KieTwin, result_url: str
) -> None:
    (task,) = twin.tasks.values()
    exact = make_downloader(max_bytes=len(task.picture()))
    assert await exact.fetch(result_url) == task.picture()


async def test_a_body_without_end_or_length_is_counted_while_it_comes(
    make_downloader: MakeDownloader,
) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        for _ in range(10_000):
            sent_bytes += 65_536
            yield b"\0" * 65_536
            await asyncio.sleep(0)

    async def serve(_request: Request) -> Response:
        return StreamingResponse(endless(), media_type="image/png")

    downloader = make_downloader(max_bytes=1_000_000, timeout_seconds=20)
    async with loopback(Starlette(routes=[Route("/a.png", serve)])) as base_url:
        with pytest.raises(BadResultError, match="too large"):
            await downloader.fetch(f"{base_url}/a.png")
    assert sent_bytes < 50_000_000


@pytest.mark.parametrize(
    ("headers", "body", "accepted"),
    [
        ({"content-type": "image/png"}, b"x", True),
        ({"content-type": "IMAGE/JPEG; q=1"}, b"x", True),
        ({"content-type": "application/octet-stream"}, b"x", True),
        ({"content-type": "binary/octet-stream"}, b"x", True),
        ({"content-type": "application/json"}, b"x", False),
        ({"content-type": "text/html; image/png"}, b"x", False),
        ({}, b"x", False),
        ({"content-type": "image/png"}, b"", False),
        ({"content-type": "image/png", "content-encoding": "gzip"}, b"x", False),
    ],
)
async def test_only_unpacked_pictures_with_a_pictures_type_are_taken(
    downloader: Downloader, headers: dict[str, str], body: bytes, *, accepted: bool
) -> None:
    async def serve(_request: Request) -> Response:
        return Response(body, headers=headers)

    async with loopback(Starlette(routes=[Route("/a", serve)])) as base_url:
        if accepted:
            assert await downloader.fetch(f"{base_url}/a") == body
        else:
            with pytest.raises(BadResultError):
                await downloader.fetch(f"{base_url}/a")


async def test_a_redirects_cookie_goes_nowhere(downloader: Downloader) -> None:
    seen: list[str | None] = []

    async def first(_request: Request) -> Response:
        answer = RedirectResponse("/second")
        answer.set_cookie("a", "b")
        return answer

    async def second(request: Request) -> Response:
        seen.append(request.headers.get("cookie"))
        return Response(b"x", media_type="image/png")

    app = Starlette(routes=[Route("/first", first), Route("/second", second)])
    async with loopback(app) as base_url:
        assert await downloader.fetch(f"{base_url}/first") == b"x"
    assert seen == [None]


async def test_proxies_of_the_environment_are_ignored(
    make_downloader: MakeDownloader, monkeypatch: pytest.MonkeyPatch, result_url: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert await make_downloader().fetch(result_url)


async def test_nothing_is_fetched_inside_a_transaction(
    downloader: Downloader, twin: KieTwin, result_url: str
) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await downloader.fetch(result_url)
    assert twin.requests["result"] == 0
