"""A set while it is made, as server-sent events: what is there, then each change, then the end."""

import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response

from darkroom.edges.api import Joined, UserId
from darkroom.edges.fields import Id
from darkroom.edges.identity import SignedInRoute
from darkroom.edges.streams import ClosingStream
from darkroom.edges.views import Viewer
from darkroom.flow.watch_jobs import Change, JobStream, JobWatch, parse_seen

router = APIRouter(prefix="/api", route_class=SignedInRoute, tags=["customer"])

RETRY_MS: Final = 2000
"""A restarted server is back within this; a thousand pages that come back at once are 500 a second."""
_OPENING: Final = f"retry: {RETRY_MS}\n\n".encode()
_HEARTBEAT: Final = b": still here\n\n"


@router.get(
    "/jobs/{job_id}/events",
    responses={
        200: {"content": {"text/event-stream": {}}},
        204: {"description": "the job has ended and the client knows: do not come back"},
        429: {"description": "TOO_MANY_STREAMS: this user watches from too many pages"},
    },
    response_class=Response,
)
async def events(
    request: Request,
    job_id: Id,
    user_id: UserId,
    darkroom: Joined,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """A set of the caller: `job` (all of it) first, then `photo` and `status`, at last `end` (all of it)."""
    watch: JobWatch = request.app.state.job_watch
    seen = parse_seen(last_event_id)
    stream = await watch.watch(user_id=user_id, job_id=job_id, seen=seen)
    if stream is None:
        return Response(status_code=204)
    return ClosingStream(
        _Events(stream, Viewer(user_id, darkroom.links)),
        headers={
            "Cache-Control": "no-store",
            # nginx collects an answer before it passes it on, unless told not to.
            "X-Accel-Buffering": "no",
            "X-Content-Type-Options": "nosniff",
        },
        media_type="text/event-stream",
    )


class _Events:
    """The text of a stream."""

    def __init__(self, stream: JobStream, viewer: Viewer) -> None:
        self._stream = stream
        self._viewer = viewer
        self._pieces = self._write()

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._pieces.aclose()
        await self._stream.aclose()

    async def _write(self) -> AsyncGenerator[bytes]:
        yield _OPENING
        async for change in self._stream:
            yield _HEARTBEAT if change is None else _event(change, self._viewer)


def _event(change: Change, viewer: Viewer) -> bytes:
    data: dict[str, Any]
    if change.kind in ("job", "end"):
        data = viewer.job(change.progress)
    else:
        data = viewer.counts(change.progress)
        if change.photo is not None:
            data["photo"] = viewer.photo(change.photo)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {change.kind}\nid: {change.seen}\ndata: {text}\n\n".encode()
