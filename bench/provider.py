"""An instant provider in a process of its own: kie.ai's protocol over loopback, and a picture at once.

Run as `python -m bench.provider [SECONDS [ANSWER_SECONDS [SPREAD_SECONDS]]]`; prints its port. It does as
little as it can, so that what is measured is whoever asks it. A task is done when it is created; with SECONDS
it is done so long after that, of each seven in a row one SPREAD_SECONDS after the other, and then calls back;
with ANSWER_SECONDS a creation is answered so long after the task exists. What it was asked is told at `/told`:
tasks, by the last part of their callback address.
"""

import asyncio
import io
import json
import sys
import time
from collections import Counter
from typing import Any, Final, cast
from urllib.parse import urlsplit

from PIL import Image, ImageFilter

SIDE: Final = (60, 80)
SOFTNESS: Final = 4
"""Small and soft on purpose: reading a picture and making its thumbnail costs the same whoever does it, and has
a row of its own, with a real one (`bench.pictures`)."""
SPREAD_TASKS: Final = 7
"""A small set."""


class Told:
    """What the provider knows: its tasks, and when each was done.

    Attributes:
        after_seconds: from a task's creation to its end; None: it is done at once, and nobody is told.
        spread_seconds: between the ends of two tasks that were created at once.
    """

    def __init__(self, after_seconds: float | None, spread_seconds: float, address: str) -> None:
        self.after_seconds = after_seconds
        self.spread_seconds = spread_seconds
        self.address = address
        self.by_token: Counter[str] = Counter()
        self.done_at: dict[str, float] = {}
        self.created_at: dict[str, float] = {}
        self.params: dict[str, str] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def create(self, order: dict[str, Any]) -> dict[str, Any]:
        """A new task; its end is told if it has one to wait for."""
        callback = str(order.get("callBackUrl") or "")
        self.by_token[callback.rpartition("/")[2]] += 1
        task_id = f"instant-{len(self.created_at) + 1}"
        self.created_at[task_id] = time.time()
        # By this a callback's task is found to be ours, when the creation's answer was lost.
        self.params[task_id] = json.dumps({"model": order.get("model"), "callBackUrl": callback})
        if self.after_seconds is None:
            self.done_at[task_id] = self.created_at[task_id]
        else:
            # Seven of a set do not end in one moment: each a while after the one before.
            later = (len(self.created_at) % SPREAD_TASKS) * self.spread_seconds
            seconds = self.after_seconds + later
            sending = asyncio.create_task(self._end(task_id, callback, seconds))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        return {"code": 200, "msg": "success", "data": {"taskId": task_id}}

    def record(self, task_id: str) -> dict[str, Any]:
        """The record of a task, done or not."""
        if task_id not in self.created_at:
            return {"code": 422, "msg": "recordInfo is null", "data": None}
        done = task_id in self.done_at
        links = {"resultUrls": [f"{self.address}/results/{task_id}.jpg"]}
        data = {
            "taskId": task_id,
            "param": self.params[task_id],
            "state": "success" if done else "generating",
            "resultJson": json.dumps(links) if done else None,
            "failCode": "",
            "failMsg": "",
        }
        return {"code": 200, "msg": "success", "data": data}

    async def _end(self, task_id: str, callback: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.done_at[task_id] = time.time()
        address = urlsplit(callback)
        if not address.port or not address.hostname:
            return
        body = json.dumps(self.record(task_id)).encode()
        head = (
            f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head.encode() + body)
            await reader.read(65_536)
            writer.close()
        except OSError:
            return


class Door(asyncio.Protocol):
    """One connection. Requests are small and whole; answers have a length."""

    def __init__(self, told: Told, picture: bytes, answer_seconds: float) -> None:
        self._told = told
        self._picture = picture
        self._answer_seconds = answer_seconds
        self._heard = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._heard += data
        while (end := self._heard.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._heard[:end]).decode("latin-1")
            length = next(
                (
                    int(line.partition(":")[2])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length:")
                ),
                0,
            )
            if len(self._heard) < end + 4 + length:
                return
            body = bytes(self._heard[end + 4 : end + 4 + length])
            del self._heard[: end + 4 + length]
            self._answer(head.split(" ", 2)[1], body)

    def _answer(self, path: str, body: bytes) -> None:
        if self._transport is None:
            return
        content_type, content, seconds = "application/json", b"", 0.0
        if path.startswith("/results/"):
            content_type, content = "image/jpeg", self._picture
        elif path.startswith("/api/v1/jobs/createTask"):
            content = json.dumps(self._told.create(json.loads(body))).encode()
            seconds = self._answer_seconds
        elif path.startswith("/api/v1/jobs/recordInfo"):
            content = json.dumps(self._told.record(path.rpartition("taskId=")[2])).encode()
        elif path == "/told":
            content = json.dumps(
                {
                    "by_token": self._told.by_token,
                    "created_at": self._told.created_at,
                    "done_at": self._told.done_at,
                }
            ).encode()
        else:
            content = json.dumps({"code": 200, "msg": "success", "data": 1_000_000}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._send, head.encode() + content)
        else:
            self._send(head.encode() + content)

    def _send(self, content: bytes) -> None:
        # Whoever asked may have been killed meanwhile.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


def _paint() -> bytes:
    out = io.BytesIO()
    noise = Image.effect_noise(SIDE, 60).convert("RGB")
    noise.filter(ImageFilter.GaussianBlur(SOFTNESS)).save(out, "JPEG", quality=85)
    return out.getvalue()


async def _main(after: str = "", answer: str = "0", spread: str = "0") -> None:
    picture = _paint()
    told = Told(float(after) if after else None, float(spread), "")
    server = await asyncio.get_running_loop().create_server(
        lambda: Door(told, picture, float(answer)), "127.0.0.1", 0, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    told.address = f"http://127.0.0.1:{port}"
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    from darkroom.kit.process import run_loop

    run_loop(_main(*sys.argv[1:4]))
