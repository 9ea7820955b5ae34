"""The queue's messages carried out: each begins a chunk of a job's photos at the provider."""

import json
import time
from typing import Any, Final
from uuid import uuid4

import httpx
from psycopg.rows import DictRow
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bench.previous_design.database import Settings, Statements
from bench.previous_design.outside import PROCESS_PATH, Queue
from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("previous")

CHUNK: Final = 5
"""Photos begun for one message; the next message carries on."""
CALLBACK_PATH: Final = "/api/webhooks/kie"
SELFIE: Final = "https://photos.example/selfie.jpg"


class JobProcessor:
    """What stands behind POST /api/jobs/process."""

    def __init__(
        self, settings: Settings, *, sql: Statements, http: httpx.AsyncClient, queue: Queue
    ) -> None:
        self._settings = settings
        self._sql = sql
        self._http = http
        self._queue = queue
        self._receiver = QStashReceiver(current_key=settings.queue_key, next_key=settings.queue_key)

    async def process(self, request: Request) -> Response:
        """POST /api/jobs/process: one message of the queue, one chunk of photos begun."""
        body = await request.body()
        if not self._receiver.is_genuine(
            signature=request.headers.get("upstash-signature"),
            body=body,
            url=f"{self._settings.server_url}{PROCESS_PATH}",
        ):
            return JSONResponse({"error": "Unauthorized"}, 401)
        message_id = request.headers.get("upstash-message-id")
        # B2: looked up first and recorded last; two at once both find nothing.
        if await self._sql.run(
            "SELECT id FROM qstash_processed_messages WHERE message_id = %s", [message_id]
        ):
            return JSONResponse(
                {"success": True, "duplicate": True, "message": "Already processed"}
            )
        await checkpoint("previous.message_looked_up")
        content: dict[str, Any] = json.loads(body)
        begin = int(content.get("chunkStart", 0))
        job = await self._sql.first(
            "SELECT id, avatar_id, style_id, status, total_photos, used_prompt_ids "
            "FROM generation_jobs WHERE id = %s",
            [content["jobId"]],
        )
        if job is None:
            return JSONResponse({"error": "Job not found"}, 404)
        # B4: the retry of a first chunk that broke off finds its own mark, and goes away with a 200.
        if job["status"] != ("processing" if begin else "pending"):
            return JSONResponse({"success": True, "message": f"already {job['status']}"})
        await checkpoint("previous.job_looked_up")
        if not begin:
            await self._sql.run(
                "UPDATE generation_jobs SET status = 'processing', updated_at = now() WHERE id = %s",
                [job["id"]],
            )
        end = min(begin + CHUNK, int(job["total_photos"]))
        for prompt_index in range(begin, end):
            await self._begin_photo(job, prompt_index)
        if end < job["total_photos"]:
            # B5: whoever dies before this line leaves the rest of the set to nobody.
            await checkpoint("previous.chunk_done")
            self._queue.publish({"jobId": job["id"], "chunkStart": end})
        await self._sql.run(
            "INSERT INTO qstash_processed_messages (message_id) VALUES (%s) ON CONFLICT DO NOTHING",
            [message_id or f"none-{uuid4().hex}"],
        )
        return JSONResponse({"success": True})

    async def _begin_photo(self, job: DictRow, prompt_index: int) -> None:
        # B7, B8: a look, no constraint; and a row of a failed try counts as well.
        if await self._sql.run(
            "SELECT id FROM kie_tasks WHERE job_id = %s AND prompt_index = %s",
            [job["id"], prompt_index],
        ):
            return
        await checkpoint("previous.task_looked_up")
        found = await self._sql.first(
            "SELECT prompt FROM pack_prompts WHERE id = %s", [job["used_prompt_ids"][prompt_index]]
        )
        prompt = str(found["prompt"]) if found else ""
        token: str | None = f"{job['id']}-{prompt_index}-{uuid4().hex}"
        status, error_text = "pending", None
        try:
            kie_task_id = await self._create_task(prompt, f"{token}")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            # B8: one bad answer, and the photo has failed for good. The provider may be making it.
            log.warning("createTask failed", job_id=job["id"], error=repr(error))
            kie_task_id, status, error_text = f"failed-{time.time_ns()}", "failed", repr(error)
            token = None
        # B6: paid for at the provider, and known to nobody until the next statement is done.
        await checkpoint("previous.task_created")
        await self._sql.run(
            "INSERT INTO kie_tasks (job_id, avatar_id, style_id, prompt, prompt_index, status, kie_task_id, "
            "callback_token, error_message) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                *(job[name] for name in ("id", "avatar_id", "style_id")),
                *(prompt, prompt_index, status, kie_task_id, token, error_text),
            ],
        )

    async def _create_task(self, prompt: str, token: str) -> str:
        """The provider's id of a new task. An error in a body of status 200 shows as no id (B9)."""
        answer = await self._http.post(
            f"{self._settings.provider_url}/api/v1/jobs/createTask",
            headers={"Authorization": f"Bearer {self._settings.provider_key}"},
            json={
                "model": "nano-banana-pro",
                "callBackUrl": f"{self._settings.server_url}{CALLBACK_PATH}/{token}",
                "input": {
                    "prompt": prompt,
                    "image_input": [SELFIE],
                    "aspect_ratio": "3:4",
                    "resolution": "2K",
                    "output_format": "jpg",
                },
            },
        )
        answer.raise_for_status()
        return str(answer.json()["data"]["taskId"])
