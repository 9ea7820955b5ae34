"""The crons: collect finished photos, close jobs, give up on stuck ones, pay back. Several may run at once."""

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
from psycopg import Error as DatabaseError
from psycopg.rows import DictRow

from bench.previous_design.database import Settings, Statements
from bench.previous_design.outside import RefundDoor, open_books, open_client
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("previous")

PARTIAL_SHARE: Final = 0.7
"""Of a set; with less of it delivered the whole price goes back, as the older policy was."""
RUBLE_MINOR: Final = 100
PROMPT_CHARACTERS: Final = 500


def partial_refund_minor(amount_minor: int, *, failed: int, total: int) -> int:
    """The share of the failed photos, in whole rubles, at least one."""
    rubles = round(amount_minor * failed / total / RUBLE_MINOR)
    return max(rubles, 1) * RUBLE_MINOR


class PreviousWorker:
    """One run after another of every cron."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sql = Statements(settings.dsn)
        self._http = open_client()
        self._books = open_books(Path(settings.folder))
        self._refund_door = RefundDoor(self._books)

    async def run_forever(self) -> None:
        """Whatever goes wrong in a run is logged, and the next run comes."""
        lot = random.Random(self._settings.life)  # noqa: S311 - to be repeated, not to be secret
        await asyncio.sleep(lot.uniform(0, self._settings.poll_seconds))
        while True:
            for cron in (self.poll, self.give_up_stuck):
                try:
                    await cron()
                except Exception as error:  # noqa: BLE001 - as the older crons did
                    log.warning("cron failed", cron=cron.__name__, error=repr(error))
            await asyncio.sleep(self._settings.poll_seconds)

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._http.aclose()
        await self._sql.close()
        self._books.close()

    async def poll(self) -> None:
        """GET /api/cron/poll-kie-tasks."""
        # C2: nobody's and everybody's: another run may be looking at the same ones.
        tasks = await self._sql.run(
            "SELECT id, job_id, avatar_id, style_id, prompt, prompt_index, kie_task_id FROM kie_tasks "
            "WHERE status = 'pending' ORDER BY created_at LIMIT %s",
            [self._settings.poll_limit],
        )
        if not tasks:
            # C6: and whoever has all of its photos by now is not closed.
            return
        for task in tasks:
            try:
                await self._look_at(task)
            except (httpx.HTTPError, DatabaseError, ValueError, LookupError, TypeError) as error:
                log.warning("task not looked at", task_id=task["id"], error=repr(error))
        jobs = await self._sql.run(
            "SELECT id, payment_id, total_photos FROM generation_jobs WHERE status = 'processing'"
        )
        for job in jobs:
            await self._close_if_done(job)

    async def give_up_stuck(self) -> None:
        """GET /api/cron/check-stuck-jobs."""
        stuck = await self._sql.run(
            "SELECT j.id, j.payment_id, p.amount_minor FROM generation_jobs j "
            "JOIN payments p ON p.id = j.payment_id WHERE (j.status = 'processing' "
            "AND j.updated_at < now() - make_interval(secs => %s)) OR (j.status = 'pending' "
            "AND j.created_at < now() - make_interval(secs => %s))",
            [self._settings.stuck_seconds, self._settings.pending_seconds],
        )
        for job in stuck:
            # C10: the whole price, however many photos are there. C21: the money first, then the status.
            await self._refund(job["payment_id"], job["amount_minor"], whole=True)
            await checkpoint("previous.stuck_refunded")
            # C9: its open tasks stay pending, and the other cron keeps collecting them.
            await self._set_job(job["id"], "failed")

    async def _look_at(self, task: DictRow) -> None:
        answer = await self._http.get(
            f"{self._settings.provider_url}/api/v1/jobs/recordInfo",
            params={"taskId": task["kie_task_id"]},
            headers={"Authorization": f"Bearer {self._settings.provider_key}"},
        )
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        record: dict[str, Any] = content.get("data") or {}
        if record.get("state") == "fail":
            await self._sql.run(
                "UPDATE kie_tasks SET status = 'failed', error_message = %s, updated_at = now() "
                "WHERE id = %s",
                [record.get("failMsg"), task["id"]],
            )
        elif record.get("state") == "success":
            await self._collect(task, str(json.loads(record["resultJson"])["resultUrls"][0]))

    async def _collect(self, task: DictRow, result_url: str) -> None:
        image_url, sha256 = await self._keep(task, result_url)
        # C12: told apart by words; the same scene of another set of this avatar counts as this photo.
        existing = await self._sql.run(
            "SELECT id FROM generated_photos WHERE avatar_id = %s AND style_id = %s "
            "AND left(prompt, %s) = %s",
            [
                *(task["avatar_id"], task["style_id"]),
                *(PROMPT_CHARACTERS, task["prompt"][:PROMPT_CHARACTERS]),
            ],
        )
        await checkpoint("previous.photo_looked_up")
        if not existing:
            try:
                await self._sql.run(
                    "INSERT INTO generated_photos (avatar_id, style_id, prompt, image_url, job_id, "
                    "prompt_index, sha256) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    [
                        *(task["avatar_id"], task["style_id"], task["prompt"], image_url),
                        *(task["job_id"], task["prompt_index"], sha256),
                    ],
                )
            except DatabaseError as error:
                # C1: said in a log, and that is all.
                log.warning("photo not saved", task_id=task["id"], error=repr(error))
        await checkpoint("previous.photo_kept")
        await self._sql.run(
            "UPDATE kie_tasks SET status = 'completed', result_url = %s, updated_at = now() "
            "WHERE id = %s",
            [image_url, task["id"]],
        )
        # C13: photos of the avatar, not of the job.
        await self._sql.run(
            "UPDATE generation_jobs j SET updated_at = now(), completed_photos = (SELECT count(*) "
            "FROM generated_photos g WHERE g.avatar_id = j.avatar_id AND g.style_id = j.style_id) "
            "WHERE id = %s",
            [task["job_id"]],
        )

    async def _keep(self, task: DictRow, result_url: str) -> tuple[str, str | None]:
        """Where the picture is from now on, and its hash if it is with us."""
        try:
            answer = await self._http.get(result_url)
            answer.raise_for_status()
            if not answer.headers.get("content-type", "").startswith("image/"):
                raise ValueError("not a picture")  # noqa: TRY301 - the same end as every other failure
            # C16: a random name: the next try leaves this one behind.
            key = f"generated/{task['avatar_id']}/{task['style_id']}/{uuid4().hex}.jpg"
            _store(Path(self._settings.folder) / "objects" / key, answer.content)
        except (httpx.HTTPError, OSError, ValueError) as error:
            # C15: then the provider's address will do. It dies.
            log.warning("picture not stored", task_id=task["id"], error=repr(error))
            return result_url, None
        return key, hashlib.sha256(answer.content).hexdigest()

    async def _close_if_done(self, job: DictRow) -> None:
        counts = {
            str(row["status"]): int(row["count"])
            for row in await self._sql.run(
                "SELECT status, count(*) FROM kie_tasks WHERE job_id = %s GROUP BY status",
                [job["id"]],
            )
        }
        failed = counts.get("failed", 0)
        done = counts.get("completed", 0) + failed
        if counts.get("pending") or done < job["total_photos"]:
            return
        # C2: counted now, written then; another run does the same beside it.
        await checkpoint("previous.job_counted")
        if not failed:
            await self._set_job(job["id"], "completed")
            return
        payment = await self._sql.first(
            "SELECT amount_minor FROM payments WHERE id = %s", [job["payment_id"]]
        )
        amount = int(payment["amount_minor"]) if payment else 0
        total = int(job["total_photos"])
        if total - failed >= PARTIAL_SHARE * total:
            part = partial_refund_minor(amount, failed=failed, total=total)
            await self._refund(job["payment_id"], part, whole=False)
            await self._set_job(job["id"], "partial")
        else:
            await self._refund(job["payment_id"], amount, whole=True)
            await self._set_job(job["id"], "failed")

    async def _set_job(self, job_id: int, status: str) -> None:
        # C2: whatever it was before.
        await self._sql.run(
            "UPDATE generation_jobs SET status = %s, updated_at = now() WHERE id = %s",
            [status, job_id],
        )

    async def _refund(self, payment_id: int, amount_minor: int, *, whole: bool) -> None:
        # D2: a payment that was paid back in part passes, and is paid back in whole.
        locked = await self._sql.run(
            "UPDATE payments SET refund_status = 'processing' WHERE id = %s "
            "AND coalesce(refund_status, '') NOT IN ('processing', 'completed') RETURNING id",
            [payment_id],
        )
        if not locked:
            return
        # D3: whoever dies here leaves it in processing for ever. D4: and nobody asks what the bank did.
        await checkpoint("previous.refund_locked")
        self._refund_door.pay_back(payment_id, amount_minor)
        await checkpoint("previous.refund_sent")
        await self._sql.run(
            "UPDATE payments SET refund_status = %s, status = %s, refund_amount_minor = "
            "refund_amount_minor + %s WHERE id = %s",
            [
                "completed" if whole else "partial",
                "refunded" if whole else "partially_refunded",
                amount_minor,
                payment_id,
            ],
        )


def _store(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
