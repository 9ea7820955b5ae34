"""The program as the flow sees it: everything a step may use, handed in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from darkroom.core.tasks import TaskClaim
from darkroom.db.database import Database
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.photo_links import PhotoLinks
from darkroom.flow.signed_tokens import SignedTokens
from darkroom.flow.store_watch import StoreWatch
from darkroom.limits import Limits
from darkroom.ports.doorbell import Doorbell
from darkroom.ports.generation import GenerationProvider, GenerationRequest, Reference
from darkroom.ports.intake import Intake
from darkroom.ports.mail import Mailer
from darkroom.ports.payments import PaymentProvider
from darkroom.ports.pictures import Developed, PictureFacts, Thumbnail
from darkroom.ports.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Darkroom:
    """The joined parts. Built in `wiring`, or by a test.

    Attributes:
        generation: providers by name; a task names the one it was queued for.
        new_tasks_go_to: the provider's name that new tasks get.
        generation_fallback: providers by name that take over, in this order, what another cannot make.
        payments: ways to pay by name.
        intake: opens customers' files.
        max_generation_attempts: attempts of one photo that may cost the provider's money.
        selfie_days: after so many days a selfie is deleted.
        history_days: after so many days the log of moves and messages is forgotten.
        chat_enabled: whether stored photos also get a row for the chat.
        base_url: how the outside reaches us, for callbacks and returns.
        mailer: carries letters; None: nobody signs in by e-mail.
        store_watch: what is known of whose store it is (`flow/watch_store`).
    """

    database: Database
    store: ObjectStore
    generation: Mapping[str, GenerationProvider]
    new_tasks_go_to: str
    payments: Mapping[str, PaymentProvider]
    doorbell: Doorbell
    leases: LeaseKeeper
    intake: Intake
    read_picture: Callable[[bytes], Awaitable[PictureFacts]]
    make_thumbnail: Callable[[bytes], Awaitable[Thumbnail]]
    develop: Callable[[bytes], Awaitable[Developed]]
    develop_apart: Callable[[bytes], Awaitable[Developed]]
    links: PhotoLinks
    tokens: SignedTokens
    limits: Limits
    max_generation_attempts: int
    selfie_days: int
    chat_enabled: bool
    base_url: str
    generation_fallback: tuple[str, ...] = ()
    mailer: Mailer | None = None
    history_days: int = 180
    store_watch: StoreWatch = field(default_factory=StoreWatch)

    @property
    def needs_good_selfie(self) -> bool:
        """Whether new tasks go to a provider that makes nothing of selfies with severe warnings alone."""
        return self.generation[self.new_tasks_go_to].needs_good_selfie


def request_of(task: TaskClaim, references: tuple[Reference, ...]) -> GenerationRequest:
    """What a provider may know about this task."""
    return GenerationRequest(
        task_id=task.id,
        token=task.token,
        prompt=task.prompt,
        prompt_index=task.prompt_index,
        place=task.place,
        take=task.take,
        seed=task.seed,
        style_id=task.style_id,
        references=references,
    )


def attempts_allowed(darkroom: Darkroom, forgiven: int) -> int:
    """Attempts of one photo that may cost the provider's money; a replay forgives those before it."""
    return darkroom.max_generation_attempts + forgiven


def fallback_of(
    darkroom: Darkroom, provider: str, *, shut: frozenset[str] = frozenset()
) -> str | None:
    """Who takes over from a provider: the next of the list that is not shut; None: nobody is left.

    The list is walked once: a photo never comes back to where it was.
    """
    chain = darkroom.generation_fallback
    after = chain.index(provider) + 1 if provider in chain else 0
    return next(
        (name for name in chain[after:] if name in darkroom.generation and name not in shut), None
    )
