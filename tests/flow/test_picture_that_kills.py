"""A picture that kills its decoder costs a few workers, one that hangs costs a thread (decision 25)."""

import asyncio
import os
import threading
from dataclasses import replace

import pytest

from darkroom.adapters import pictures_here
from darkroom.adapters.pictures_apart import DeveloperApart
from darkroom.adapters.pictures_here import DeveloperHere
from darkroom.adapters.thumbnails import develop_now
from darkroom.core.tasks import claim_pending, claim_storing
from darkroom.flow import collect_photos
from darkroom.flow.collect_photos import APART_AFTER, collect_due_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.pictures import DecoderHangsError, Developed
from tests.scripted import picture_of
from tests.shop import Shop


def die(_data: bytes) -> Developed:
    """What such a picture does. Runs in a process of its own."""
    os._exit(9)


class DiedError(Exception):
    """In place of the test's own end."""


class Worker:
    """Opens pictures in this process, which each of them would end."""

    def __init__(self) -> None:
        self.deaths = 0

    async def develop(self, _data: bytes) -> Developed:
        self.deaths += 1
        raise DiedError


async def _storing(shop: Shop) -> None:
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await poll_due_tasks(shop.darkroom)


async def _die_at_once(shop: Shop, times: int) -> None:
    """Workers that claimed all of it and were not heard of again."""
    limits = shop.darkroom.limits
    for _ in range(times):
        async with shop.darkroom.database.connection() as tx:
            claimed = await claim_storing(
                tx, limit=limits.batch, lease_seconds=limits.lease_seconds, dying_seconds=0
            )
        assert len(claimed) == 7
        await shop.advance(limits.lease_seconds + 1)


async def test_a_picture_that_outlived_its_workers_is_opened_apart_and_is_a_bad_one(
    shop: Shop,
) -> None:
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER)
    worker, apart = Worker(), DeveloperApart(work=die)
    shop.darkroom = replace(shop.darkroom, develop=worker.develop, develop_apart=apart.develop)
    await collect_due_photos(shop.darkroom)
    await apart.close()
    assert worker.deaths == 0, "the fourth worker lives"
    assert await shop.value("SELECT array_agg(DISTINCT bad_results) FROM kie_tasks") == [1]
    errors = await shop.value("SELECT array_agg(DISTINCT last_error) FROM kie_tasks")
    assert errors == ["the process of picture.apart died"]


async def test_without_the_count_the_fourth_worker_dies_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the one above with its guard removed."""
    monkeypatch.setattr(collect_photos, "APART_AFTER", 1_000_000)
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER)
    worker = Worker()
    shop.darkroom = replace(shop.darkroom, develop=worker.develop)
    await collect_due_photos(shop.darkroom)
    assert worker.deaths == 7


async def test_a_worker_that_only_died_costs_no_process(shop: Shop) -> None:
    """Deploys and crashes are over within ten seconds; a process may take as long to start."""
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER - 1)
    apart = Worker()
    shop.darkroom = replace(shop.darkroom, develop_apart=apart.develop)
    await collect_due_photos(shop.darkroom)
    assert apart.deaths == 0
    assert set(await shop.statuses()) == {"completed"}


async def test_a_picture_that_is_no_killer_comes_through_apart(shop: Shop) -> None:
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER)
    apart = DeveloperApart()
    shop.darkroom = replace(shop.darkroom, develop_apart=apart.develop)
    await collect_due_photos(shop.darkroom)
    await apart.close()
    assert set(await shop.statuses()) == {"completed"}
    assert await shop.value("SELECT count(thumbnail_key) FROM generated_photos") == 7


async def test_three_bad_ones_and_the_next_attempt_begins_anew(shop: Shop) -> None:
    """What was waited for and given back in between is no lapse; another picture is opened as usual."""
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER)
    apart = DeveloperApart(work=die)
    shop.darkroom = replace(shop.darkroom, develop_apart=apart.develop)
    for _ in range(shop.darkroom.limits.bad_results_max):
        await collect_due_photos(shop.darkroom)
        await shop.advance(120)
    await apart.close()
    assert set(await shop.statuses()) == {"queued"}
    assert await shop.value("SELECT array_agg(DISTINCT lapses) FROM kie_tasks") == [APART_AFTER]
    await submit_due_tasks(shop.darkroom)
    assert await shop.value("SELECT array_agg(DISTINCT lapses) FROM kie_tasks") == [0]
    await shop.advance(10)
    await poll_due_tasks(shop.darkroom)
    await collect_due_photos(shop.darkroom)
    assert set(await shop.statuses()) == {"completed"}


async def test_a_machine_that_starts_no_process_buys_nothing(shop: Shop) -> None:
    """Three bad results buy another generation: of pictures that nobody opened."""
    await _storing(shop)
    await _die_at_once(shop, APART_AFTER)
    apart = DeveloperApart(seconds=0.01)
    shop.darkroom = replace(shop.darkroom, develop_apart=apart.develop)
    await collect_due_photos(shop.darkroom)
    await apart.close()
    assert await shop.value("SELECT array_agg(DISTINCT bad_results) FROM kie_tasks") == [0]
    assert set(await shop.statuses()) == {"storing"}


async def test_lapses_before_there_was_a_picture_are_none_of_its_doing(shop: Shop) -> None:
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    limits = shop.darkroom.limits
    for _ in range(APART_AFTER):
        await shop.advance(limits.lease_seconds + 1)
        async with shop.darkroom.database.connection() as tx:
            claimed = await claim_pending(
                tx, limit=limits.batch, lease_seconds=limits.lease_seconds
            )
        assert len(claimed) == 7
    assert await shop.value("SELECT array_agg(DISTINCT lapses) FROM kie_tasks") == [0]


class Hanging:
    """A decoder that comes to no end before it is let go, in as many threads as pictures."""

    def __init__(self, pictures: int) -> None:
        self.let_go = threading.Event()
        self._in_hand = threading.Barrier(pictures + 1)

    def work(self, data: bytes) -> Developed:
        self._in_hand.wait()
        self.let_go.wait()
        return develop_now(data)

    async def have_all_in_hand(self) -> None:
        await asyncio.to_thread(self._in_hand.wait)


async def _hang(shop: Shop, monkeypatch: pytest.MonkeyPatch, seconds: float | None) -> Hanging:
    """All seven pictures of a set are in a decoder's hands."""
    monkeypatch.setattr(pictures_here, "THREADS", 7)
    await _storing(shop)
    hanging = Hanging(7)
    here = DeveloperHere(hangs_after_seconds=seconds, work=hanging.work)
    shop.darkroom = replace(shop.darkroom, develop=here.develop)
    return hanging


