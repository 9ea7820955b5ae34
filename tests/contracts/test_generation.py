"""What every `GenerationProvider` promises, asked of each: kie.ai against its stand-in, and the studio."""

import io
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider, KieTerms
from darkroom.adapters.generation.studio_provider import StudioProvider
from darkroom.adapters.storage import open_storage
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.generation import (
    Adoption,
    Created,
    CreditMeter,
    FailedThere,
    GenerationProvider,
    GenerationRequest,
    NoAnswer,
    ProviderUnavailableError,
    Ready,
    Reference,
    Refused,
    Working,
)
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Fault, Kind
from tests.studio.portraits import astronaut, encoded, opened

SELFIE_KEY = "references/1/selfie.jpg"


@dataclass
class Room:
    """A provider, and the stand-in it talks to, if it talks to anybody."""

    provider: GenerationProvider
    twin: KieTwin | None

    def request(self) -> GenerationRequest:
        """A wish that it can fulfil."""
        return GenerationRequest(
            task_id=1,
            token=uuid4(),
            prompt="a portrait by the window",
            prompt_index=0,
            place=0,
            take=0,
            seed=7,
            style_id="signature",
            references=(Reference(SELFIE_KEY, "0" * 64, "image/jpeg"),),
        )

    async def ready(self, request: GenerationRequest) -> tuple[str, Ready]:
        """A wish created and asked about until it is there."""
        created = await self.provider.create(request)
        assert isinstance(created, Created)
        for _ in range(5):
            answer = await self.provider.ask(request, created.provider_task_id)
            if isinstance(answer, Ready):
                return created.provider_task_id, answer
            assert isinstance(answer, Working)
        raise AssertionError("never ready")


def _kie(twin: KieTwin) -> KieProvider:
    return KieProvider(
        base_url=twin.base_url,
        api_key="twin-key",
        model="nano-banana-pro",
        callback_base_url="http://127.0.0.1:9",
        reference_link=lambda key: f"https://photos.example/{key}",
        downloader=Downloader(allow_private=True, hosts_allowed=None, timeout_seconds=5),
        terms=KieTerms(),
    )


@pytest.fixture(params=["kie", "studio"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Room]:
    async with AsyncExitStack() as stack:
        if request.param == "kie":
            twin = await stack.enter_async_context(kie_twin())
            twin.habits.asks_to_finish = 2
            provider: GenerationProvider = _kie(twin)
        else:
            twin = None
            store = open_storage(None, tmp_path / "objects")
            await store.put_once(SELFIE_KEY, encoded(opened(astronaut())), "image/jpeg")
            provider = StudioProvider(store, processes=1)
        stack.push_async_callback(provider.close)
        yield Room(provider, twin)


async def test_a_wish_is_created_asked_about_and_fetched(room: Room) -> None:
    """Fetching and asking are harmless to repeat: the same picture, and nothing more is billed."""
    request = room.request()
    task_id, ready = await room.ready(request)
    data = await room.provider.fetch(request, task_id, ready.result_url)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
    assert await room.provider.fetch(request, task_id, ready.result_url) == data
    assert isinstance(await room.provider.ask(request, task_id), Ready)
    if room.twin is not None:
        assert (room.twin.tasks_created, room.twin.wasted) == (1, [])


async def test_creating_twice_is_what_it_says_it_is(room: Room) -> None:
    """The rule that the grace after a lost answer rests on."""
    request = room.request()
    answers = [await room.provider.create(request) for _ in range(2)]
    assert all(isinstance(answer, Created) for answer in answers)
    if room.provider.create_is_idempotent:
        assert answers[0] == answers[1]
        assert room.twin is None
    else:
        assert answers[0] != answers[1]
        assert room.twin is not None
        assert room.twin.tasks_created == 2


async def test_another_attempt_gives_the_same_bytes_only_where_creating_is_idempotent(
    room: Room,
) -> None:
    pictures: set[bytes] = set()
    request = room.request()
    for _ in range(2):
        again = replace(request, token=uuid4())
        task_id, ready = await room.ready(again)
        pictures.add(await room.provider.fetch(again, task_id, ready.result_url))
    assert len(pictures) == (1 if room.provider.create_is_idempotent else 2)


async def test_a_task_it_does_not_know_has_never_failed(room: Room) -> None:
    """It is not known yet, or made from the request itself; failed it has not."""
    answer = await room.provider.ask(room.request(), "nobody-has-this")
    assert not isinstance(answer, FailedThere)
    if room.twin is not None:
        assert isinstance(answer, Working)


async def test_a_lost_answer_is_no_answer_and_never_a_refusal(room: Room) -> None:
    if room.twin is None:
        # It calls nobody when it creates: there is no answer to lose.
        assert isinstance(await room.provider.create(room.request()), Created)
        return
    for fault in (Fault(Kind.DROP), Fault(Kind.GARBAGE), Fault(Kind.COMMIT_THEN_ANSWER, 500)):
        room.twin.script("create", fault)
        assert isinstance(await room.provider.create(room.request()), NoAnswer)
    assert room.twin.tasks_created == 3


async def test_what_it_refuses_is_made_nowhere(room: Room) -> None:
    if room.twin is None:
        # It accepts every wish, and says what it can't make when it is asked.
        assert isinstance(await room.provider.create(room.request()), Created)
        return
    room.twin.script("create", *(Fault(Kind.ANSWER, code) for code in (402, 422, 429)))
    for _ in range(3):
        assert isinstance(await room.provider.create(room.request()), Refused)
    assert room.twin.tasks_created == 0


async def test_an_unanswered_question_says_nothing_about_the_task(room: Room) -> None:
    request = room.request()
    if room.twin is None:
        missing = replace(request, references=(Reference("gone.jpg", "0" * 64, "image/jpeg"),))
        with pytest.raises(ProviderUnavailableError):
            await room.provider.ask(missing, "studio-1")
        return
    task_id, _ = await room.ready(request)
    room.twin.script("ask", Fault(Kind.ANSWER, 503), Fault(Kind.DROP))
    for _ in range(2):
        with pytest.raises(ProviderUnavailableError):
            await room.provider.ask(request, task_id)
    assert isinstance(await room.provider.ask(request, task_id), Ready)


async def test_nothing_is_called_inside_a_transaction(room: Room) -> None:
    request = room.request()
    provider = room.provider
    with transaction_marked():
        calls = (
            provider.create(request),
            provider.ask(request, "a"),
            provider.fetch(request, "a", "https://results.example/a.png"),
            provider.whose("a"),
        )
        for call in calls:
            with pytest.raises(TransactionOpenError):
                await call
    if room.twin is not None:
        assert not room.twin.requests


async def test_whose_a_task_is_is_read_at_the_source(room: Room) -> None:
    request = room.request()
    task_id, _ = await room.ready(request)
    whose = await room.provider.whose(task_id)
    # Who calls nobody back has nobody to ask about it.
    assert whose == (None if room.twin is None else Adoption(task_id, request.token))
    assert await room.provider.whose("nobody-has-this") is None


async def test_its_name_and_its_limits_are_fit_for_the_ledger(room: Room) -> None:
    provider = room.provider
    assert provider.name.partition(":")[0] == provider.account
    assert provider.model
    assert ":" not in provider.account
    assert provider.call_seconds > 0
    assert provider.fetch_seconds > 0
    assert (provider.price_credits is not None) == isinstance(provider, CreditMeter)


async def test_closing_twice_is_harmless(room: Room) -> None:
    await room.ready(room.request())
    await room.provider.close()
    await room.provider.close()
