"""Creating at kie.ai: one call, three kinds of answer, and only a certain no is a no."""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest

from darkroom.adapters.generation.kie import KieProvider
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.generation import Again, Created, NoAnswer, Refused
from darkroom.twin.kie import KieTwin
from darkroom.twin.kie_faults import Fault, Kind
from tests.contracts.conftest import (
    NOBODY,
    Answering,
    MakeProvider,
    Receiver,
    link_to,
    request_with,
)

JSON_STYLES = pytest.mark.parametrize("in_body", [False, True], ids=["http-status", "body-code"])
COMMITTED_AND_SILENT = (
    Fault(Kind.COMMIT_THEN_ANSWER, 500),
    Fault(Kind.COMMIT_THEN_ANSWER, 501),
    Fault(Kind.COMMIT_THEN_ANSWER, 408),
    Fault(Kind.COMMIT_THEN_ANSWER, 524),
    Fault(Kind.COMMIT_THEN_ANSWER, 599),
    Fault(Kind.DROP),
    Fault(Kind.HANG),
    Fault(Kind.GARBAGE),
    Fault(Kind.HUGE),
    Fault(Kind.BLANK),
)


@pytest.mark.parametrize(
    ("model", "images", "extras"),
    [
        ("nano-banana-pro", "image_input", {"resolution": "2K", "output_format": "jpg"}),
        ("nano-banana-2", "image_input", {"resolution": "2K", "output_format": "jpg"}),
        ("nano-banana-2-lite", "image_urls", {}),
        ("google/nano-banana-edit", "image_urls", {"output_format": "jpeg"}),
    ],
)
async def test_each_model_gets_its_own_field_names_and_spellings(
    *,
    make_provider: MakeProvider,
    twin: KieTwin,
    receiver: Receiver,
    model: str,
    images: str,
    extras: dict[str, str],
) -> None:
    request = request_with()
    answer = await make_provider(model=model).create(request)
    (task,) = twin.tasks.values()
    assert answer == Created(task.id)
    assert task.order == {
        "model": model,
        "callBackUrl": f"{receiver.base_url}/api/webhooks/generation/kie/{request.token}",
        "input": {
            "prompt": request.prompt,
            images: [link_to(reference.object_key) for reference in request.references],
            "aspect_ratio": "3:4",
            **extras,
        },
    }


async def test_no_more_selfies_are_sent_than_the_model_takes(
    kie: KieProvider, twin: KieTwin
) -> None:
    """bugbook B21: 14 references against the provider's 8 were a permanent 422."""
    assert isinstance(await kie.create(request_with(references=14)), Created)
    (task,) = twin.tasks.values()
    assert len(task.input_links) == 8


async def test_selfies_travel_as_links(make_provider: MakeProvider, twin: KieTwin) -> None:
    """bugbook B22: the provider takes no `data:` references; it says so, and we hear it."""
    answer = await make_provider(reference_link=lambda _key: "data:image/png;base64,AA").create(
        request_with()
    )
    assert answer == Refused("KIE_422", "422: images must be links", Again.NEVER)
    assert twin.tasks_created == 0


async def test_a_key_with_a_stray_newline_works(make_provider: MakeProvider) -> None:
    """bugbook B23."""
    assert isinstance(await make_provider(api_key=" twin-key\r\n").create(request_with()), Created)


@pytest.mark.parametrize("api_key", ["", " \n", "two\nlines", "ключ"])
def test_a_key_that_no_header_can_carry_stops_the_start(
    make_provider: MakeProvider, api_key: str
) -> None:
    with pytest.raises(ValueError, match="key"):
        make_provider(api_key=api_key)


@pytest.mark.parametrize("model", ["google/nano-banana", "nano-banana-3", ""])
def test_a_model_that_takes_no_selfies_or_is_unknown_stops_the_start(
    make_provider: MakeProvider, model: str
) -> None:
    with pytest.raises(ValueError, match="model"):
        make_provider(model=model)


