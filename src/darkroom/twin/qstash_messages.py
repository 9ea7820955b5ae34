"""The messages of QStash's stand-in: what was asked for, how far one is, how it is shown."""

import math
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

DAY_SECONDS: Final = 86_400
RETRIES_DEFAULT: Final = 3
HERE: Final = frozenset({"127.0.0.1", "localhost"})
CALLER: Final = "127.0.0.1"
NOT_RETRYABLE: Final = 489

_PARTS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|m|s)")
_SECONDS: Final = {"d": DAY_SECONDS, "h": 3600, "m": 60, "s": 1}
_RESETS: Final = (
    "retry-after",
    "x-ratelimit-reset",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


class MistakeError(Exception):
    """What the caller asked for is refused, with a status and a sentence."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def read_duration(text: str) -> float:
    """`10s`, `5m`, `1d10h30m` in seconds. Raises MistakeError."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise MistakeError(f"invalid duration: {text}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def backoff_seconds(retry: int) -> float:
    """Before the n-th retry: 12 s, 2 min, 30 min, 6 h, a day."""
    return min(DAY_SECONDS, math.exp(2.5 * retry)) if retry < DAY_SECONDS else DAY_SECONDS


def wished_pause_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """What the receiver asked for instead: seconds, a date, or `6m5s`; a day at most."""
    for name in _RESETS:
        text = headers.get(name)
        if text is None:
            continue
        try:
            wished = float(text)
        except ValueError:
            wished = _seconds_of(text, now)
        if wished is not None and math.isfinite(wished):
            return min(max(wished, 0), DAY_SECONDS)
    return None


def _seconds_of(text: str, now: float) -> float | None:
    try:
        return read_duration(text)
    except MistakeError:
        pass
    try:
        moment: datetime = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment.timestamp() - now


def is_true(text: str | None) -> bool:
    """A boolean header: the SDK writes `True`."""
    return text is not None and text.lower() == "true"


@dataclass(frozen=True, slots=True)
class Order:
    """How something is to be delivered, as its headers say."""

    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retries: int = RETRIES_DEFAULT
    delay_seconds: float = 0
    not_before: float | None = None
    timeout_seconds: float | None = None
    deduplication_id: str | None = None
    callback: str | None = None
    failure_callback: str | None = None
    callback_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    failure_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    flow_key: str | None = None
    parallelism: int | None = None
    queue: str | None = None
    label: str | None = None
    schedule_id: str | None = None


def read_order(url: str, body: bytes, headers: Mapping[str, str], *, queue: str | None) -> Order:
    """Read the headers of a publish, whatever their case.

    Raises:
        MistakeError: with what QStash would say, or with what the stand-in cannot do.
    """
    given = {name.lower(): text for name, text in headers.items()}
    if not is_here(url):
        raise MistakeError("the stand-in delivers to loopback addresses only")
    if "upstash-retry-delay" in given:
        raise MistakeError("the stand-in has no retry delay expressions")
    method = given.get("upstash-method", "POST").upper()
    if method not in _METHODS:
        raise MistakeError(f"invalid method: {method}")
    forwarded = _under(given, "upstash-forward-")
    if "content-type" in given:
        forwarded.setdefault("content-type", given["content-type"])
    failure = _under(given, "upstash-failure-callback-")
    deduplication_id = given.get("upstash-deduplication-id")
    if deduplication_id is None and is_true(given.get("upstash-content-based-deduplication")):
        content = f"{url} {given.get('content-type')} ".encode() + body
        deduplication_id = f"content-{sha256(content).hexdigest()}"
    timeout = given.get("upstash-timeout")
    not_before = given.get("upstash-not-before")
    return Order(
        url=url,
        body=body,
        method=method,
        headers=forwarded,
        retries=_count(given.get("upstash-retries"), RETRIES_DEFAULT),
        delay_seconds=read_duration(given["upstash-delay"]) if "upstash-delay" in given else 0,
        not_before=None if not_before is None else float(_count(not_before, 0)),
        timeout_seconds=None if timeout is None else read_duration(timeout),
        deduplication_id=deduplication_id,
        callback=_address(given.get("upstash-callback")),
        failure_callback=_address(given.get("upstash-failure-callback")),
        callback_headers=_under(given, "upstash-callback-"),
        failure_headers=failure,
        flow_key=given.get("upstash-flow-control-key"),
        parallelism=_parallelism(given.get("upstash-flow-control-value", "")),
        queue=queue or given.get("upstash-queue-name"),
        label=given.get("upstash-label"),
    )


def is_here(url: str) -> bool:
    """Whether the address is one of this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and parts.hostname in HERE


def _address(url: str | None) -> str | None:
    if url is not None and not is_here(url):
        raise MistakeError("the stand-in calls back to loopback addresses only")
    return url


def _under(given: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix): text for name, text in given.items() if name.startswith(prefix)
    }


def _count(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise MistakeError(f"invalid number: {text}")
    return int(text)


def _parallelism(text: str) -> int | None:
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name == "parallelism":
            return _count(value, 1)
    return None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a delivery was answered; status 0 is no answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """Any 2xx, and nothing else."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP

    @property
    def forbids_retries(self) -> bool:
        """A status that no registry knows, with a header that says the same."""
        return self.status == NOT_RETRYABLE and is_true(
            self.headers.get("upstash-nonretryable-error")
        )


@dataclass(slots=True)
class TwinMessage:
    """One message: what was asked for, and how far it is.

    Attributes:
        due_at: when its next delivery is, on the twin's clock.
        state: as QStash's log names it: CREATED, RETRY, DELIVERED, FAILED, CANCELLED.
        retried: deliveries before the next one.
    """

    order: Order
    created_at: float
    due_at: float
    id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")
    state: str = "CREATED"
    retried: int = 0
    is_under_way: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it will still be delivered."""
        return self.state in ("CREATED", "RETRY")

    def record(self) -> dict[str, Any]:
        """As `/v2/messages` shows it."""
        order = self.order
        shown = {
            "messageId": self.id,
            "url": order.url,
            "method": order.method,
            "header": {name: [text] for name, text in order.headers.items()},
            "maxRetries": order.retries,
            "notBefore": round(self.due_at * 1000),
            "createdAt": round(self.created_at * 1000),
            "callback": order.callback,
            "failureCallback": order.failure_callback,
            "scheduleId": order.schedule_id,
            "queueName": order.queue,
            "label": order.label,
            "callerIP": CALLER,
            **_body_of("body", order.body),
        }
        if order.flow_key is not None:
            shown |= {"flowControlKey": order.flow_key, "parallelism": order.parallelism}
        return {name: value for name, value in shown.items() if value is not None}

    def told(self, heard: Heard, dlq_id: str | None) -> dict[str, Any]:
        """The body of a callback: the answer and the message it was about, both in base64."""
        order = self.order
        told: dict[str, Any] = {
            "status": heard.status,
            "header": {name: [text] for name, text in heard.headers.items()},
            "body": b64encode(heard.body).decode(),
            "retried": self.retried,
            "maxRetries": order.retries,
            "sourceMessageId": self.id,
            "topicName": "",
            "endpointName": "",
            "url": order.url,
            "method": order.method,
            "sourceHeader": {name: [text] for name, text in order.headers.items()},
            "sourceBody": b64encode(order.body).decode(),
            "notBefore": str(round(self.due_at * 1000)),
            "createdAt": str(round(self.created_at * 1000)),
            "scheduleId": order.schedule_id or "",
            "callerIP": CALLER,
        }
        return told if dlq_id is None else told | {"dlqId": dlq_id}


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was given up."""

    id: str
    message: TwinMessage
    heard: Heard

    def record(self) -> dict[str, Any]:
        """As `/v2/dlq` shows it."""
        return {
            **self.message.record(),
            "dlqId": self.id,
            "responseStatus": self.heard.status,
            "responseHeader": {name: [text] for name, text in self.heard.headers.items()},
            **_body_of("responseBody", self.heard.body),
        }


def _body_of(name: str, body: bytes) -> dict[str, str]:
    try:
        return {name: body.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": b64encode(body).decode()}
