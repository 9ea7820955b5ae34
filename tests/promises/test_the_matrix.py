"""Promise 3 as a matrix: every message x every reachable status x 0, 1, 2 times, at once, late, reordered.

Moments (`moments.py`) and messages (`messages.py`) are held against the code's own tables; what each
message changes is one table (`ends.py`). Every cell is a customer of its own; all cells of a moment share
one database (`play.py`), so that its clone is paid once. `MATRIX=full` adds every pair of messages, and
every other way to a status.
"""

import asyncio
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import pytest
from fastapi.routing import iter_route_contexts

from darkroom.core import payments
from darkroom.core.leases import LeaseKind
from darkroom.core.lifecycle import MOVES, NEW, STATUSES, Kind
from darkroom.flow import order_photos
from darkroom.flow.settle_unknown import settle_unknown_tasks
from darkroom.flow.take_notices import take_due_notices
from tests.edges.serving import application_of
from tests.promises.ends import ANY_AVATAR, ANY_MONEY, RULES, Effect, State, after
from tests.promises.messages import (
    ALL_MESSAGES,
    BY_HAND,
    MESSAGES,
    NO_DOOR_YET,
    NOT_MESSAGES,
    TICKS,
    Message,
    look,
)
from tests.promises.moments import MOMENTS, Moment
from tests.promises.play import PATTERNS, Cell, Crowd, Play, admin, gather_crowd, open_stage
from tests.promises.stage import Stage
from tests.shop import Shop

FULL: Final = os.environ.get("MATRIX") == "full"
LATE_SECONDS: Final = 72_000
"""Most of a day after the end: a photo for the chat, which nobody takes out yet, may wait a day."""
CHOSEN: Final = tuple(moment for moment in MOMENTS if FULL or not moment.more)
TIME_BOUND: Final = frozenset({"stuck", "message_stuck"})
"""A clock that leaps without anybody working: how long things stood is asked when all is quiet."""
NOT_MADE_YET: Final = {
    ("job", "cancelled"),
    ("delivery", "sending"),
    ("delivery", "sent"),
    ("delivery", "blocked"),
    ("delivery", "failed"),
}
"""Statuses that no flow of today makes. Whoever makes one takes it from here and gives it a moment."""


def _pairs(moment: Moment, messages: Sequence[Message], partners: int) -> list[Cell]:
    """Each message before and after so many others, which differ from moment to moment."""
    cells: list[Cell] = []
    for message in messages:
        others = [other for other in messages if other is not message]
        first = zlib.crc32(f"{moment.name}/{message.name}".encode()) % len(others)
        for other in (others[first:] + others[:first])[:partners]:
            cells += [Cell(message, "before", other), Cell(other, "before", message)]
    return list(dict.fromkeys(cells))


def _parts(moment: Moment, messages: Sequence[Message]) -> list[list[Cell]]:
    """What is played at a moment: every message in every pattern with a pair or two; then all pairs."""
    plain = [Cell(message, pattern) for message in messages for pattern in PATTERNS]
    pairs = _pairs(moment, messages, 1)
    parts = [plain + pairs]
    if FULL:
        chosen = set(pairs)
        more = [cell for cell in _pairs(moment, messages, len(messages)) if cell not in chosen]
        size = len(parts[0])
        parts += [more[start : start + size] for start in range(0, len(more), size)]
    return parts


PLAYS: Final = [
    pytest.param(moment, cells, id=f"{moment.name}-{part}" if part else moment.name)
    for moment in CHOSEN
    for part, cells in enumerate(_parts(moment, MESSAGES))
]
TICK_CELLS: Final = {moment: _parts(moment, TICKS)[0] for moment in CHOSEN}
"""Two messages make one pair, in both orders."""
CELLS: Final = [
    *(
        (moment.name, cell.name)
        for moment in CHOSEN
        for part in _parts(moment, MESSAGES)
        for cell in part
    ),
    *((moment.name, cell.name) for moment in CHOSEN for cell in TICK_CELLS[moment]),
]
"""Every cell of this run: (moment, message and pattern)."""