@JSON_STYLES
@pytest.mark.parametrize(
    ("code", "again"),
    [
        (429, Again.LATER),
        (451, Again.LATER),
        (455, Again.LATER),
        (401, Again.PAUSED),
        (402, Again.PAUSED),
        (403, Again.PAUSED),
        (404, Again.PAUSED),
        (433, Again.PAUSED),
        (505, Again.PAUSED),
        (400, Again.NEVER),
        (422, Again.NEVER),
    ],
)
async def test_a_refusal_is_told_from_its_code_wherever_the_code_stands(
    *, kie: KieProvider, twin: KieTwin, in_body: bool, code: int, again: Again
) -> None:
    """bugbook B8, bugbook B9: neither a 429 nor an error inside a 200 may cost the photo."""
    twin.habits.errors_in_body = in_body
    twin.script("create", Fault(Kind.ANSWER, code, "sorry"))
    answer = await kie.create(request_with())
    assert isinstance(answer, Refused)
    assert (answer.code, answer.text, answer.again) == (f"KIE_{code}", f"{code}: sorry", again)
    assert twin.tasks_created == 0


@JSON_STYLES
async def test_the_twenty_first_creation_in_ten_seconds_waits_and_then_passes(
    kie: KieProvider, twin: KieTwin, *, in_body: bool
) -> None:
    """bugbook B8."""
    twin.habits.errors_in_body = in_body
    answers = [await kie.create(request_with()) for _ in range(20)]
    assert all(isinstance(answer, Created) for answer in answers)
    refused = await kie.create(request_with())
    assert isinstance(refused, Refused)
    assert refused.again is Again.LATER
    await twin.advance(10)
    assert isinstance(await kie.create(request_with()), Created)
    assert twin.tasks_created == 21


@JSON_STYLES
async def test_a_feature_that_is_off_stops_its_model_and_no_other(
    kie: KieProvider, twin: KieTwin, *, in_body: bool
) -> None:
    twin.habits.errors_in_body = in_body
    twin.script("create", Fault(Kind.ANSWER, 505), Fault(Kind.ANSWER, 402))
    off, broke = [await kie.create(request_with()) for _ in range(2)]
    assert isinstance(off, Refused)
    assert isinstance(broke, Refused)
    assert (off.only_model, broke.only_model) == (True, False)


async def test_selfies_that_kie_could_not_read_are_signed_anew_for_the_next_try(
    make_provider: MakeProvider, twin: KieTwin
) -> None:
    """A refused creation costs nothing, and carries the links it was refused with nowhere else."""
    signed = 0

    def sign(object_key: str) -> str:
        nonlocal signed
        signed += 1
        return f"https://photos.example/{object_key}?signed={signed}"

    kie = make_provider(reference_link=sign)
    twin.script("create", Fault(Kind.ANSWER, 451))
    refused = await kie.create(request_with(references=1))
    assert isinstance(refused, Refused)
    assert refused.again is Again.LATER
    assert isinstance(await kie.create(request_with(references=1)), Created)
    (task,) = twin.tasks.values()
    assert task.input_links == ["https://photos.example/references/0.jpg?signed=2"]


async def test_a_slow_creation_is_made_although_its_answer_is_given_up(
    make_provider: MakeProvider, twin: KieTwin
) -> None:
    twin.habits.create_seconds = 1.0
    answer = await make_provider(call_seconds=0.3).create(request_with())
    assert isinstance(answer, NoAnswer)
    assert twin.tasks_created == 1


@pytest.mark.parametrize("field", ["msg", "message"])
async def test_why_not_is_read_in_either_spelling(
    make_provider: MakeProvider, answering: Answering, field: str
) -> None:
    body = {"code": 402, field: "Credits insufficient", "data": None}
    answer = await make_provider(base_url=await answering(body)).create(request_with())
    assert answer == Refused("KIE_402", "402: Credits insufficient", Again.PAUSED)


async def test_an_empty_account_pauses_and_a_filled_one_goes_on(
    kie: KieProvider, twin: KieTwin
) -> None:
    twin.habits.credits_left = 20
    assert isinstance(await kie.create(request_with()), Created)
    refused = await kie.create(request_with())
    assert isinstance(refused, Refused)
    assert (refused.code, refused.again) == ("KIE_402", Again.PAUSED)
    twin.habits.credits_left = 18
    assert isinstance(await kie.create(request_with()), Created)
    assert twin.credits_spent == 36


async def test_a_wrong_key_pauses(make_provider: MakeProvider, twin: KieTwin) -> None:
    """bugbook C18: our own misconfiguration is not the photo's failure."""
    answer = await make_provider(api_key="wrong").create(request_with())
    assert isinstance(answer, Refused)
    assert (answer.code, answer.again) == ("KIE_401", Again.PAUSED)
    assert twin.tasks_created == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("0", None),
        ("-3", None),
        ("nan", None),
        ("soon", None),
        ("999999", 600),
        (None, None),
    ],
)
async def test_the_pause_asked_for_is_kept_within_reason(
    kie: KieProvider, twin: KieTwin, header: str | None, seconds: float | None
) -> None:
    twin.script("create", Fault(Kind.ANSWER, 429, retry_after=header))
    answer = await kie.create(request_with())
    assert isinstance(answer, Refused)
    assert answer.retry_after_seconds == seconds


