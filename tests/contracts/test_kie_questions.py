"""Asking kie.ai: what its answers say about a task, and which say nothing."""

import io
import json
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.adapters.generation.kie import KieProvider
from darkroom.ports.generation import (
    Adoption,
    Again,
    Created,
    FailedThere,
    LinkDeadError,
    ProviderUnavailableError,
    Ready,
    Working,
)
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import Fault, Kind
from darkroom.twin.loopback import loopback
from tests.contracts.conftest import NOBODY, Answering, MakeProvider, request_with

REQUEST = request_with()
JSON_STYLES = pytest.mark.parametrize("in_body", [False, True], ids=["http-status", "body-code"])


@pytest.fixture
async def task_id(kie: KieProvider) -> str:
    """A task that is under way."""
    answer = await kie.create(REQUEST)
    assert isinstance(answer, Created)
    return answer.provider_task_id


def record(**fields: object) -> dict[str, Any]:
    return {"code": 200, "msg": "success", "data": {"taskId": "a", **fields}}


async def test_a_task_waits_queues_generates_and_is_ready(
    kie: KieProvider,
    twin: KieTwin,
    task_id: str,
    log_lines: list[MutableMapping[str, Any]],
) -> None:
    twin.habits.asks_to_finish = 4
    for state, in_line in (("waiting", True), ("queuing", True), ("generating", False)):
        assert await kie.ask(REQUEST, task_id) == Working(in_line=in_line)
        assert twin.tasks[task_id].state == state
    before = datetime.now(UTC)
    ready = await kie.ask(REQUEST, task_id)
    assert isinstance(ready, Ready)
    assert (ready.result_url, ready.credits) == (twin.result_url(twin.tasks[task_id]), 18)
    assert ready.dies_at is not None
    assert abs((ready.dies_at - before).total_seconds() - 86_400) < 5
    assert log_lines == []


@pytest.mark.parametrize("field", ["creditsConsumed", "consumeCredits"])
async def test_what_it_cost_is_read_in_either_spelling(
    kie: KieProvider, twin: KieTwin, task_id: str, field: str
) -> None:
    twin.habits.credit_field = field
    await twin.finish(task_id)
    answer = await kie.ask(REQUEST, task_id)
    assert isinstance(answer, Ready)
    assert answer.credits == 18


@JSON_STYLES
async def test_a_task_not_known_yet_is_waited_for(
    kie: KieProvider, twin: KieTwin, task_id: str, *, in_body: bool
) -> None:
    """422 "recordInfo is null" just after a creation concludes nothing; nor does a 404."""
    twin.habits.errors_in_body = in_body
    twin.habits.unknown_for_asks = 2
    twin.script("ask", Fault(Kind.ANSWER, 404, "Task not found"))
    for _ in range(3):
        assert await kie.ask(REQUEST, task_id) == Working()
    await twin.finish(task_id)
    assert isinstance(await kie.ask(REQUEST, task_id), Ready)


@JSON_STYLES
@pytest.mark.parametrize(
    ("code", "again"),
    [
        ("400", Again.NEVER),
        ("422", Again.NEVER),
        ("408", Again.LATER),
        ("451", Again.LATER),
        ("455", Again.LATER),
        ("505", Again.LATER),
        ("500", Again.LATER),
        ("501", Again.LATER),
    ],
)
async def test_a_task_that_failed_there_is_not_asked_about_forever(
    *, kie: KieProvider, twin: KieTwin, task_id: str, in_body: bool, code: str, again: Again
) -> None:
    """bugbook C7."""
    twin.habits.errors_in_body = in_body
    await twin.fail(task_id, code, "no good")
    assert await kie.ask(REQUEST, task_id) == FailedThere(f"KIE_{code}", "no good", again, 0)
    assert twin.credits_spent == 0


@pytest.mark.parametrize("code", [400, 500, 501])
async def test_a_failed_record_under_the_failures_own_code_is_a_failure(
    make_provider: MakeProvider, answering: Answering, code: int
) -> None:
    """bugbook C7, bugbook C8."""
    body = record(state="fail", failCode=str(code), failMsg=None) | {"code": code}
    answer = await make_provider(base_url=await answering(body)).ask(REQUEST, "a")
    assert isinstance(answer, FailedThere)
    assert answer.code == f"KIE_{code}"


