"""What kie.ai's answers mean. They come as HTTP statuses or inside a body with status 200: both are read.

Only an answer that excludes a task counts as a refusal. Codes: external-apis.md, 1.4.
"""

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from uuid import UUID

from darkroom.kit.log import get_logger
from darkroom.ports.generation import (
    Again,
    Created,
    FailedThere,
    NoAnswer,
    ProviderUnavailableError,
    Ready,
    Refused,
    Working,
)

log = get_logger("adapters")

TASK_ID_MAX, URL_MAX, TEXT_MAX = 255, 4096, 300
RETRY_AFTER_MAX_SECONDS: Final = 600
"""A header may not park a paid photo for longer than ten minutes."""
MAINTENANCE_SECONDS: Final = 120

OK: Final = 200
_MAINTENANCE: Final = 455
_FEATURE_OFF: Final = 505
_UNREADABLE: Final = 0
_SUCCESS: Final = range(200, 300)
_UNKNOWN_YET: Final = frozenset({404, 422})
_IN_LINE: Final = frozenset({"waiting", "queuing"})
_UNDER_WAY: Final = _IN_LINE | {"generating"}
_POLICY: Final = frozenset({"400", "422"})
_REFUSALS: Final = {
    400: Again.NEVER,
    413: Again.NEVER,
    422: Again.NEVER,
    429: Again.LATER,
    # Our selfies could not be read: each creation carries links signed anew, and a refused one costs nothing.
    451: Again.LATER,
    455: Again.LATER,
    401: Again.PAUSED,
    402: Again.PAUSED,
    403: Again.PAUSED,
    # No such route: our configuration is wrong, the photo is not.
    404: Again.PAUSED,
    405: Again.PAUSED,
    433: Again.PAUSED,
    505: Again.PAUSED,
}
_CALLBACK_PATH: Final = re.compile(r"/api/webhooks/generation/kie/([0-9a-f-]{36})(?![0-9a-f-])")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whichever way it was said. `code` is the body's own, None if it has none.

    `data` is the body's where it is an object, else empty; `value` is it as it came.
    """

    status: int
    code: int | None
    text: str
    data: dict[str, Any]
    value: object
    retry_after_seconds: float | None

    @property
    def meaning(self) -> int:
        """The code to act on: the application's word before that of what stands in front of it."""
        if self.code is not None and self.code != OK:
            return self.code
        if self.status not in _SUCCESS:
            return self.status
        return _UNREADABLE if self.code is None else OK


def read_answer(status: int, retry_after: str | None, body: bytes) -> Answer:
    """The envelope, or as much of it as there is."""
    envelope = object_in(body)
    code = envelope.get("code")
    return Answer(
        status=status,
        code=code if type(code) is int else None,
        text=_text(envelope.get("msg") or envelope.get("message")),
        data=object_in(envelope.get("data")),
        value=envelope.get("data"),
        retry_after_seconds=_retry_after_seconds(retry_after),
    )


def read_creation(answer: Answer) -> Created | Refused | NoAnswer:
    """What createTask said. A 408, 500, 501 or anything unheard of is no answer: a task may exist."""
    code = answer.meaning
    said = f"{code}: {answer.text}" if answer.text else str(code)
    task_id = short_text(answer.data.get("taskId"), TASK_ID_MAX)
    if code == OK and task_id is not None:
        return Created(task_id)
    again = _REFUSALS.get(code)
    if again is None or answer.data.get("taskId"):
        # Also an error that names a task: whatever it means, a task may exist.
        return NoAnswer(said)
    if again is Again.NEVER and answer.code is None:
        # A proxy's page, not kie.ai's verdict on this photo.
        again = Again.PAUSED
    if again is Again.PAUSED:
        log.error("kie.ai is shut to us", code=code)
    pause = answer.retry_after_seconds or (MAINTENANCE_SECONDS if code == _MAINTENANCE else None)
    return Refused(f"KIE_{code}", said, again, pause, only_model=code == _FEATURE_OFF)


