"""QStash as our clock: the commands, and what they leave there."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from darkroom.adapters.qstash_schedules import QStashSchedules
from darkroom.config import Settings
from darkroom.edges import cli_qstash, terminal
from darkroom.edges.cli import build_cli
from darkroom.ports.schedules import SchedulesUnavailableError
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_messages import Order
from darkroom.wiring import open_schedules
from tests.wires import wires_of

Type = Callable[..., Result]


@contextmanager
def twin_elsewhere() -> Generator[QStashTwin]:
    """A twin on a loop of its own: commands bring theirs."""
    loop = asyncio.new_event_loop()
    ready, leave = threading.Event(), asyncio.Event()
    found: list[QStashTwin] = []

    async def live() -> None:
        async with qstash_twin() as twin:
            found.append(twin)
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def twin() -> Generator[QStashTwin]:
    with twin_elsewhere() as running:
        yield running


@pytest.fixture
def type_words(twin: QStashTwin, monkeypatch: pytest.MonkeyPatch) -> Type:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    given = {
        "QSTASH_TOKEN": twin.habits.token,
        "QSTASH_URL": twin.base_url,
        "QSTASH_CURRENT_SIGNING_KEY": twin.habits.current_key,
        "QSTASH_NEXT_SIGNING_KEY": twin.habits.next_key,
        "DARKROOM_PUBLIC_URL": "http://127.0.0.1:9/",
    }
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(cli_qstash, "console", Console(highlight=False, width=160))
    monkeypatch.setattr(terminal, "errors", Console(highlight=False, width=200, stderr=True))

    wires = wires_of(open_schedules=open_schedules)

    def type_them(*words: str) -> Result:
        return CliRunner().invoke(build_cli(wires), ["qstash", "schedules", *words])

    return type_them


def test_two_schedules_are_set_any_number_of_times_and_taken_away(
    twin: QStashTwin, type_words: Type
) -> None:
    assert "no schedules" in type_words("list").stdout
    somebody = twin.plan("somebody-elses", "0 0 * * *", Order("http://127.0.0.1:9/", b""))
    for _ in range(2):
        assert type_words("install").exit_code == 0
    assert type_words("install", "--poll-cron", "* * * * *").exit_code == 0
    ours = {one.id: one for one in twin.schedules.values() if one.id != somebody.id}
    assert {name: one.cron_text for name, one in ours.items()} == {
        "darkroom-poll": "* * * * *",
        "darkroom-sweep": "*/15 * * * *",
    }
    poll = ours["darkroom-poll"].order
    assert (poll.url, poll.method) == ("http://127.0.0.1:9/api/cron/poll-kie-tasks", "POST")
    assert {one.order.retries for one in ours.values()} == {0}
    shown = type_words("list").stdout
    assert "darkroom-sweep" in shown
    assert "somebody-elses" in shown
    assert "removed: darkroom-poll, darkroom-sweep" in type_words("remove").stdout
    assert "none of ours" in type_words("remove").stdout
    assert list(twin.schedules) == ["somebody-elses"]


def test_what_the_clock_refuses_is_one_line_and_exit_code_1(
    twin: QStashTwin, type_words: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = type_words("install", "--poll-cron", "every day")
    assert (said.exit_code, "invalid cron" in said.stderr) == (1, True)
    monkeypatch.setenv("QSTASH_TOKEN", "wrong")
    said = type_words("list")
    assert (said.exit_code, "401" in said.stderr) == (1, True)
    monkeypatch.setenv("QSTASH_URL", "http://127.0.0.1:9")
    assert type_words("list").exit_code == 1
    monkeypatch.delenv("QSTASH_TOKEN")
    said = type_words("list")
    assert (said.exit_code, "QSTASH_TOKEN is not set" in said.stderr) == (2, True)
    assert twin.schedules == {}


async def test_a_clock_that_says_nothing_is_given_up() -> None:
    closing = asyncio.Event()

    async def hang(_request: Request) -> Response:
        await closing.wait()
        return Response()

    async with loopback(Starlette(routes=[Route("/v2/schedules", hang)])) as url:
        clock = QStashSchedules(
            token="token", base_url=url, public_url="http://127.0.0.1:9", call_seconds=0.2
        )
        with pytest.raises(SchedulesUnavailableError):
            await clock.list()
        closing.set()
        await clock.close()
