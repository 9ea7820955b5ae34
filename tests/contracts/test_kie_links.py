"""A result's link dies: a fresh one is asked for before another photo is bought. And what kie.ai signs."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider, KieTerms
from darkroom.adapters.generation.kie_answers import dies_at
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.generation import (
    BadResultError,
    Created,
    LinkDeadError,
    ProviderUnavailableError,
    Ready,
)
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import Fault, Kind
from tests.contracts.conftest import NOBODY, Answering, MakeProvider, Rerouted, request_with

REQUEST = request_with()


@pytest.fixture
async def ready(kie: KieProvider, twin: KieTwin) -> tuple[str, Ready]:
    """A finished task and its result, whose link lives for a day."""
    created = await kie.create(REQUEST)
    assert isinstance(created, Created)
    twin.habits.result_seconds = 86_400
    await twin.finish(created.provider_task_id)
    answer = await kie.ask(REQUEST, created.provider_task_id)
    assert isinstance(answer, Ready)
    return created.provider_task_id, answer


async def test_a_dead_link_is_replaced_by_a_fresh_one_and_nothing_is_bought(
    kie: KieProvider, twin: KieTwin, ready: tuple[str, Ready]
) -> None:
    task_id, answer = ready
    await kie.fetch(REQUEST, task_id, answer.result_url)
    assert twin.requests["link"] == 0, "a live link needs no other"
    await twin.advance(86_401)
    data = await kie.fetch(REQUEST, task_id, answer.result_url)
    assert data == twin.tasks[task_id].picture()
    assert (twin.requests["link"], twin.tasks_created) == (1, 1)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_fresh_link_is_tried_once_then_the_record_then_it_is_dead(
    kie: KieProvider, twin: KieTwin, ready: tuple[str, Ready], status: int
) -> None:
    task_id, answer = ready
    asked = twin.requests["ask"]
    twin.script("result", *(Fault(Kind.ANSWER, status) for _ in range(2)))
    with pytest.raises(LinkDeadError):
        await kie.fetch(REQUEST, task_id, answer.result_url)
    assert (twin.requests["link"], twin.requests["result"]) == (1, 2)
    assert twin.requests["ask"] == asked + 1


async def test_a_record_that_names_another_address_is_followed(
    make_provider: MakeProvider, twin: KieTwin, ready: tuple[str, Ready]
) -> None:
    """The fresh link is refused, and the record has moved on."""
    task_id, answer = ready
    kie = make_provider()
    twin.script("result", Fault(Kind.ANSWER, 404))
    stale = f"{answer.result_url}?old"
    assert await kie.fetch(REQUEST, task_id, stale) == twin.tasks[task_id].picture()


@pytest.mark.parametrize(
    "fault", [Fault(Kind.ANSWER, 500), Fault(Kind.ANSWER, 429), Fault(Kind.DROP)]
)
async def test_while_nobody_says_whether_there_is_a_fresh_link_the_result_is_not_given_up(
    kie: KieProvider, twin: KieTwin, ready: tuple[str, Ready], fault: Fault
) -> None:
    """Another photo costs money; asking again costs nothing."""
    task_id, answer = ready
    await twin.advance(86_401)
    twin.script("link", fault)
    with pytest.raises(ProviderUnavailableError):
        await kie.fetch(REQUEST, task_id, answer.result_url)
    assert await kie.fetch(REQUEST, task_id, answer.result_url) == twin.tasks[task_id].picture()


async def test_a_fresh_link_is_as_suspect_as_any_other(
    make_provider: MakeProvider, answering: Answering, strict: Downloader, internet: Rerouted
) -> None:
    """It comes from outside, too: it must not lead inside."""
    inside = await answering({"code": 200, "msg": "", "data": "https://127.0.0.1/x"})
    kie = make_provider(base_url=inside)

    async def dead(url: str) -> bytes:
        if url.startswith("https://results"):
            raise LinkDeadError
        return await Downloader.fetch(strict, url)

    kie._downloader.fetch = dead  # type: ignore[method-assign] # noqa: SLF001
    with pytest.raises(BadResultError, match="refused address"):
        await kie.fetch(REQUEST, "a", "https://results.example/a.png")
    assert internet.requests == []


async def test_the_stand_in_renews_only_its_own_results_and_for_twenty_minutes(
    twin: KieTwin, ready: tuple[str, Ready]
) -> None:
    _, answer = ready
    headers = {"Authorization": "Bearer twin-key"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        place = f"{twin.base_url}/api/v1/common/download-url"
        foreign = await http.post(place, json={"url": "https://elsewhere.example/a.png"})
        assert (foreign.status_code, foreign.json()["code"]) == (422, 422)
        fresh = (await http.post(place, json={"url": answer.result_url})).json()["data"]
        await twin.advance(86_401)
        assert (await http.get(answer.result_url)).status_code == 403
        fresh = (await http.post(place, json={"url": answer.result_url})).json()["data"]
        assert (await http.get(fresh)).status_code == 200
        await twin.advance(1201)
        assert (await http.get(fresh)).status_code == 403
        assert (await http.post(place, json={}, headers={"Authorization": ""})).status_code == 401


def test_when_a_link_dies_is_counted_from_the_tasks_end_where_that_makes_sense() -> None:
    now = datetime.now(UTC)
    hour_ago = (now - timedelta(hours=1)).timestamp() * 1000
    assert abs(dies_at({"completeTime": hour_ago}, 24) - now - timedelta(hours=23)) < timedelta(
        seconds=5
    )
    odd: tuple[Any, ...] = (None, 0, -1, "x", True, 1e400, hour_ago * 1000, hour_ago + 9e7, [1])
    for value in odd:
        assert abs(dies_at({"completeTime": value}, 24) - now - timedelta(hours=24)) < timedelta(
            seconds=5
        )


async def test_the_balance_and_a_cost_are_read(
    kie: KieProvider, twin: KieTwin, ready: tuple[str, Ready]
) -> None:
    task_id, _ = ready
    assert await kie.read_credits() == 100_000 - 18
    assert await kie.read_cost(task_id) == 18
    assert await kie.read_cost("nobody's") is None
    created = await kie.create(request_with())
    assert isinstance(created, Created)
    assert await kie.read_cost(created.provider_task_id) is None
    await twin.fail(created.provider_task_id, "500")
    assert await kie.read_cost(created.provider_task_id) == 0


@pytest.mark.parametrize("body", [{"code": 200, "data": None}, {"code": 401}, {"data": 5}, [1]])
async def test_a_balance_that_is_none_is_not_made_up(
    make_provider: MakeProvider, answering: Answering, body: object
) -> None:
    with pytest.raises(ProviderUnavailableError):
        await make_provider(base_url=await answering(body)).read_credits()


async def test_no_question_about_money_is_asked_inside_a_transaction(kie: KieProvider) -> None:
    with transaction_marked():
        for question in (kie.read_credits(), kie.read_cost("a")):
            with pytest.raises(TransactionOpenError):
                await question


# External-apis 1.6's own vector.
KEY, TASK, STAMP = "test-key", "task_x", "1700000000"
SIGNED = "Ij3T5AYcKXn8dMFmeNFBN1/K5v8Zp7JqbtPNRAnsGxg="


def _signing(hmac_key: str | None, *, late_seconds: float = 0) -> KieProvider:
    when = datetime.fromtimestamp(int(STAMP) + late_seconds, UTC)
    return KieProvider(
        base_url=NOBODY,
        api_key="k",
        model="nano-banana-pro",
        callback_base_url=NOBODY,
        reference_link=str,
        downloader=Downloader(allow_private=True, hosts_allowed=None),
        terms=KieTerms(hmac_key=hmac_key),
        clock=lambda: when,
    )


def _headers(stamp: str = STAMP, signature: str = SIGNED) -> dict[str, str]:
    return {"x-webhook-timestamp": stamp, "x-webhook-signature": signature}


@pytest.mark.parametrize("late_seconds", [-300, 0, 299.9, 300])
def test_a_good_signature_is_taken_for_five_minutes_either_way(late_seconds: float) -> None:
    assert _signing(KEY, late_seconds=late_seconds).callback_is_genuine(_headers(), TASK)


@pytest.mark.parametrize("late_seconds", [-301, 301, 86_400])
def test_an_old_or_future_signature_is_not(late_seconds: float) -> None:
    assert not _signing(KEY, late_seconds=late_seconds).callback_is_genuine(_headers(), TASK)


@pytest.mark.parametrize(
    ("headers", "task"),
    [
        ({}, TASK),
        (_headers(), "task_y"),
        (_headers(stamp="1700000001"), TASK),
        (_headers(stamp=""), TASK),
        (_headers(stamp="-1"), TASK),
        (_headers(stamp="\u0661700000000"), TASK),
        (_headers(stamp="1" * 5000), TASK),
        (_headers(signature=""), TASK),
        (_headers(signature="ключ"), TASK),
        (_headers(signature=SIGNED.lower()), TASK),
        (_headers(signature=SIGNED[:-1]), TASK),
    ],
)
def test_any_other_signature_is_refused(headers: dict[str, str], task: str) -> None:
    assert not _signing(KEY).callback_is_genuine(headers, task)


def test_another_key_signs_for_nobody_and_without_a_key_nothing_is_asked() -> None:
    assert not _signing("other").callback_is_genuine(_headers(), TASK)
    assert _signing(None).callback_is_genuine({}, TASK)


def test_the_vector_is_what_the_description_computes() -> None:
    digest = hmac.new(KEY.encode(), f"{TASK}.{STAMP}".encode(), hashlib.sha256).digest()
    assert base64.b64encode(digest).decode() == SIGNED
