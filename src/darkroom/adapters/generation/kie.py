"""kie.ai: the provider with neither an idempotency key nor a list of tasks.

What it answers comes as an HTTP status or inside a body with status 200; both are read. Only an
answer that excludes a task counts as a refusal. Facts and sources: external-apis.md, section 1.
"""

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientError, ClientResponse
from yarl import URL

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie_answers import (
    OK,
    URL_MAX,
    Answer,
    credits_in,
    number_in,
    read_answer,
    read_creation,
    read_record,
    read_state,
    result_url_in,
    short_text,
    token_in,
)
from darkroom.adapters.http_calls import NOTHING_SENT, HttpCaller, read_at_most
from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.log import get_logger
from darkroom.kit.outside import outside_call
from darkroom.ports.generation import (
    Adoption,
    Again,
    Created,
    FailedThere,
    GenerationRequest,
    LinkDeadError,
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
SIGNATURE_SECONDS: Final = 300
"""No page of kie.ai names a window for its signatures: five minutes either way (external-apis 1.6)."""
JSON_TYPE: Final = {"Content-Type": "application/json"}
NOT_THEIRS: Final = frozenset({400, 404, 422})
"""Answers of download-url that mean: no address of ours to renew."""


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
class KieTerms:
    """What is known and wanted of an account, whichever model is asked.

    Attributes:
        price_credits: what one photo is expected to cost.
        day_credits_max: what may be spent in one UTC day; None: no limit.
        credits_low: with fewer left a person is told; 0: never.
        result_hours: how long a result's link lives after the task's end (1.5: plan for 24 h).
        hmac_key: of signed callbacks; None: they are not looked at.
    """

    price_credits: float = 18
    day_credits_max: float | None = None
    credits_low: float = 0
    result_hours: float = 24
    hmac_key: str | None = None


class KieProvider:
    """Photos by one of kie.ai's models.

    Args:
        base_url: kie.ai's address.
        api_key: the bearer key.
        model: one of kie.ai's models that take selfies.
        name: `kie`, or `kie:model` for a further model of the same account.
        terms: of the account.
        callback_base_url: how kie.ai reaches us.
        reference_link: makes an address under which kie.ai can read one of our objects. It must
            stay valid for as long as a task may queue: hours.
        downloader: fetches results; closed together with the provider.
        call_seconds: the limit of one create or ask.
        window_requests: creations that kie.ai takes in one window.
        window_seconds: the window's length.
        clock: what signatures are measured against.

    Raises:
        ValueError: an unknown model, or a key that cannot stand in a header.
    """

    account: str = "kie"
    create_is_idempotent: bool = False
    needs_good_selfie: bool = False
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
        name: str = "kie",
        terms: KieTerms | None = None,
        call_seconds: float = CALL_SECONDS,
        window_requests: int = 20,
        window_seconds: float = 10.25,
        clock: Clock = system_clock,
    ) -> None:
        if model not in _MODELS:
            raise ValueError(f"kie.ai model {model!r} is not one of {', '.join(_MODELS)}")
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("kie.ai's key is empty or has characters no key has")
        terms = terms or KieTerms()
        self.name = name
        self.model = model
        self.price_credits: float | None = terms.price_credits
        self.day_credits_max = terms.day_credits_max
        self.credits_low = terms.credits_low
        self.call_seconds = call_seconds
        self.window_requests: int | None = window_requests
        self.window_seconds = window_seconds
        # The link, a fresh one for it, the one in the record: three downloads and two questions.
        self.fetch_seconds = 3 * downloader.timeout_seconds + 2 * call_seconds
        self._terms = terms
        self._clock = clock
        self._callback_base_url = callback_base_url.rstrip("/")
        self._reference_link = reference_link
        self._downloader = downloader
        self._base_url = URL(base_url.rstrip("/"))
        headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        connect_seconds = call_seconds * CONNECT_SHARE
        # A kept connection that kie.ai has just closed loses a creation's answer: each such loss is 90 s of
        # waiting and perhaps a second paid task. A handshake is cheaper.
        self._orders = HttpCaller(connect_seconds=connect_seconds, headers=headers, unpack=True)
        self._questions = HttpCaller(
            connect_seconds=connect_seconds, headers=headers, unpack=True, keep_connections=True
        )

    async def create(self, request: GenerationRequest) -> Created | Refused | NoAnswer:
        """Ask for one photo. Never retried: kie.ai would make and bill a second one."""
        refusal = _refuse_request(request)
        if refusal is not None:
            return refusal
        try:
            answer = await self._call(
                "kie.create", "/api/v1/jobs/createTask", body=self._body(request)
            )
        except NOTHING_SENT as error:
            return Refused("UNREACHABLE", type(error).__name__, Again.LATER)
        except (TimeoutError, ClientError) as error:
            return NoAnswer(type(error).__name__)
        return read_creation(answer)

    async def ask(
        self, request: GenerationRequest, provider_task_id: str
    ) -> Working | Ready | FailedThere:
        """How the task is. A task that kie.ai does not know is one it does not know yet.

        Raises:
            ProviderUnavailableError: no answer, or one that says nothing about the task.
        """
        del request
        record = await self._record("kie.ask", provider_task_id)
        if record is None:
            return Working()
        return read_state(record, provider_task_id, result_hours=self._terms.result_hours)

    async def fetch(
        self, request: GenerationRequest, provider_task_id: str, result_url: str
    ) -> bytes:
        """The picture, by a fresh link if this one is dead: asking for one is cheaper than another photo.

        Raises:
            ProviderUnavailableError: not now; also when nobody says whether there is a fresh link.
            LinkDeadError: dead, as is the fresh one, and the record shows no other.
            BadResultError: what came is not acceptable.
        """
        del request
        try:
            return await self._downloader.fetch(result_url)
        except LinkDeadError:
            log.warning("a result's link is dead, asking for another", kie_task=provider_task_id)
        fresh = await self._fresh_link(result_url)
        if fresh is not None:
            try:
                return await self._downloader.fetch(fresh)
            except LinkDeadError:
                log.warning("the fresh link is dead, too", kie_task=provider_task_id)
        record = await self._record("kie.reask", provider_task_id)
        other = None if record is None else result_url_in(record)
        if other is None or other == result_url:
            raise LinkDeadError("the link is dead, and there is no other")
        return await self._downloader.fetch(other)

    async def read_credits(self) -> float:
        """The account's balance. Raises ProviderUnavailableError."""
        answer = await self._asked("kie.credits", "/api/v1/chat/credit")
        left = number_in(answer.value)
        if answer.meaning != OK or left is None:
            raise ProviderUnavailableError(f"kie.credits: {answer.meaning} {answer.text}".rstrip())
        return left

    async def read_cost(self, provider_task_id: str) -> float | None:
        """What one task took; None: it has not ended, or its record does not say.

        Raises:
            ProviderUnavailableError: no answer, or one that says nothing about the task.
        """
        record = await self._record("kie.cost", provider_task_id)
        if record is None or record.get("state") not in ("success", "fail"):
            return None
        # A task that failed there is not billed, whether or not its record says so.
        return credits_in(record) if record["state"] == "success" else credits_in(record) or 0.0

    def callback_is_genuine(self, headers: Mapping[str, str], provider_task_id: str) -> bool:
        """Whether kie.ai signed a callback about this task within five minutes; True without a key.

        The signature does not cover the body, so a genuine callback is a doorbell like any other.
        """
        if self._terms.hmac_key is None:
            return True
        stamp = headers.get("x-webhook-timestamp", "")
        given = headers.get("x-webhook-signature", "")
        if not stamp.isascii() or not stamp.isdigit() or len(stamp) > len("1700000000"):
            return False
        digest = hmac.digest(
            self._terms.hmac_key.encode(), f"{provider_task_id}.{stamp}".encode(), "sha256"
        )
        fresh = abs(self._clock().timestamp() - int(stamp)) <= SIGNATURE_SECONDS
        return hmac.compare_digest(base64.b64encode(digest), given.encode()) and fresh

    async def whose(self, provider_task_id: str) -> Adoption | None:
        """Whose task this is, by the callback address kept with it. None: no such task there.

        Raises:
            ProviderUnavailableError: no answer, or one that says nothing about the task.
        """
        record = await self._record("kie.whose", provider_task_id)
        return None if record is None else Adoption(provider_task_id, token_in(record.get("param")))

    async def close(self) -> None:
        """Close the connections and the downloader."""
        await self._orders.close()
        await self._questions.close()
        await self._downloader.close()

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        model = _MODELS[self.model]
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
        return {"model": self.model, "callBackUrl": callback, "input": wish}

    async def _fresh_link(self, result_url: str) -> str | None:
        """A temporary address of the same result, good for 20 minutes; None: there is none."""
        answer = await self._asked(
            "kie.fresh_link", "/api/v1/common/download-url", body={"url": result_url}
        )
        if answer.meaning == OK:
            return short_text(answer.value, URL_MAX)
        if answer.code is not None and answer.meaning in NOT_THEIRS:
            return None
        raise ProviderUnavailableError(f"kie.fresh_link: {answer.meaning} {answer.text}".rstrip())

    async def _asked(
        self, call: str, path: str, body: dict[str, Any] | None = None, **query: str
    ) -> Answer:
        """The answer to a question that may be asked again at any time."""
        try:
            return await self._call(call, path, body, **query)
        except (TimeoutError, ClientError) as error:
            raise ProviderUnavailableError(f"{call}: {type(error).__name__}") from error

    async def _record(self, call: str, provider_task_id: str) -> dict[str, Any] | None:
        """What kie.ai has on a task; None when it does not know it yet."""
        answer = await self._asked(call, "/api/v1/jobs/recordInfo", taskId=provider_task_id)
        return read_record(call, answer, provider_task_id)

    async def _call(
        self, call: str, path: str, body: dict[str, Any] | None = None, **query: str
    ) -> Answer:
        """With a body it is posted, on a connection of its own; without one it is a question."""
        url = self._base_url.joinpath(path.lstrip("/"), encoded=True)
        async with (
            outside_call(call, timeout_seconds=self.call_seconds),
            self._open(url.with_query(query), body) as response,
        ):
            said = await read_at_most(response, BODY_BYTES_MAX)
        return read_answer(response.status, response.headers.get("Retry-After"), said or b"")

    def _open(
        self, url: URL, body: dict[str, Any] | None
    ) -> AbstractAsyncContextManager[ClientResponse]:
        if body is None:
            return self._questions.open("GET", url)
        sent = json.dumps(body).encode()
        return self._orders.open("POST", url, body=sent, headers=JSON_TYPE)


def _refuse_request(request: GenerationRequest) -> Refused | None:
    if not request.references:
        return Refused("NO_REFERENCES", "no selfie: it would be a stranger's photo", Again.NEVER)
    if len(request.prompt) > PROMPT_MAX:
        return Refused("PROMPT_TOO_LONG", f"more than {PROMPT_MAX} characters", Again.NEVER)
    return None
