"""kie.ai: the provider with neither an idempotency key nor a list of tasks.

What it answers comes as an HTTP status or inside a body with status 200; both are read. Only an
answer that excludes a task counts as a refusal. Facts and sources: external-apis.md, section 1.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from uuid import UUID

import httpx

from darkroom.adapters.download import Downloader, trusted_authorities
from darkroom.kit.log import get_logger
from darkroom.kit.outside import outside_call
from darkroom.ports.generation import (
    Adoption,
    Again,
    Created,
    FailedThere,
    GenerationRequest,
    NoAnswer,
    ProviderUnavailableError,
    Ready,
    Refused,
    Working,
)

log = get_logger("adapters")

CALL_SECONDS: Final = 15
"""An answer of kie.ai takes about a second; its front gives up at 100."""
CONNECT_SHARE: Final = 0.5
"""A connection that takes half the call's time is given up: "nothing was sent" is still certain."""
BODY_BYTES_MAX: Final = 1_000_000
PROMPT_MAX: Final = 5000
"""The smallest of the limits that kie.ai's pages name."""
ASPECT_RATIO: Final = "3:4"
"""As the studio's photos."""
RESOLUTION: Final = "2K"
TASK_ID_MAX, URL_MAX, TEXT_MAX = 255, 4096, 300
RETRY_AFTER_MAX_SECONDS: Final = 600
"""A header may not park a paid photo for longer than ten minutes."""
MAINTENANCE_SECONDS: Final = 120