async def test_a_pause_may_be_asked_for_as_a_date(kie: KieProvider, twin: KieTwin) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    twin.script("create", *(Fault(Kind.ANSWER, 429, retry_after=each) for each in (when, past)))
    later, now = [await kie.create(request_with()) for _ in range(2)]
    assert isinstance(later, Refused)
    assert isinstance(now, Refused)
    assert 50 < (later.retry_after_seconds or 0) <= 60
    assert now.retry_after_seconds is None


async def test_maintenance_is_waited_for_in_minutes(kie: KieProvider, twin: KieTwin) -> None:
    twin.script("create", Fault(Kind.ANSWER, 455))
    answer = await kie.create(request_with())
    assert isinstance(answer, Refused)
    assert answer.retry_after_seconds == 120


@JSON_STYLES
@pytest.mark.parametrize("fault", COMMITTED_AND_SILENT, ids=lambda fault: str(fault.kind))
async def test_an_answer_that_excludes_no_task_is_no_answer_and_is_never_repeated(
    make_provider: MakeProvider, twin: KieTwin, fault: Fault, *, in_body: bool
) -> None:
    """bugbook B6, bugbook B9, bugbook B20, bugbook C23.

    The task exists: a retry inside the call would buy another.
    """
    twin.habits.errors_in_body = in_body
    twin.script("create", fault)
    kie = make_provider(call_seconds=0.4 if fault.kind is Kind.HANG else 10)
    assert isinstance(await kie.create(request_with()), NoAnswer)
    assert (twin.tasks_created, twin.requests["create"]) == (1, 1)


async def test_a_lost_creation_is_found_again_by_its_token(kie: KieProvider, twin: KieTwin) -> None:
    """bugbook B6: what the callback names is adopted instead of paid twice."""
    request = request_with()
    twin.script("create", Fault(Kind.DROP))
    assert isinstance(await kie.create(request), NoAnswer)
    (task,) = twin.tasks.values()
    adoption = await kie.whose(task.id)
    assert adoption is not None
    assert (adoption.provider_task_id, adoption.token) == (task.id, request.token)


