"""What we ask of a generation provider.

Creating a task is the call of the four kinds where "twice" means the provider's money lost: an attempt
row with a random token is committed before it, and an answer that did not come is `NoAnswer`, a state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Reference:
    """One selfie in our storage."""

    object_key: str
    sha256: str
    content_type: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """All a provider may know about one photo.

    `token` is the attempt's secret for the callback address. Everything else is the same at each
    attempt, so a provider that is a pure function of it returns the same bytes.

    `prompt_index` is the photo's number in its set, `place` the prompt's number in its style, and `take` says
    how many photos of this prompt the person had before: each is to look another way.
    """

    task_id: int
    token: UUID
    prompt: str
    prompt_index: int
    place: int
    take: int
    seed: int
    style_id: str
    references: tuple[Reference, ...]


class Again(Enum):
    """What a definite no means for the next try."""

    LATER = "later"
    """Nothing was created; the same request may pass after a pause (429, 455)."""
    PAUSED = "paused"
    """The provider is out of credit or shut to us (402, 401): wait long, burn no attempts."""
    NEVER = "never"
    """This request will never pass (policy, bad input)."""


@dataclass(frozen=True, slots=True)
class Created:
    """The provider has the task, under this id of its own."""

    provider_task_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite no: nothing was created. `only_model`: the account's other models may well work."""

    code: str
    text: str
    again: Again
    retry_after_seconds: float | None = None
    only_model: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Timeout, lost connection, 5xx: a task may exist."""

    text: str


@dataclass(frozen=True, slots=True)
class Working:
    """Not done, or not known there yet. `in_line`: its provider says that it has not begun."""

    in_line: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A picture is there. `result_url` is an address of the provider's: it dies, at `dies_at` if known."""

    result_url: str
    credits: float | None = None
    dies_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FailedThere:
    """The provider gave up on this task. `again` is NEVER when another attempt would fail the same."""

    code: str
    text: str
    again: Again
    credits: float | None = None


class ProviderUnavailableError(Exception):
    """A question was not answered (timeout, 5xx, 429). Says nothing about the task."""


class LinkDeadError(Exception):
    """The result's address is gone for good; asking the provider may give another."""


class BadResultError(Exception):
    """What came is not a picture we can keep: too large, another type, not decodable."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Which attempt a provider's task belongs to, by the token it echoed; None if it echoed none."""

    provider_task_id: str
    token: UUID | None


class GenerationProvider(Protocol):
    """One provider of photos.

    Attributes:
        name: as stored in `kie_tasks.provider`: the account, or `account:model` for a further model of it. The
            provider that carries the account's bare name is always configured beside those.
        account: what the window, the balance, the callbacks and the task ids belong to.
        model: which model it asks, for the ledger and for pauses that are one model's only.
        price_credits: what one photo is expected to cost; None: it takes no credits.
        day_credits_max: what the account may spend in one UTC day; None: no limit.
        create_is_idempotent: creating twice costs nothing, so no grace is kept after a lost answer.
        needs_good_selfie: it makes nothing of selfies that all have a severe warning, and an order of such is
            refused before it is paid.
        call_seconds: the limit of one `create` or `ask`.
        fetch_seconds: the limit of one `fetch`.
        first_ask_seconds: when the first question after a creation can be worth it.
        window_requests: how many creations it takes in `window_seconds`; None: no limit.
    """

    name: str
    account: str
    model: str
    price_credits: float | None
    day_credits_max: float | None
    create_is_idempotent: bool
    needs_good_selfie: bool
    call_seconds: float
    fetch_seconds: float
    first_ask_seconds: float
    window_requests: int | None
    window_seconds: float

    async def create(self, request: GenerationRequest) -> Created | Refused | NoAnswer:
        """Ask for one photo. Never retried inside."""
        ...

    async def ask(
        self, request: GenerationRequest, provider_task_id: str
    ) -> Working | Ready | FailedThere:
        """How the task is. Raises ProviderUnavailableError. Harmless to repeat."""
        ...

    async def fetch(
        self, request: GenerationRequest, provider_task_id: str, result_url: str
    ) -> bytes:
        """The picture's bytes, within the size limit. Harmless to repeat.

        Raises:
            ProviderUnavailableError: not now.
            LinkDeadError: not under this address any more.
            BadResultError: what came is not acceptable.
        """
        ...

    async def whose(self, provider_task_id: str) -> Adoption | None:
        """Read at the source whose task this is (a callback's body is never believed)."""
        ...

    async def close(self) -> None:
        """Give back connections and processes."""
        ...


@runtime_checkable
class CreditMeter(Protocol):
    """A provider that takes credits and says how many are left. Questions only: harmless to repeat.

    Attributes:
        credits_low: with fewer left than this, a person is told; 0: never.
    """

    account: str
    credits_low: float

    async def read_credits(self) -> float:
        """The account's balance. Raises ProviderUnavailableError."""
        ...

    async def read_cost(self, provider_task_id: str) -> float | None:
        """What one task took; None: it has not ended, or nobody says. Raises ProviderUnavailableError."""
        ...


@runtime_checkable
class SignedCallbacks(Protocol):
    """A provider whose callbacks may carry a signature. It never covers the body, which is not believed."""

    def callback_is_genuine(self, headers: Mapping[str, str], provider_task_id: str) -> bool:
        """Whether it was signed for this task and recently; True where no key is configured."""
        ...
