"""Watching sets while they are made: one look for all watchers of a process, and what is new for each.

The database is looked at every few seconds, and sooner when a NOTIFY comes. A watcher is told the difference
between what it has seen and what is there now, so nothing can be missed between two looks, and what it has
seen fits into the id of its last event: another process goes on where this one stopped.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Literal

from prometheus_client import Gauge

from darkroom.core.photos import PhotoView
from darkroom.core.progress import (
    CHANNEL,
    OPEN_STATUSES,
    JobMark,
    Progress,
    read_marks,
    read_progress,
)
from darkroom.db.database import DatabaseUnavailableError, RowBusyError
from darkroom.db.listener import heard
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.log import get_logger

log = get_logger("flow")

LISTEN_PAUSE_CAP_SECONDS: Final = 30
"""Without a listener everything works, a little later: no reason to press a database that is down."""
STREAMS = Gauge("darkroom_streams", "Customers' pages that are watching a set now.")
_SEEN: Final = re.compile(r"(\d{1,18})\.(\d{1,3})\.(\d{1,3})\.([a-z]{1,16})")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher knows: the newest photo it was told of, and the counts and status with it."""

    photo_id: int
    completed: int
    failed: int
    status: str

    def __str__(self) -> str:
        """The id of an event."""
        return f"{self.photo_id}.{self.completed}.{self.failed}.{self.status}"


def parse_seen(text: str | None) -> Seen | None:
    """What the id of a last event says; None where there is none or it is none of ours."""
    match = None if text is None else _SEEN.fullmatch(text)
    if match is None or not match[0].isascii():
        return None
    return Seen(int(match[1]), int(match[2]), int(match[3]), match[4])


@dataclass(frozen=True, slots=True)
class Change:
    """One event: `job` is the whole truth at the beginning, `end` the same at the end."""

    kind: Literal["job", "photo", "status", "end"]
    seen: Seen
    progress: Progress
    photo: PhotoView | None = None


def changes_since(seen: Seen | None, now: Progress) -> Generator[Change]:
    """What somebody who has seen `seen` must be told, in order; each event's id is what is seen after it.

    Photos come one by one, by id: within a job ids become visible in their order (`list_photos_of_jobs`).
    An id says the new counts only when nothing of them is left to tell, so that coming back in between
    loses nothing.
    """
    job = now.job
    newest = max((photo.id for photo in now.photos), default=0)
    if seen is None:
        seen = Seen(newest, job.completed_photos, job.failed_photos, job.status)
        yield Change("job", replace(seen, status="pending") if now.ended else seen, now)
        if now.ended:
            yield Change("end", seen, now)
        return
    known = seen
    there = Seen(max(newest, seen.photo_id), job.completed_photos, job.failed_photos, job.status)
    fresh = [photo for photo in now.photos if photo.id > known.photo_id]
    for photo in fresh:
        last = photo is fresh[-1] and not now.ended
        seen = there if last else replace(known, photo_id=photo.id)
        yield Change("photo", seen, now, photo)
    if seen == there:
        return
    yield Change("end" if now.ended else "status", there, now)


class _Watched:
    """A job that somebody watches."""

    def __init__(self) -> None:
        self.watchers = 0
        # The last look that saw this job, and the one that its newest watcher waits for.
        self.looked = 0
        self.awaited = 0
        self.mark: JobMark | None = None
        self.progress: Progress | None = None
        self.changed = asyncio.Event()

    def tell(self) -> None:
        told, self.changed = self.changed, asyncio.Event()
        told.set()


class JobStream:
    """One page's view of one job. Close it, whether it was read or not: it holds a place."""

    def __init__(
        self, watch: "JobWatch", watched: _Watched, mark: JobMark, seen: Seen | None
    ) -> None:
        self._watch = watch
        self._watched = watched
        self._mark = mark
        self._seen = seen
        # What was read before this stream came may be older than what its last event has told.
        self._first_look = watch.next_look
        self._changes = self._follow()
        self._open = True

    def __aiter__(self) -> AsyncGenerator[Change | None]:
        """The changes as they come; None is a heartbeat."""
        return self._changes

    async def aclose(self) -> None:
        """Give the place back. Safe to call twice."""
        await self._changes.aclose()
        if self._open:
            self._open = False
            self._watch.leave(self._mark)

    async def _follow(self) -> AsyncGenerator[Change | None]:
        limits = self._watch.darkroom.limits
        until = time.monotonic() + limits.stream_seconds
        watched = self._watched
        while not self._watch.stopping:
            changed = watched.changed
            if watched.progress is not None and watched.looked >= self._first_look:
                for change in changes_since(self._seen, watched.progress):
                    self._seen = change.seen
                    yield change
                    if change.kind == "end":
                        return
            left = until - time.monotonic()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(limits.heartbeat_seconds, left)):
                    await changed.wait()
            except TimeoutError:
                yield None