@pytest.fixture(scope="session")
def crowds(
    server: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[dict[bool, Crowd]]:
    """People, and people who ordered: made once a run, because making them costs more than what they do."""
    most = max(len(part) for moment in CHOSEN for part in _parts(moment, MESSAGES))
    folder = tmp_path_factory.mktemp("crowd")
    made = {
        ordered: asyncio.run(gather_crowd(server, template, folder, most, ordered=ordered))
        for ordered in (False, True)
    }
    yield made
    for crowd in made.values():
        admin(server, "DROP DATABASE {name} WITH (FORCE)", crowd.name)


@pytest.mark.parametrize(("moment", "cells"), PLAYS)
async def test_every_message_at(
    server: str,
    crowds: dict[bool, Crowd],
    tmp_path: Path,
    *,
    record_property: Callable[[str, object], None],
    moment: Moment,
    cells: list[Cell],
) -> None:
    """Any message, at any status, any number of times: the end that the table says.

    bugbook A1, bugbook A27, bugbook A29, bugbook A30, bugbook B1, bugbook B2, bugbook B4, bugbook B6,
    bugbook B11, bugbook C2, bugbook C9, bugbook D12, bugbook E2, bugbook E5, bugbook E6, bugbook E8.
    """
    record_property("cases", len(cells))
    async with open_stage(server, crowds[not moment.fresh], tmp_path, chat=moment.chat) as stage:
        play = Play(stage, moment)
        await play.begin(cells)
        await play.send("once", "twice", "five at once", "before")
        await play.check_leases()
        await play.audit("delivered", TIME_BOUND)
        await play.drain()
        await stage.shop.advance(LATE_SECONDS)
        await play.send("late")
        await play.drain()
        play.compare()
        await play.spend_what_is_ready()
    assert play.wrong == []


@pytest.mark.parametrize("moment", CHOSEN, ids=lambda moment: moment.name)
async def test_every_tick_at(
    server: str,
    crowds: dict[bool, Crowd],
    tmp_path: Path,
    *,
    record_property: Callable[[str, object], None],
    moment: Moment,
) -> None:
    """bugbook C2, bugbook C3: a tick moves whatever is due, so each cell plays when the others have ended."""
    record_property("cases", len(TICK_CELLS[moment]))
    async with open_stage(server, crowds[False], tmp_path, chat=moment.chat) as stage:
        play = Play(stage, moment)
        cells = TICK_CELLS[moment]
        for cell in (one for one in cells if one.pattern not in ("never", "late")):
            cases = await play.begin([cell])
            await play.send(cell.pattern, only=cases)
            await play.drain()
        await play.begin([one for one in cells if one.pattern in ("never", "late")])
        await play.drain()
        await stage.shop.advance(LATE_SECONDS)
        await play.send("late")
        await play.drain()
        play.compare()
    assert play.wrong == []


def _reached() -> set[tuple[Kind, str]]:
    """The closure of the moves that some flow makes, from nothing."""
    kinds: set[Kind] = {status.kind for status in STATUSES}
    reached: set[tuple[Kind, str]] = set(itertools.product(kinds, [NEW]))
    while True:
        more: set[tuple[Kind, str]] = {
            (move.kind, move.target)
            for move in MOVES
            if move.by and (move.kind, move.source) in reached
        }
        if more <= reached:
            return {one for one in reached if one[1] != NEW}
        reached |= more


def test_every_reachable_status_has_its_moment() -> None:
    """A new status, or a move that a flow makes from now on, fails here until the matrix has it."""
    every = {row for moment in MOMENTS for row in moment.rows}
    everyday = {row for moment in CHOSEN for row in moment.rows}
    assert every == everyday == _reached()
    assert {(status.kind, status.name) for status in STATUSES} - _reached() == NOT_MADE_YET
    # A letter is of no order.
    assert {moment.held for moment in MOMENTS} - {None} == set(get_args(LeaseKind)) - {"mail"}
    assert max(Counter(moment.name for moment in MOMENTS).values()) == 1


async def test_every_made_move_is_walked(
    server: str, crowds: dict[bool, Crowd], tmp_path: Path
) -> None:
    """Moments, their ends, and three messages that open an end again: together they make every move."""
    late = {message.name: message for message in MESSAGES}
    async with open_stage(server, crowds[False], tmp_path) as stage:
        for moment in MOMENTS:
            await _walk(stage, moment, late)
        rows = await stage.shop.rows("SELECT DISTINCT kind, from_status, to_status FROM move_log")
    walked = {(row["kind"], row["from_status"], row["to_status"]) for row in rows}
    assert walked == {(move.kind, move.source, move.target) for move in MOVES if move.by}


async def _walk(stage: Stage, moment: Moment, messages: dict[str, Message]) -> None:
    shop = stage.shop
    shop.darkroom = replace(shop.darkroom, chat_enabled=moment.chat)
    one, other = await moment.bring(stage, 2)
    known = await look(stage, [one, other])
    await messages["callback-of-orphan"].deliver(stage, known[one])
    await stage.run(take_due_notices, settle_unknown_tasks)
    shop.bank.closes_what_waits()
    await shop.drain()
    known = await look(stage, [one, other])
    for facts in known.values():
        await messages["notice-paid"].deliver(stage, facts)
        await messages["replay"].deliver(stage, facts)
    await shop.drain()
    # A person mends one, somebody at the bank the other.
    known = await look(stage, [one, other])
    await messages["refund-again"].deliver(stage, known[one])
    await messages["refund-outside"].deliver(stage, known[other])
    await shop.drain()


def test_every_door_is_in_the_matrix(shop: Shop) -> None:
    """Every address of the application takes a message of the matrix, or says why it takes none."""
    doors = {
        f"{method} {route.path}"
        for route in iter_route_contexts(application_of(shop).routes)
        for method in (route.methods or set[str]()) - {"HEAD"}
    }
    taken = {message.door for message in ALL_MESSAGES} - BY_HAND
    assert doors == taken | set(NOT_MESSAGES)
    assert not taken & set(NOT_MESSAGES)
    reads = {door for door, why in NOT_MESSAGES.items() if why == "reads"}
    assert {door.split()[0] for door in reads} == {"GET"}


def test_some_messages_have_no_door_yet(shop: Shop) -> None:
    """A bot update: the chat is not built. Whoever builds its door takes it from the list, and adds a row."""
    addresses = [str(route.path) for route in iter_route_contexts(application_of(shop).routes)]
    for message, word in NO_DOOR_YET.items():
        assert not [address for address in addresses if word in address], f"{message} has a door"


def test_the_rules_say_one_thing_and_say_it_twice() -> None:
    """No two rules for one case; and an effect that comes again changes nothing more."""
    effects: tuple[Effect, ...] = get_args(Effect)
    for effect, money, avatar in itertools.product(effects, ANY_MONEY, ANY_AVATAR):
        fitting = [
            rule
            for rule in RULES
            if rule.effect == effect and money in rule.money and avatar in rule.avatar
        ]
        assert len(fitting) <= 1, fitting
        once = after(State(money, avatar), effect)
        assert after(once, effect) == once


def test_the_matrix_is_whole() -> None:
    """Every message at every chosen moment in every pattern, and each before and after another."""
    found = set(CELLS)
    assert len(found) == len(CELLS)
    for moment, message, pattern in itertools.product(CHOSEN, ALL_MESSAGES, PATTERNS):
        assert (moment.name, Cell(message, pattern).name) in found
    for moment, message in itertools.product(CHOSEN, ALL_MESSAGES):
        here = [name for place, name in CELLS if place == moment.name]
        assert any(name.startswith(f"{message.name} before ") for name in here)
        assert any(name.endswith(f" before {message.name}") for name in here)
    assert len(CELLS) >= 5000


async def test_twin_a_late_no_that_undoes_money_is_found(
    server: str, crowds: dict[bool, Crowd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed, in the statement and in the table of legal moves (bugbook E6)."""
    careless = payments.MARK_CANCELED.replace(" AND status = 'pending'", "", 1)
    assert careless != payments.MARK_CANCELED
    monkeypatch.setattr(payments, "MARK_CANCELED", careless)
    moment = next(one for one in MOMENTS if one.name == "payment-succeeded")
    no = [message for message in MESSAGES if message.name == "notice-canceled"]
    async with open_stage(server, crowds[False], tmp_path) as stage:
        async with stage.shop.database.connection() as tx:
            await tx.execute("INSERT INTO legal_move VALUES ('payment', 'succeeded', 'canceled')")
        play = Play(stage, moment)
        await play.begin([Cell(no[0], pattern) for pattern in PATTERNS])
        await play.send("once", "twice", "five at once")
        await play.drain()
        play.compare()
    wrong = [one for one in play.wrong if "instead of" in one]
    assert len(wrong) == len(PATTERNS) - 2, (
        "the twin must fail: three times told, never and late not"
    )


async def test_twin_a_forgotten_key_is_found(
    server: str, crowds: dict[bool, Crowd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: a double click that orders twice (bugbook A27)."""

    async def nothing(*_args: object, **_more: object) -> None:
        return None

    monkeypatch.setattr(order_photos, "find_request", nothing)
    monkeypatch.setattr(order_photos, "remember_request", nothing)
    moment = next(one for one in MOMENTS if one.name == "payment-pending")
    click = [message for message in MESSAGES if message.name == "order-key"]
    async with open_stage(server, crowds[True], tmp_path) as stage:
        play = Play(stage, moment)
        await play.begin([Cell(click[0], pattern) for pattern in PATTERNS])
        await play.send("once", "twice", "five at once")
        await play.drain()
        play.compare()
    assert len([one for one in play.wrong if "differs" in one]) == 2, "the twin must fail"
