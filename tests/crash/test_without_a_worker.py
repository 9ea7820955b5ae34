"""Orders on hosting that keeps no process: only calls, killed in the middle, doubled, or not made at all.

The real program in instances that are frozen between calls; kie.ai, QStash, a real S3 server and a bank on
loopback, under faults from a seed. What is judged: the audit, the stored bytes, the bank's list, kie.ai's bill.
"""

import io
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from darkroom.rehearsal.run import Rehearsal, run_rehearsal
from darkroom.twin.hosting import BODY_BYTES_MAX, HostHabits, Hosting

Tell = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("clocks", ["queue and cron", "cron alone", "queue alone"])
async def test_calls_alone_make_every_photo(
    tmp_path: Path, record_property: Tell, clocks: str
) -> None:
    """bugbook B24, bugbook C1: work that a call had begun in the background died with the call."""
    out = io.StringIO()
    wish = Rehearsal(
        seed=3,
        orders=1,
        fault_percent=15,
        tier="starter",
        style="creative",
        photos_folder=tmp_path / "photos",
        has_queue="queue" in clocks,
        has_cron="cron" in clocks,
    )
    code = await run_rehearsal(wish, Console(file=out, width=80))
    said = out.getvalue()
    assert code == 0, said
    assert len(list((tmp_path / "photos").glob("0*.jpg"))) == 7
    assert " 0 killed in the middle" not in said
    record_property("told", f"no worker, {clocks}: " + " ".join(said.split("photos 7")[-1].split()))


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncGenerator[Hosting]:
    host = Hosting({}, HostHabits(), tmp_path / "log", application="tests.crash.hosted:app")
    async with host.running():
        yield host


@pytest.fixture
async def client(hosting: Hosting) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hosting.base_url, trust_env=False, timeout=60) as http:
        yield http


async def test_the_host_freezes_kills_and_refuses_as_it_says(
    hosting: Hosting, client: httpx.AsyncClient
) -> None:
    """The stand-in itself: an instance stands still between calls, and dies without a word in one."""
    first = (await client.get("/pid")).text
    assert (await client.get("/pid")).text == first, "the same instance, thawed"
    ticks = int((await client.get("/ticks")).text)
    for _ in range(3):
        await client.get("/pid")
    # What ran beside the calls ran only while there was one.
    assert int((await client.get("/ticks")).text) - ticks < 40
    hosting.habits.doomed["/hang"] = 0.2
    assert (await client.get("/hang")).status_code == 504
    assert (await client.get("/pid")).text != first
    assert hosting.counted["killed in the middle"] == 1
    assert hosting.counted["cold starts"] == 2
    large = await client.post("/pid", content=bytes(BODY_BYTES_MAX + 1))
    assert large.status_code == 413
    hosting.habits.call_seconds = 0.2
    assert (await client.get("/hang")).status_code == 504
    assert hosting.counted["killed at the limit"] == 1
