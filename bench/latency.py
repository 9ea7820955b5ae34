"""What Darkroom adds to a customer's waiting: from the notice to the provider, from there to the page."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from bench.photos import running, told_by
from bench.places import open_database, others_folder, picture_folder
from bench.worker import NOBODY

MAKES_SECONDS: Final = 0.3
"""How long the provider makes a photo: longer than creating all seven takes."""
SPREAD_SECONDS: Final = 0.15
"""Between two photos of a set: a provider does not end them in one moment."""
LOOK_SECONDS: Final = 0.1
"""Between a customer's looks whether the payment has arrived: oftener than the page's second. Without a pause
this one customer would take half of the processor from those who work for it."""
WARM_UP: Final = 30
"""Orders before anything is measured: each connection plans a statement when it first meets it, the longest of
an order for 5 ms, and of the connections that an order uses the last is used seldom."""
UNCALLED_SECONDS: Final = 10
"""How long a photo takes to make whose provider never calls back."""
ORDER_SECONDS: Final = 60
STYLE: Final = "signature"
TIER: Final = "starter"


@dataclass(slots=True)
class Waits:
    """Seconds, one figure an order or a photo.

    Attributes:
        to_provider: from the notice's row to the first task that the provider created.
        to_stored: from the picture being there to its row being written.
        to_screen: from the picture being there to its event at whoever watches.
    """

    to_provider: list[float] = field(default_factory=list[float])
    to_stored: list[float] = field(default_factory=list[float])
    to_screen: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class _Place:
    port: str
    provider_port: str
    dsn: str


def measure_waits(server: str, *, orders: int, load: int = 0) -> Waits:
    """`orders` sets one after the other, while `load` photos of others wait to be made in the background."""
    folder = picture_folder()
    with open_database(server, customers=WARM_UP + orders + load // 7 + 1) as dsn:
        return asyncio.run(_measure(dsn, folder, orders, load))


def measure_uncalled(server: str, *, orders: int) -> list[float]:
    """`orders` sets at once whose provider calls nobody back: seconds from each picture to its row."""
    folder = picture_folder()
    with open_database(server, customers=orders) as dsn:
        return asyncio.run(_measure_uncalled(dsn, folder, orders)).to_stored


async def _measure_uncalled(dsn: str, folder: Path, orders: int) -> Waits:
    with psycopg.connect(dsn) as one:
        rows = one.execute("SELECT user_id, id FROM avatars ORDER BY id").fetchall()
    customers = [(int(user_id), int(avatar_id)) for user_id, avatar_id in rows[:orders]]
    async with _standing(dsn, folder, UNCALLED_SECONDS, NOBODY) as place:
        await asyncio.gather(
            *(_order(place, user_id, avatar_id, {}) for user_id, avatar_id in customers)
        )
        told = told_by(place.provider_port)
    return _waits(dsn, customers, told, {})


@asynccontextmanager
async def _standing(
    dsn: str, folder: Path, makes_seconds: float, callback_url: str = ""
) -> AsyncGenerator[_Place]:
    secret = secrets.token_hex(16)
    async with (
        running("bench.provider", str(makes_seconds), "0", str(SPREAD_SECONDS)) as provider_port,
        running("bench.bank", str(others_folder() / "bank.sqlite"), secret) as bank_url,
        running(
            *("bench.whole", dsn, str(folder), f"http://127.0.0.1:{provider_port}"),
            *(f"{secret}@{bank_url}", callback_url),
        ) as port,
    ):
        yield _Place(port, provider_port, dsn)


async def _measure(dsn: str, folder: Path, orders: int, load: int) -> Waits:
    with psycopg.connect(dsn) as one:
        customers = one.execute("SELECT user_id, id FROM avatars ORDER BY id").fetchall()
    arrived: dict[str, float] = {}
    async with _standing(dsn, folder, MAKES_SECONDS) as place:
        for _ in range(WARM_UP):
            user_id, avatar_id = customers.pop()
            await _order(place, user_id, avatar_id, {})
        busy = asyncio.create_task(_keep_busy(place, customers[orders:], load))
        for user_id, avatar_id in customers[:orders]:
            await _order(place, user_id, avatar_id, arrived)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        told = told_by(place.provider_port)
    return _waits(dsn, customers[:orders], told, arrived)


async def _keep_busy(place: _Place, customers: list[tuple[int, int]], load: int) -> None:
    """Others' sets, one after the other without a pause, at most `load` photos of them."""
    for user_id, avatar_id in customers[: load // 7]:
        await _order(place, user_id, avatar_id, {})


async def _order(place: _Place, user_id: int, avatar_id: int, arrived: dict[str, float]) -> None:
    """Order, pay, and watch until the end, as the page does."""
    body = {"tierId": TIER, "avatarId": avatar_id, "styleId": STYLE}
    payment = (await _post(place, "/api/payments", user_id, body))["data"]
    checkout: str = payment["checkoutUrl"]
    await _pay(checkout)
    async with asyncio.timeout(ORDER_SECONDS):
        job_id = None
        while job_id is None:
            await asyncio.sleep(LOOK_SECONDS)
            shown = await _get(place, f"/api/payments/{payment['paymentId']}", user_id)
            job_id = shown["data"]["jobId"]
        await _watch(place, user_id, int(job_id), arrived)


async def _watch(place: _Place, user_id: int, job_id: int, arrived: dict[str, float]) -> None:
    """Read a set's events to their end; when each photo's came, by the photo's id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(place.port))
    writer.write(_head("GET", f"/api/jobs/{job_id}/events", user_id, b""))
    kind = ""
    while line := await reader.readline():
        text = line.decode().strip()
        if text.startswith("event: "):
            kind = text.removeprefix("event: ")
        elif text.startswith("data: "):
            data: dict[str, Any] = json.loads(text.removeprefix("data: "))
            if kind == "photo":
                arrived[str(data["photo"]["photoId"])] = time.time()
            if kind == "end":
                break
    writer.close()


def _head(method: str, path: str, user_id: int, body: bytes) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer token-{user_id}\r\n"
        f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _ask(port: int, request: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if re.match(rb"HTTP/1.1 [23]", head) is None:
        raise AssertionError(answer[:500])
    if not body.startswith(b"{"):
        return {}
    told: dict[str, Any] = json.loads(body)
    return told


async def _pay(checkout: str) -> None:
    """What the bank's own page sends."""
    bank = urlsplit(checkout)
    if bank.port is None:
        raise AssertionError(checkout)
    await _ask(bank.port, _head("POST", f"{bank.path}/pay", 0, b""))


async def _post(place: _Place, path: str, user_id: int, body: dict[str, Any]) -> dict[str, Any]:
    return await _ask(int(place.port), _head("POST", path, user_id, json.dumps(body).encode()))


async def _get(place: _Place, path: str, user_id: int) -> dict[str, Any]:
    return await _ask(int(place.port), _head("GET", path, user_id, b""))


PHOTOS: Final = """
SELECT p.id::TEXT, a.provider_task_id, extract(epoch FROM p.created_at)::FLOAT8,
       extract(epoch FROM i.received_at)::FLOAT8, j.id
FROM generated_photos p JOIN task_attempts a ON a.id = p.attempt_id
JOIN generation_jobs j ON j.id = p.job_id JOIN payments pay ON pay.id = j.payment_id
JOIN inbox i ON i.kind = 'payment' AND (i.payload ->> 'payment_id')::BIGINT = pay.id
WHERE j.user_id = ANY(%s)
"""


def _waits(
    dsn: str,
    customers: list[tuple[int, int]],
    told: dict[str, Any],
    arrived: dict[str, float],
) -> Waits:
    with psycopg.connect(dsn) as one:
        rows = one.execute(PHOTOS, [[user_id for user_id, _ in customers]]).fetchall()
    waits = Waits()
    first: dict[int, tuple[float, float]] = {}
    for photo_id, task_id, stored_at, noticed_at, job_id in rows:
        done_at, created_at = told["done_at"][task_id], told["created_at"][task_id]
        waits.to_stored.append(stored_at - done_at)
        if photo_id in arrived:
            waits.to_screen.append(arrived[photo_id] - done_at)
        first[job_id] = noticed_at, min(created_at, first.get(job_id, (0, created_at))[1])
    waits.to_provider = [created_at - noticed_at for noticed_at, created_at in first.values()]
    return waits
