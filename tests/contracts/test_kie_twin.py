"""The stand-in itself: it must be as hard to deal with as the real one, and as honest in its books."""

import asyncio
import base64
import hashlib
import hmac
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.generation.kie import KieProvider
from darkroom.ports.generation import (
    Adoption,
    BadResultError,
    Created,
    FailedThere,
    ProviderUnavailableError,
    Ready,
    Refused,
)
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import CHAOS, FINE, Fault, Habits, Kind
from darkroom.twin.loopback import loopback
from tests.contracts.conftest import MakeProvider, Receiver, request_with


async def created(kie: KieProvider, prompt: str = "a portrait") -> str:
    answer = await kie.create(request_with(prompt=prompt))
    assert isinstance(answer, Created)
    return answer.provider_task_id


async def test_an_end_is_called_back_for_real(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    request = request_with()
    answer = await kie.create(request)
    assert isinstance(answer, Created)
    await twin.finish(answer.provider_task_id)
    assert receiver.tokens == [str(request.token)]
    (body,) = receiver.bodies
    assert body["code"] == 200
    assert body["data"]["taskId"] == answer.provider_task_id
    url = twin.result_url(twin.tasks[answer.provider_task_id])
    assert json.loads(body["data"]["resultJson"]) == {"resultUrls": [url]}
    assert twin.callbacks == [200]


async def test_a_failure_is_called_back_with_its_code(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    await twin.fail(await created(kie), "400", "violates policy")
    (body,) = receiver.bodies
    assert (body["code"], body["data"]["state"]) == (501, "fail")
    assert (body["data"]["failCode"], body["data"]["resultJson"]) == ("400", None)


async def test_callbacks_get_lost_doubled_and_forged(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    task_ids = [await created(kie) for _ in range(3)]
    twin.script("callback", Fault(Kind.LOST), Fault(Kind.TWICE), Fault(Kind.FORGED))
    for task_id in task_ids:
        await twin.finish(task_id)
    named = [body["data"]["taskId"] for body in receiver.bodies]
    assert named[:2] == [task_ids[1]] * 2
    assert named[2] not in twin.tasks
    assert named[3] == task_ids[2]


async def test_a_forged_success_changes_nothing_at_the_source(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    task_id = await created(kie)
    url = twin.tasks[task_id].callback_url
    await twin.forge_callback(url, task_id, "http://evil.example/a.png")
    assert len(receiver.bodies) == 1
    assert not isinstance(await kie.ask(request_with(), task_id), Ready)


async def test_a_callback_may_come_before_the_creations_answer(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    twin.script("create", Fault(Kind.CALLBACK_FIRST))
    request = request_with()
    answer = await kie.create(request)
    assert isinstance(answer, Created)
    assert [body["data"]["taskId"] for body in receiver.bodies] == [answer.provider_task_id]
    adoption = await kie.whose(answer.provider_task_id)
    assert adoption == Adoption(answer.provider_task_id, request.token)


async def test_callbacks_are_signed_over_id_and_time_only(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    twin.habits.hmac_key = "test-key"
    task_id = await created(kie)
    await twin.finish(task_id)
    (headers,) = receiver.headers
    signed = f"{task_id}.{headers['x-webhook-timestamp']}".encode()
    expected = base64.b64encode(hmac.digest(b"test-key", signed, hashlib.sha256)).decode()
    assert headers["x-webhook-signature"] == expected


async def test_nobody_at_the_callback_address_harms_nothing(
    kie: KieProvider, twin: KieTwin
) -> None:
    task_id = await created(kie)
    twin.tasks[task_id].order["callBackUrl"] = "http://127.0.0.1:9/gone"
    await twin.finish(task_id)
    assert twin.callbacks == [None]
    assert isinstance(await kie.ask(request_with(), task_id), Ready)


async def test_time_alone_finishes_tasks_when_told_to(
    kie: KieProvider, twin: KieTwin, receiver: Receiver
) -> None:
    twin.habits.seconds_to_finish = 30
    task_id = await created(kie)
    await twin.advance(29)
    assert receiver.bodies == []
    await twin.advance(1)
    assert len(receiver.bodies) == 1
    assert isinstance(await kie.ask(request_with(), task_id), Ready)


async def test_an_end_is_final(kie: KieProvider, twin: KieTwin, receiver: Receiver) -> None:
    task_id = await created(kie)
    await twin.finish(task_id)
    await twin.fail(task_id, "500")
    await twin.finish(task_id)
    assert len(receiver.bodies) == 1
    assert twin.credits_spent == 18


async def test_a_reference_that_cannot_be_read_fails_the_task(
    make_provider: MakeProvider, twin: KieTwin
) -> None:
    """An expired signature shows itself here, not first in production."""
    twin.habits.reads_references = True

    async def refuse(_request: object) -> Response:
        return Response(status_code=403)

    async with loopback(Starlette(routes=[Route("/{key:path}", refuse)])) as base_url:
        kie = make_provider(reference_link=lambda key: f"{base_url}/{key}")
        task_id = await created(kie)
        await twin.finish(task_id)
        answer = await kie.ask(request_with(), task_id)
    assert isinstance(answer, FailedThere)
    assert (answer.code, answer.credits) == ("KIE_451", 0)


async def test_pictures_differ_from_request_to_request_and_only_so(
    kie: KieProvider, twin: KieTwin
) -> None:
    for prompt in ("one", "two"):
        await created(kie, prompt)
    one, two = twin.tasks.values()
    assert one.picture() == one.picture()
    assert one.picture() != two.picture()


async def test_books_count_tasks_tokens_credits_and_waste(kie: KieProvider, twin: KieTwin) -> None:
    request = request_with()
    for _ in range(2):
        await kie.create(request)
    first, second = twin.tasks
    await twin.finish(first)
    await twin.fail(second, "500")
    assert twin.tasks_by_token == {str(request.token): 2}
    assert (twin.tasks_created, twin.credits_spent) == (2, 18)
    assert [task.id for task in twin.wasted] == [first]
    await kie.fetch(request, first, twin.result_url(twin.tasks[first]))
    assert twin.wasted == []


async def test_the_balance_is_told_to_who_has_the_key(kie: KieProvider, twin: KieTwin) -> None:
    await created(kie)
    async with httpx.AsyncClient(base_url=twin.base_url, trust_env=False) as http:
        url = "/api/v1/chat/credit"
        told = await http.get(url, headers={"Authorization": "Bearer twin-key"})
        refused = await http.get(url)
    assert told.json() == {"code": 200, "msg": "success", "data": 100_000 - 18}
    assert (refused.status_code, refused.json()["code"]) == (401, 401)


def test_a_seed_draws_the_same_faults_each_time() -> None:
    def draws(seed: int) -> list[Fault]:
        twin = KieTwin(Habits(fault_rate=0.5, seed=seed))
        return [twin.draw("create") for _ in range(50)]

    assert draws(1) == draws(1) != draws(2)
    assert FINE in draws(1)
    assert set(draws(1)) <= {FINE, *CHAOS["create"]}


@pytest.mark.parametrize("seed", range(5))
async def test_in_any_seeds_chaos_stubbornness_gets_a_picture(
    kie: KieProvider, twin: KieTwin, seed: int
) -> None:
    """All that CHAOS holds can be survived, and every task of it is in the books."""
    twin.habits.fault_rate, twin.habits.seed = 0.6, seed
    twin.habits.creates_limit = None
    twin.habits.asks_to_finish = 2
    request = request_with()
    answers = [await kie.create(request) for _ in range(40)]
    known = [answer.provider_task_id for answer in answers if isinstance(answer, Created)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(known) < twin.tasks_created <= len(answers) - len(refused)
    data, tries = b"", iter(known)
    one = next(tries)
    while not data:
        try:
            match await kie.ask(request, one):
                case Ready(url):
                    data = await kie.fetch(request, one, url)
                case FailedThere():
                    one = next(tries)
                case _:
                    await asyncio.sleep(0)
        except (ProviderUnavailableError, BadResultError):
            continue
    await twin.callbacks_settled()
    assert data == twin.tasks[one].picture()
    assert twin.tasks_by_token == {str(request.token): twin.tasks_created}