@JSON_STYLES
@pytest.mark.parametrize("code", [400, 401, 402, 408, 429, 433, 455, 500, 501, 505, 524])
async def test_an_error_is_neither_progress_nor_failure(
    *, kie: KieProvider, twin: KieTwin, task_id: str, in_body: bool, code: int
) -> None:
    """bugbook C8, bugbook C18: the older poller took a body's error code for "processing"."""
    twin.habits.errors_in_body = in_body
    twin.script("ask", Fault(Kind.ANSWER, code))
    with pytest.raises(ProviderUnavailableError, match=str(code)):
        await kie.ask(REQUEST, task_id)


@pytest.mark.parametrize(
    "kind", [Kind.DROP, Kind.HANG, Kind.GARBAGE, Kind.HUGE, Kind.OTHER_TASK], ids=str
)
async def test_a_question_without_a_fitting_answer_says_nothing_about_the_task(
    make_provider: MakeProvider, twin: KieTwin, task_id: str, kind: Kind
) -> None:
    """bugbook C23: a silent provider costs one call's limit."""
    await twin.finish(task_id)
    twin.script("ask", Fault(kind))
    asked_once = make_provider(call_seconds=0.4 if kind is Kind.HANG else 10)
    with pytest.raises(ProviderUnavailableError):
        await asked_once.ask(REQUEST, task_id)
    assert isinstance(await make_provider().ask(REQUEST, task_id), Ready)


@pytest.mark.parametrize("status", [404, 422])
async def test_a_proxys_page_does_not_make_a_task_unknown(
    make_provider: MakeProvider, answering: Answering, status: int
) -> None:
    page = await answering(b"<html>Sorry</html>", status=status)
    with pytest.raises(ProviderUnavailableError):
        await make_provider(base_url=page).ask(REQUEST, "a")


async def test_nobody_there_is_unavailable(make_provider: MakeProvider) -> None:
    with pytest.raises(ProviderUnavailableError):
        await make_provider(base_url=NOBODY).ask(REQUEST, "a")


async def test_an_unknown_state_is_work_with_a_warning(
    kie: KieProvider,
    twin: KieTwin,
    task_id: str,
    log_lines: list[MutableMapping[str, Any]],
) -> None:
    twin.script("ask", Fault(Kind.STRANGE_STATE))
    assert await kie.ask(REQUEST, task_id) == Working()
    (line,) = log_lines
    assert (line["log_level"], line["state"]) == ("warning", "pausing")


@pytest.mark.parametrize(
    "result",
    [
        None,
        "",
        "not json",
        "{}",
        '{"resultUrls": []}',
        '{"resultUrls": [null]}',
        '{"resultUrls": ["https://a/\\u0000"]}',
        '{"resultUrls": "https://a/"}',
        "[" * 100_000,
        json.dumps({"resultUrls": ["https://a/" + "a" * 5000]}),
    ],
)
async def test_a_success_that_shows_no_picture_is_not_ready(
    make_provider: MakeProvider,
    answering: Answering,
    log_lines: list[MutableMapping[str, Any]],
    result: object,
) -> None:
    body = record(state="success", resultJson=result)
    answer = await make_provider(base_url=await answering(body)).ask(REQUEST, "a")
    assert answer == Working()
    assert len(log_lines) == 1


@pytest.mark.parametrize("cost", [None, -1, "many", True, 1e400, [18]])
async def test_a_cost_that_is_no_amount_is_left_out(
    make_provider: MakeProvider, answering: Answering, cost: object
) -> None:
    body = record(
        state="success", resultJson='{"resultUrls": ["https://a/b"]}', creditsConsumed=cost
    )
    answer = await make_provider(base_url=await answering(body)).ask(REQUEST, "a")
    assert isinstance(answer, Ready)
    assert (answer.result_url, answer.credits) == ("https://a/b", None)


async def test_a_success_without_data_is_a_task_not_known_yet(
    kie: KieProvider, twin: KieTwin, task_id: str
) -> None:
    twin.script("ask", Fault(Kind.BLANK))
    assert await kie.ask(REQUEST, task_id) == Working()


