"""Pages of a gallery: `GET /api/avatars/{id}/photos` through real HTTP, over a few kept connections."""

import asyncio
import re
import time
from typing import Final

import psycopg

from bench.claims import serving

CLIENTS: Final = 8
PAGES_EACH: Final = 10
"""Of one customer's gallery: the second and later ones find the session's and the pages' rows in the cache."""
WHO: Final = (
    "SELECT a.user_id, a.id FROM avatars a WHERE EXISTS (SELECT FROM sessions s WHERE s.user_id = a.user_id) "
    "AND EXISTS (SELECT FROM generated_photos p WHERE p.avatar_id = a.id) ORDER BY a.id DESC LIMIT %s"
)


async def measure_pages(dsn: str, customers: int) -> float:
    """Pages per second that one server process gives to the newest customers who have photos."""
    with psycopg.connect(dsn) as one:
        who = [(int(user), int(avatar)) for user, avatar in one.execute(WHO, [customers])]
    if len(who) != customers:
        raise AssertionError(f"{len(who)} customers have photos")
    async with serving(dsn) as port:
        await _read_all(port, who)
        began = time.perf_counter()
        await _read_all(port, who * PAGES_EACH)
        return len(who) * PAGES_EACH / (time.perf_counter() - began)


async def _read_all(port: int, who: list[tuple[int, int]]) -> None:
    queue = list(reversed(who))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            user_id, avatar_id = queue.pop()
            writer.write(
                f"GET /api/avatars/{avatar_id}/photos HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer token-{user_id}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(0 if length is None else int(length[1]))
            if b" 200 " not in head.split(b"\r\n", 1)[0] or body.count(b'"sha256"') == 0:
                raise AssertionError(f"{head!r} {body!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