class JobWatch:
    """All watchers of this process. Looks while somebody watches; otherwise holds and costs nothing."""

    def __init__(self, darkroom: Darkroom) -> None:
        self.darkroom = darkroom
        self.stopping = False
        self.next_look = 1
        self._jobs: dict[int, _Watched] = {}
        self._of_user: Counter[int] = Counter()
        self._rung = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, *, user_id: int, job_id: int, seen: Seen | None) -> JobStream | None:
        """Begin to watch a job of this user; None: it has ended, and `seen` says that this is known.

        Raises:
            RequestRefusedError: 404 not theirs; 429 too many pages of this user; 503 too many of all, or
                this process is about to end.
            DatabaseUnavailableError: no database; the page comes back by itself.
        """
        async with self.darkroom.database.connection() as tx:
            marks = await read_marks(tx, [job_id])
        if not marks or marks[0].user_id != user_id:
            raise not_found("job")
        mark = marks[0]
        if seen is not None and mark.status not in OPEN_STATUSES and _says(seen, mark):
            return None
        limits = self.darkroom.limits
        # From the check to the place taken nothing waits: N at once cannot all pass it.
        if self.stopping or self._of_user.total() >= limits.streams_per_process:
            raise _too_many(503, "Please come back in a moment")
        if self._of_user[user_id] >= limits.streams_per_user:
            raise _too_many(429, "Too many open pages: close one of them")
        self._of_user[user_id] += 1
        STREAMS.inc()
        watched = self._jobs.setdefault(job_id, _Watched())
        watched.watchers += 1
        watched.awaited = self.next_look
        stream = JobStream(self, watched, mark, seen)
        self._rung.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_while_watched(), name="job-watch")
            self._tasks.add(self._looking)
            self._looking.add_done_callback(self._tasks.discard)
        return stream

    def leave(self, mark: JobMark) -> None:
        """One watcher less; the last one of all ends the looking."""
        STREAMS.dec()
        self._of_user[mark.user_id] -= 1
        if not self._of_user[mark.user_id]:
            del self._of_user[mark.user_id]
        watched = self._jobs[mark.job_id]
        watched.watchers -= 1
        if not watched.watchers:
            del self._jobs[mark.job_id]
        if not self._jobs:
            self._rung.set()

    async def stop(self) -> None:
        """End every stream now, between two events: each page comes back, to whoever serves then."""
        self.stopping = True
        for watched in self._jobs.values():
            watched.tell()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_while_watched(self) -> None:
        listening = asyncio.create_task(self._listen(), name="job-watch-listener")
        try:
            while self._jobs:
                self._rung.clear()
                looked_at = time.monotonic()
                await self._look_once()
                try:
                    async with asyncio.timeout(self.darkroom.limits.look_seconds):
                        await self._rung.wait()
                except TimeoutError:
                    continue
                # Rings come in crowds: one look answers all that ring within the pause, a lone one is not kept.
                pause = self.darkroom.limits.look_pause_seconds - (time.monotonic() - looked_at)
                if self._jobs and pause > 0:
                    await asyncio.sleep(pause)
        finally:
            # Before anything is waited for: whoever comes from here on begins another.
            self._looking = None
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _look_once(self) -> None:
        try:
            await self._look()
        except (DatabaseUnavailableError, RowBusyError):
            log.warning("watched jobs not read, looking again", jobs=len(self._jobs))
        except Exception:
            log.exception("look failed", jobs=len(self._jobs))

    async def _look(self) -> None:
        """Two reads for all watched jobs: what could be new, and the whole of what is."""
        number = self.next_look
        self.next_look += 1
        looked_at = dict(self._jobs)
        async with self.darkroom.database.connection() as tx:
            marks = {mark.job_id: mark for mark in await read_marks(tx, list(looked_at))}
        changed = [job_id for job_id, mark in marks.items() if looked_at[job_id].mark != mark]
        found: dict[int, Progress] = {}
        if changed:
            async with self.darkroom.database.transaction() as tx:
                found = await read_progress(tx, changed)
        for job_id, watched in looked_at.items():
            behind = watched.looked < watched.awaited
            if job_id in found:
                watched.mark, watched.progress = marks[job_id], found[job_id]
            watched.looked = number
            if job_id in found or behind:
                watched.tell()

    async def _listen(self) -> None:
        """Hear rings on one connection of this process, if it can be had."""
        if not self.darkroom.database.has_sessions:
            return
        failures = 0
        while True:
            try:
                async with aclosing(heard(self.darkroom.database, CHANNEL)) as payloads:
                    async for payload in payloads:
                        failures = 0
                        if payload is None or (payload.isdigit() and int(payload) in self._jobs):
                            self._rung.set()
            except DatabaseUnavailableError:
                failures += 1
                log.info("nobody rings for now, looking anyway", failures=failures)
            await asyncio.sleep(
                backoff_seconds(failures, base_seconds=0.5, cap_seconds=LISTEN_PAUSE_CAP_SECONDS)
            )


def _says(seen: Seen, mark: JobMark) -> bool:
    told = (seen.completed, seen.failed, seen.status)
    return told == (mark.completed_photos, mark.failed_photos, mark.status)


def _too_many(status: int, message: str) -> RequestRefusedError:
    return RequestRefusedError(status, "TOO_MANY_STREAMS", message)