async def test_a_task_id_is_data_and_never_part_of_the_address(
    make_provider: MakeProvider,
) -> None:
    asked: list[tuple[str, list[tuple[str, str]]]] = []

    async def note(request: Request) -> Response:
        asked.append((request.url.path, request.query_params.multi_items()))
        return JSONResponse({"code": 422, "msg": "recordInfo is null"})

    task_id = "a&taskId=b/../#c+%20d"
    async with loopback(Starlette(routes=[Route("/{path:path}", note)])) as base_url:
        assert await make_provider(base_url=base_url).ask(REQUEST, task_id) == Working()
    assert asked == [("/api/v1/jobs/recordInfo", [("taskId", task_id)])]


async def test_whose_a_task_is_stands_in_its_record(kie: KieProvider, task_id: str) -> None:
    assert await kie.whose(task_id) == Adoption(task_id, REQUEST.token)


TOKEN = UUID("0189c1b2-5c1e-7a3e-9d5f-2b6c1a4e8f00")
CALLBACK = f"https://we.example/api/webhooks/generation/kie/{TOKEN}"


@pytest.mark.parametrize(
    ("param", "token"),
    [
        (json.dumps({"callBackUrl": CALLBACK, "input": {}}), TOKEN),
        ({"callBackUrl": CALLBACK.upper().replace("HTTPS", "https")}, None),
        ({"callBackUrl": CALLBACK}, TOKEN),
        (json.dumps({"input": json.dumps({"callBackUrl": CALLBACK})}), TOKEN),
        (json.dumps({"input": {"callBackUrl": CALLBACK + "?a=1"}}), TOKEN),
        (json.dumps({"callBackUrl": "https://old-name.example" + CALLBACK[18:]}), TOKEN),
        (json.dumps({"callBackUrl": CALLBACK + "0"}), None),
        (json.dumps({"callBackUrl": CALLBACK.replace("0189", "----")}), None),
        (json.dumps({"callBackUrl": "https://theirs.example/hook"}), None),
        (json.dumps({"input": {"prompt": CALLBACK}}), None),
        (json.dumps({"callBackUrl": 7, "input": 7}), None),
        (json.dumps([CALLBACK]), None),
        ("not json", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
async def test_only_our_own_callback_address_names_a_token(
    make_provider: MakeProvider, answering: Answering, param: object, token: UUID | None
) -> None:
    provider = make_provider(base_url=await answering(record(state="success", param=param)))
    assert await provider.whose("a") == Adoption("a", token)


async def test_a_task_that_kie_does_not_know_is_nobodys(kie: KieProvider) -> None:
    assert await kie.whose(uuid4().hex) is None


@pytest.mark.parametrize(
    "fault", [Fault(Kind.ANSWER, 500), Fault(Kind.DROP), Fault(Kind.OTHER_TASK)]
)
async def test_whose_a_task_is_stays_open_while_nobody_answers(
    kie: KieProvider, twin: KieTwin, task_id: str, fault: Fault
) -> None:
    twin.script("ask", fault)
    with pytest.raises(ProviderUnavailableError):
        await kie.whose(task_id)


async def test_neither_param_nor_token_is_logged(
    kie: KieProvider,
    twin: KieTwin,
    task_id: str,
    log_lines: list[MutableMapping[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    twin.script("ask", Fault(Kind.STRANGE_STATE))
    await kie.ask(REQUEST, task_id)
    await kie.whose(task_id)
    everything = repr((list(log_lines), caplog.text))
    assert "unknown state" in everything
    for secret in (str(REQUEST.token), REQUEST.prompt, "callBackUrl", "twin-key"):
        assert secret not in everything


async def test_a_picture_is_fetched_whole_and_nothing_is_wasted(
    kie: KieProvider, twin: KieTwin, task_id: str
) -> None:
    await twin.finish(task_id)
    answer = await kie.ask(REQUEST, task_id)
    assert isinstance(answer, Ready)
    data = await kie.fetch(REQUEST, task_id, answer.result_url)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", (96, 128))
    assert (twin.wasted, twin.credits_spent) == ([], 18)
    twin.script("result", *(Fault(Kind.ANSWER, 404) for _ in range(2)))
    with pytest.raises(LinkDeadError):
        await kie.fetch(REQUEST, task_id, answer.result_url)
