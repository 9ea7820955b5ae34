"""Generated requests over our own OpenAPI page: thousands of odd ones, never a 500, always the envelope."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.flow.sign_in import sign_in
from darkroom.ports.identity import Person
from darkroom.twin.loopback import loopback
from tests.edges.serving import application_of
from tests.shop import Shop

EXAMPLES = 40
"""Of each operation: about 2000 requests in half a minute; `--seed` makes them the same each time."""


class Watch:
    """Looks at every answer on its way out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.statuses: Counter[int] = Counter()
        self.broken: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        body = b""

        async def look(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    self._judge(scope, status, body)
            await send(message)

        await self._app(scope, receive, look)

    def _judge(self, scope: Scope, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        place = f"{scope.get('method')} {scope.get('path')}: {status} {body[:200]!r}"
        if status >= 500 and status != 503:
            self.broken.append(place)
        if status >= 400 and scope["path"] not in ("/api/jobs/process", "/api/jobs/failed"):
            try:
                error = json.loads(body)["error"]
                whole = error["code"] == error["details"]["code"]
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole and scope.get("method") != "HEAD":
                self.broken.append(place)


async def test_no_generated_request_breaks_us(shop: Shop, tmp_path: Path) -> None:
    customer = await shop.customer(123)
    for _ in range(3):
        await shop.paid(customer)
    session = await sign_in(shop.darkroom, Person(123, "en"))
    watch = Watch(application_of(shop))
    async with loopback(watch) as address:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"{address}/api/openapi.json",
            "--checks=not_a_server_error",
            f"--max-examples={EXAMPLES}",
            "--phases=examples,coverage,fuzzing",
            "--seed=1",
            # One: two threads that read lambdas' sources at once trip over each other inside CPython's parser.
            "--workers=1",
            "--generation-database=none",
            # The first never ends; the others end the session that all requests here share.
            "--exclude-path-regex=(/events|/me)$",
            "--exclude-name=DELETE /api/session",
            "--suppress-health-check=all",
            f"--header=Authorization: Bearer {session.token}",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
    assert sum(watch.statuses.values()) > 200, out.decode()[-3000:]
    assert not watch.broken, watch.broken[:10]
    assert {200, 400, 404} <= set(watch.statuses), watch.statuses
    assert process.returncode == 0, out.decode()[-3000:]
    # Whoever is shut out tests the door alone: only cron, the queue and signing in have doors of their own.
    assert watch.statuses[401] < watch.statuses.total() / 3, watch.statuses
    await shop.drain()