async def test_a_provider_that_nothing_was_sent_to_has_no_task(
    make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused connections, unknown names and connects that time out are certain noes."""
    refused = await make_provider(base_url=NOBODY).create(request_with())

    async def never(*_arguments: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "sock_connect", never)
        timed_out = await make_provider(call_seconds=0.4).create(request_with())

    async def getaddrinfo(*_arguments: object, **_options: object) -> list[Any]:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    nameless = await make_provider(base_url="http://kie.example").create(request_with())
    for answer in (refused, timed_out, nameless):
        assert isinstance(answer, Refused)
        assert (answer.code, answer.again) == ("UNREACHABLE", Again.LATER)


@pytest.mark.parametrize(
    ("said", "lost_as"),
    [
        (b"", "HungUpError"),
        (b"RESET", "BrokenOffError"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "HungUpError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "ClientPayloadError"),
        (b"SSH-2.0-other\r\n\r\n", "ClientResponseError"),
        (b"SILENCE", "TimeoutError"),
    ],
)
async def test_a_connection_lost_after_sending_is_no_answer_and_nothing_is_sent_again(
    make_provider: MakeProvider, said: bytes, lost_as: str
) -> None:
    heard: list[bytes] = []

    async def lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"}}"))
        if said == b"SILENCE":
            await reader.read()
        elif said == b"RESET":
            wire: socket.socket = writer.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.write(said)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(lose, sock=socket.create_server(("127.0.0.1", 0)))
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        kie = make_provider(base_url=address, call_seconds=0.4 if said == b"SILENCE" else 10)
        answer = await kie.create(request_with())
        assert answer == NoAnswer(lost_as)
        await kie.close()
    assert [request[:5] for request in heard] == [b"POST "]


@pytest.mark.parametrize(
    ("headers", "packed"),
    [
        ({"Content-Encoding": "gzip"}, True),
        ({"Content-Security-Policy": "a" * 20_000}, False),
        ({f"X-Front-{number}": "seen" for number in range(200)}, False),
    ],
)
async def test_a_front_that_packs_or_adds_much_loses_no_creation(
    make_provider: MakeProvider, answering: Answering, headers: dict[str, str], *, packed: bool
) -> None:
    """An answer that is not read is 90 s of waiting, and perhaps a second paid task."""
    body = json.dumps({"code": 200, "msg": "success", "data": {"taskId": "a"}}).encode()
    address = await answering(gzip.compress(body) if packed else body, headers=headers)
    assert await make_provider(base_url=address).create(request_with()) == Created("a")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
async def test_a_proxys_page_is_no_verdict_on_the_photo(
    make_provider: MakeProvider, answering: Answering, status: int
) -> None:
    page = await answering(b"<html>Sorry</html>", status=status)
    answer = await make_provider(base_url=page).create(request_with())
    assert isinstance(answer, Refused)
    assert answer.again is Again.PAUSED


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 429, "msg": "slow down", "data": {"taskId": "a"}}),
        (429, {"code": 200, "msg": "success", "data": {"taskId": "a"}}),
        (500, {"code": 200, "msg": "success", "data": {"taskId": "a"}}),
        (302, {"code": 200, "msg": "success", "data": None}),
        (200, {"code": 200, "msg": "success", "data": {"taskId": "a\x00"}}),
        (200, {"code": 200, "msg": "success", "data": {"taskId": "\ud800"}}),
        (200, {"code": 200, "msg": "success", "data": {"taskId": "a" * 256}}),
        (200, {"code": 200, "msg": "success", "data": {"taskId": 7}}),
        (200, {"code": 200, "msg": "success", "data": ["a"]}),
        (200, {"code": "429", "msg": None}),
        (200, {"code": True, "data": {"taskId": "a"}}),
        (200, {"msg": "success"}),
        (200, [1]),
        (200, None),
        (200, b"[" * 500_000),
        (200, b"\xff"),
        (200, b""),
    ],
)
async def test_an_answer_that_contradicts_itself_or_cannot_be_kept_is_no_answer(
    make_provider: MakeProvider, answering: Answering, status: int, body: object
) -> None:
    answer = await make_provider(base_url=await answering(body, status=status)).create(
        request_with()
    )
    assert isinstance(answer, NoAnswer)


async def test_a_definite_no_stands_behind_a_servers_error_status(
    make_provider: MakeProvider,
    answering: Answering,
) -> None:
    """The application's word comes before that of what stands in front of it."""
    body = {"code": 402, "message": "Credits insufficient", "data": None}
    answer = await make_provider(base_url=await answering(body, status=500)).create(request_with())
    assert answer == Refused("KIE_402", "402: Credits insufficient", Again.PAUSED)


async def test_what_kie_would_refuse_or_should_is_not_sent(kie: KieProvider, twin: KieTwin) -> None:
    long_one = await kie.create(request_with(prompt="a" * 5001))
    faceless = await kie.create(request_with(references=0))
    for answer, code in ((long_one, "PROMPT_TOO_LONG"), (faceless, "NO_REFERENCES")):
        assert isinstance(answer, Refused)
        assert (answer.code, answer.again) == (code, Again.NEVER)
    assert twin.requests["create"] == 0
    assert isinstance(await kie.create(request_with(prompt="a" * 5000)), Created)


async def test_a_proxy_of_the_environment_never_sees_the_key(
    make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOBODY)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert isinstance(await make_provider().create(request_with()), Created)


async def test_nothing_is_created_inside_a_transaction(kie: KieProvider, twin: KieTwin) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await kie.create(request_with())
    assert twin.requests["create"] == 0


async def test_neither_key_nor_token_nor_order_is_ever_logged_or_told(
    make_provider: MakeProvider,
    answering: Answering,
    log_lines: list[MutableMapping[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = uuid4()
    callback = f"http://we.example/api/webhooks/generation/kie/{token}"
    told: list[str] = []
    for code in (400, 402, 422, 429, 500):
        body = {"code": code, "msg": f"callBackUrl {callback} is bad\x00\n", "data": None}
        provider = make_provider(api_key="very-secret-key", base_url=await answering(body))
        told.append(repr(await provider.create(request_with(token=token, prompt="secret prompt"))))
    everything = repr((told, list(log_lines), caplog.text))
    assert "is shut to us" in everything
    for secret in (str(token), "very-secret-key", "secret prompt"):
        assert secret not in everything
    assert "\x00" not in "".join(told)