def read_record(call: str, answer: Answer, provider_task_id: str) -> dict[str, Any] | None:
    """A task's record; None: not known there yet. Raises ProviderUnavailableError: it says nothing about it."""
    record, code = answer.data, answer.meaning
    # A failed task's record may come under the failure's own code.
    if record and (code == OK or (answer.status == OK and record.get("state") == "fail")):
        if record.get("taskId", provider_task_id) != provider_task_id:
            raise ProviderUnavailableError(f"{call}: an answer about another task")
        return record
    if answer.code is not None and (code == OK or code in _UNKNOWN_YET):
        return None
    raise ProviderUnavailableError(f"{call}: {code} {answer.text}".rstrip())


def credits_in(record: dict[str, Any]) -> float | None:
    """What a task took, in either spelling."""
    return number_in(record.get("creditsConsumed", record.get("consumeCredits")))


def dies_at(record: dict[str, Any], hours: float) -> datetime:
    """When a result's link dies: so long after the task's end, by kie.ai's clock where that makes sense."""
    now = datetime.now(UTC)
    lifetime = timedelta(hours=hours)
    ended_ms = number_in(record.get("completeTime"))
    if ended_ms is None or not (now - lifetime).timestamp() < ended_ms / 1000 <= now.timestamp():
        return now + lifetime
    return datetime.fromtimestamp(ended_ms / 1000, UTC) + lifetime


def read_state(
    record: dict[str, Any], provider_task_id: str, *, result_hours: float
) -> Working | Ready | FailedThere:
    """How a task is. A state that no page names is work, with a warning."""
    state = short_text(record.get("state"), TEXT_MAX)
    credits_used = credits_in(record)
    if state == "success":
        url = result_url_in(record)
        if url is not None:
            return Ready(url, credits_used, dies_at(record, result_hours))
        # The flow gives up on a task that works too long: an empty success can't last for ever.
        log.warning("kie.ai says success and shows no picture", provider_task_id=provider_task_id)
        return Working()
    if state == "fail":
        code = _text(record.get("failCode")) or "UNSAID"
        again = Again.NEVER if code in _POLICY else Again.LATER
        return FailedThere(f"KIE_{code}", _text(record.get("failMsg")), again, credits_used)
    if state not in _UNDER_WAY:
        log.warning("kie.ai names an unknown state", state=state, provider_task_id=provider_task_id)
    return Working(in_line=state in _IN_LINE)


def result_url_in(record: dict[str, Any]) -> str | None:
    """Where the picture is, if it is anywhere."""
    urls = object_in(record.get("resultJson")).get("resultUrls")
    first: object = cast("list[object]", urls)[0] if isinstance(urls, list) and urls else None
    return short_text(first, URL_MAX)


def token_in(param: object) -> UUID | None:
    """Our token, from the original request as kie.ai keeps it: JSON in JSON, perhaps twice."""
    original = object_in(param)
    for holder in (original, object_in(original.get("input"))):
        found = _CALLBACK_PATH.search(str(holder.get("callBackUrl") or ""))
        if found is not None:
            try:
                return UUID(found.group(1))
            except ValueError:
                continue
    return None


def object_in(value: object) -> dict[str, Any]:
    """A JSON object, given as itself or as text; empty for anything else."""
    if isinstance(value, bytes | str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def number_in(value: object) -> float | None:
    """A finite number, not below zero, however it is written; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def short_text(value: object, longest: int) -> str | None:
    """Text that may go to the database as it is."""
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
        return value
    return None


def _text(value: object) -> str:
    """Words of a stranger, made fit for a column and a log line."""
    if not isinstance(value, str | int):
        return ""
    words = _CALLBACK_PATH.sub("/[hidden]", str(value))[:TEXT_MAX]
    return "".join(letter if letter.isprintable() else " " for letter in words).strip()


def _retry_after_seconds(header: str | None) -> float | None:
    """Seconds or a date, as HTTP has it; None when absent, unreadable or past."""
    if header is None:
        return None
    seconds = number_in(header)
    if seconds is None:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(seconds, RETRY_AFTER_MAX_SECONDS) if seconds > 0 else None