async def test_a_picture_whose_decoder_hangs_is_given_up_and_opened_apart_the_next_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = await _hang(shop, monkeypatch, 0.5)
    apart = DeveloperApart()
    shop.darkroom = replace(shop.darkroom, develop_apart=apart.develop)
    round_ = asyncio.create_task(collect_due_photos(shop.darkroom))
    await hanging.have_all_in_hand()
    await round_
    assert set(await shop.statuses()) == {"storing"}
    assert await shop.rows(
        "SELECT DISTINCT lapses, bad_results, last_error, lease_until IS NULL AS free FROM kie_tasks"
    ) == [
        {"lapses": APART_AFTER, "bad_results": 0, "last_error": "not opened in 0.5 s", "free": True}
    ]
    await shop.advance(120)
    await collect_due_photos(shop.darkroom)
    await apart.close()
    assert set(await shop.statuses()) == {"completed"}
    assert await shop.value("SELECT count(*) FROM task_attempts") == 7
    hanging.let_go.set()


async def test_whose_decoder_hangs_holds_up_no_other_picture_and_no_look_up_of_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the threads of all others six such pictures stopped the process, until somebody started it anew."""
    monkeypatch.setattr(pictures_here, "THREADS", 2)
    hanging = Hanging(2)
    bad, good = b"hangs", picture_of(1)

    def work(data: bytes) -> Developed:
        return hanging.work(data) if data == bad else develop_now(data)

    here = DeveloperHere(hangs_after_seconds=0.5, work=work)
    stuck = [asyncio.create_task(here.develop(bad)) for _ in range(2)]
    await hanging.have_all_in_hand()
    outcomes = await asyncio.gather(*stuck, return_exceptions=True)
    assert [type(one) for one in outcomes] == [DecoderHangsError] * 2
    assert (await here.develop(good)).thumbnail is not None
    assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    hanging.let_go.set()


async def test_without_the_limit_it_keeps_its_lease_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the first with its guard removed."""
    hanging = await _hang(shop, monkeypatch, None)
    round_ = asyncio.create_task(collect_due_photos(shop.darkroom))
    await hanging.have_all_in_hand()
    limits = shop.darkroom.limits
    for _ in range(3):
        await shop.advance(limits.lease_seconds - 1)
        await shop.darkroom.leases.renew()
        async with shop.darkroom.database.connection() as tx:
            claimed = await claim_storing(
                tx, limit=limits.batch, lease_seconds=limits.lease_seconds, dying_seconds=0
            )
        assert claimed == []
    assert not round_.done()
    hanging.let_go.set()
    await round_