_OK: Final = 200
_MAINTENANCE: Final = 455
_UNREADABLE: Final = 0
_UNKNOWN_YET: Final = frozenset({404, 422})
_UNDER_WAY: Final = frozenset({"waiting", "queuing", "generating"})
_POLICY: Final = frozenset({"400", "422"})
_REFUSALS: Final = {
    400: Again.NEVER,
    413: Again.NEVER,
    422: Again.NEVER,
    429: Again.LATER,
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
class _Model:
    """How one model spells its input."""

    images: str
    images_max: int
    jpeg: str | None
    has_resolution: bool


# google/nano-banana is not here: it takes no selfies, so it would draw strangers.
_MODELS: Final = {
    "nano-banana-pro": _Model("image_input", 8, "jpg", has_resolution=True),
    "nano-banana-2": _Model("image_input", 14, "jpg", has_resolution=True),
    "nano-banana-2-lite": _Model("image_urls", 10, None, has_resolution=False),
    "google/nano-banana-edit": _Model("image_urls", 10, "jpeg", has_resolution=False),
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer, whichever way it was said. `code` is the body's own, None if it has none."""

    status: int
    code: int | None
    text: str
    data: dict[str, Any]
    retry_after_seconds: float | None

    @property
    def meaning(self) -> int:
        """The code to act on: the application's word before that of what stands in front of it."""
        if self.code is not None and self.code != _OK:
            return self.code
        if not httpx.codes.is_success(self.status):
            return self.status
        return _UNREADABLE if self.code is None else _OK


class KieProvider:
    """Photos by kie.ai.

    Args:
        base_url: kie.ai's address.
        api_key: the bearer key.
        model: one of kie.ai's models that take selfies.
        callback_base_url: how kie.ai reaches us.
        reference_link: makes an address under which kie.ai can read one of our objects. It must
            stay valid for as long as a task may queue: hours.
        downloader: fetches results; closed together with the provider.
        transport: what carries the requests; tests put their own here.
        call_seconds: the limit of one create or ask.
        window_requests: creations that kie.ai takes in one window.
        window_seconds: the window's length.

    Raises:
        ValueError: an unknown model, or a key that cannot stand in a header.
    """

    name: str = "kie"
    create_is_idempotent: bool = False
    first_ask_seconds: float = 2.5

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        model: str,
        callback_base_url: str,
        reference_link: Callable[[str], str],
        downloader: Downloader,
        transport: httpx.AsyncBaseTransport | None = None,
        call_seconds: float = CALL_SECONDS,
        window_requests: int = 20,
        window_seconds: float = 10.25,
    ) -> None:
        if model not in _MODELS:
            raise ValueError(f"kie.ai model {model!r} is not one of {', '.join(_MODELS)}")
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("kie.ai's key is empty or has characters no key has")
        self.call_seconds = call_seconds
        self.window_requests: int | None = window_requests
        self.window_seconds = window_seconds
        self.fetch_seconds = downloader.timeout_seconds
        self._model = model
        self._callback_base_url = callback_base_url.rstrip("/")
        self._reference_link = reference_link
        self._downloader = downloader
        connect_seconds = call_seconds * CONNECT_SHARE
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(call_seconds, connect=connect_seconds, pool=connect_seconds),
            verify=trusted_authorities(),
            trust_env=False,
            # A kept connection that kie.ai has just closed loses a creation's answer: each such
            # loss is 90 s of waiting and perhaps a second paid task. A handshake is cheaper.
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
        )

    async def create(self, request: GenerationRequest) -> Created | Refused | NoAnswer:
        """Ask for one photo. Never retried: kie.ai would make and bill a second one."""
        refusal = _refuse_request(request)
        if refusal is not None:
            return refusal
        post = self._client.build_request(
            "POST", "/api/v1/jobs/createTask", json=self._body(request)
        )
        try:
            answer = await self._call("kie.create", post)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Refused("UNREACHABLE", type(error).__name__, Again.LATER)
        except (TimeoutError, httpx.HTTPError) as error:
            return NoAnswer(type(error).__name__)
        return _read_creation(answer)

    async def ask(
        self, request: GenerationRequest, provider_task_id: str
    ) -> Working | Ready | FailedThere:
        """How the task is. A task that kie.ai does not know is one it does not know yet.

        Raises:
            ProviderUnavailableError: no answer, or one that says nothing about the task.
        """
        del request
        record = await self._record("kie.ask", provider_task_id)
        return Working() if record is None else _read_state(record, provider_task_id)

    async def fetch(
        self, request: GenerationRequest, provider_task_id: str, result_url: str
    ) -> bytes:
        """The picture. Raises ProviderUnavailableError, LinkDeadError, BadResultError."""
        del request, provider_task_id
        return await self._downloader.fetch(result_url)

    async def whose(self, provider_task_id: str) -> Adoption | None:
        """Whose task this is, by the callback address kept with it. None: no such task there.

        Raises:
            ProviderUnavailableError: no answer, or one that says nothing about the task.
        """
        record = await self._record("kie.whose", provider_task_id)
        return (
            None if record is None else Adoption(provider_task_id, _token_in(record.get("param")))
        )

    async def close(self) -> None:
        """Close the connections and the downloader."""
        await self._client.aclose()
        await self._downloader.close()

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        model = _MODELS[self._model]
        shown = request.references[: model.images_max]
        wish: dict[str, Any] = {
            "prompt": request.prompt,
            model.images: [self._reference_link(reference.object_key) for reference in shown],
            "aspect_ratio": ASPECT_RATIO,
        }
        if model.has_resolution:
            wish["resolution"] = RESOLUTION
        if model.jpeg is not None:
            wish["output_format"] = model.jpeg
        callback = f"{self._callback_base_url}/api/webhooks/generation/kie/{request.token}"
        return {"model": self._model, "callBackUrl": callback, "input": wish}

    async def _record(self, call: str, provider_task_id: str) -> dict[str, Any] | None:
        """What kie.ai has on a task; None when it does not know it yet."""
        get = self._client.build_request(
            "GET", "/api/v1/jobs/recordInfo", params={"taskId": provider_task_id}
        )
        try:
            answer = await self._call(call, get)
        except (TimeoutError, httpx.HTTPError) as error:
            raise ProviderUnavailableError(f"{call}: {type(error).__name__}") from error
        return _read_record(call, answer, provider_task_id)

    async def _call(self, call: str, request: httpx.Request) -> _Answer:
        async with outside_call(call, timeout_seconds=self.call_seconds):
            response = await self._client.send(request, stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > BODY_BYTES_MAX:
                        body.clear()
                        break
            finally:
                await response.aclose()
        return _read_answer(response, bytes(body))


def _refuse_request(request: GenerationRequest) -> Refused | None:
    if not request.references:
        return Refused("NO_REFERENCES", "no selfie: it would be a stranger's photo", Again.NEVER)
    if len(request.prompt) > PROMPT_MAX:
        return Refused("PROMPT_TOO_LONG", f"more than {PROMPT_MAX} characters", Again.NEVER)
    return None


def _read_answer(response: httpx.Response, body: bytes) -> _Answer:
    envelope = _object_in(body)
    code = envelope.get("code")
    return _Answer(
        status=response.status_code,
        code=code if type(code) is int else None,
        text=_text(envelope.get("msg") or envelope.get("message")),
        data=_object_in(envelope.get("data")),
        retry_after_seconds=_retry_after_seconds(response.headers.get("retry-after")),
    )


def _read_creation(answer: _Answer) -> Created | Refused | NoAnswer:
    code = answer.meaning
    said = f"{code}: {answer.text}" if answer.text else str(code)
    task_id = _short(answer.data.get("taskId"), TASK_ID_MAX)
    if code == _OK and task_id is not None:
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
    return Refused(f"KIE_{code}", said, again, pause)


def _read_record(call: str, answer: _Answer, provider_task_id: str) -> dict[str, Any] | None:
    record, code = answer.data, answer.meaning
    # A failed task's record may come under the failure's own code.
    if record and (code == _OK or (answer.status == _OK and record.get("state") == "fail")):
        if record.get("taskId", provider_task_id) != provider_task_id:
            raise ProviderUnavailableError(f"{call}: an answer about another task")
        return record
    if answer.code is not None and (code == _OK or code in _UNKNOWN_YET):
        return None
    raise ProviderUnavailableError(f"{call}: {code} {answer.text}".rstrip())


def _read_state(record: dict[str, Any], provider_task_id: str) -> Working | Ready | FailedThere:
    state = _short(record.get("state"), TEXT_MAX)
    credits_used = _number(record.get("creditsConsumed", record.get("consumeCredits")))
    if state == "success":
        urls = _object_in(record.get("resultJson")).get("resultUrls")
        first: object = cast("list[object]", urls)[0] if isinstance(urls, list) and urls else None
        url = _short(first, URL_MAX)
        if url is not None:
            return Ready(url, credits_used)
        # The flow gives up on a task that works too long: an empty success can't last for ever.
        log.warning("kie.ai says success and shows no picture", provider_task_id=provider_task_id)
        return Working()
    if state == "fail":
        code = _text(record.get("failCode")) or "UNSAID"
        again = Again.NEVER if code in _POLICY else Again.LATER
        return FailedThere(f"KIE_{code}", _text(record.get("failMsg")), again, credits_used)
    if state not in _UNDER_WAY:
        log.warning("kie.ai names an unknown state", state=state, provider_task_id=provider_task_id)
    return Working()


def _token_in(param: object) -> UUID | None:
    """Our token, from the original request as kie.ai keeps it: JSON in JSON, perhaps twice."""
    original = _object_in(param)
    for holder in (original, _object_in(original.get("input"))):
        found = _CALLBACK_PATH.search(str(holder.get("callBackUrl") or ""))
        if found is not None:
            try:
                return UUID(found.group(1))
            except ValueError:
                continue
    return None


def _object_in(value: object) -> dict[str, Any]:
    """A JSON object, given as itself or as text; empty for anything else."""
    if isinstance(value, bytes | str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _short(value: object, longest: int) -> str | None:
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
    seconds = _number(header)
    if seconds is None:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(seconds, RETRY_AFTER_MAX_SECONDS) if seconds > 0 else None
