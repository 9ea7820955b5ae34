"""`darkroom torture`: the same seed, the same day; a judge who can say no; one short run of the real thing."""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from darkroom.core.audit import run_audit
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.torture.begin import begin_torture
from darkroom.torture.design import Made, Sold, Surroundings
from darkroom.torture.ours import Ours
from darkroom.torture.plan import make_plan
from darkroom.torture.recovery import percentile
from darkroom.torture.run import Wish, run_torture
from darkroom.torture.view import Scene
from tests.scripted import picture_of
from tests.shop import Shop


def test_the_same_seed_draws_the_same_day() -> None:
    plan = make_plan(7, orders=50, minutes=3, workers=4)
    assert plan == make_plan(7, orders=50, minutes=3, workers=4)
    assert plan != make_plan(8, orders=50, minutes=3, workers=4)
    assert {blow.kind for blow in plan.blows} == {"worker", "server", "database", "freeze"}
    assert all(0 < blow.at_seconds < plan.seconds for blow in plan.blows)
    assert {order.by_notice for order in plan.orders} == {True, False}


@pytest.mark.timeout(240)
async def test_a_short_day_ends_with_nothing_lost_doubled_or_unexplained(
    record_property: Callable[[str, object], None],
) -> None:
    """Real processes, SIGKILL, a network that fails, an embedded PostgreSQL: what people run, smaller."""
    out = io.StringIO()
    console = Console(file=out, width=80)
    code = await run_torture(Wish(seed=1, orders=6, minutes=0.2, workers=2), Ours(), console)
    lines = out.getvalue().strip().splitlines()
    last = lines[-1]
    assert code == 0, out.getvalue()
    assert last.startswith("orders 6 · photos ")
    assert last.endswith("lost 0 · doubled 0 · unexplained 0")
    assert "faults survived 0" not in last
    for line in (*(line for line in lines if line.startswith("work goes on")), last):
        record_property("told", f"torture: {line}")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_short_day_with_a_rented_store_and_queue_ends_as_well(
    record_property: Callable[[str, object], None],
) -> None:
    """Also a real S3 server behind a proxy that fails, links that are read, signed callbacks, and a queue."""
    out = io.StringIO()
    console = Console(file=out, width=80)
    wish = Wish(seed=2, orders=6, minutes=0.25, workers=2, is_full=True)
    code = await run_torture(wish, Ours(), console)
    lines = out.getvalue().strip().splitlines()
    assert code == 0, out.getvalue()
    assert lines[-1].endswith("lost 0 · doubled 0 · unexplained 0")
    places = {line.split()[1] for line in lines if line.strip()[:1].isdigit()}
    # The queue has a handful of messages in such a day: perhaps none of them meets a fault.
    assert "store" in places, out.getvalue()
    (rented,) = [line for line in lines if line.startswith("queue: ")]
    assert not rented.startswith("queue: 0 rings")
    for line in (*(line for line in lines if line.startswith("work goes on")), rented, lines[-1]):
        record_property("told", f"torture --full: {line}")


async def test_the_older_design_is_not_tortured_with_what_it_does_not_rent() -> None:
    with pytest.raises(SystemExit) as left:
        await begin_torture(
            seed=1,
            orders=1,
            minutes=0.1,
            workers=1,
            design="previous",
            photos_failed_percent=0,
            is_calm=False,
            is_full=True,
        )
    assert left.value.code == 2


def test_what_people_watch_fits_into_80_columns() -> None:
    out = io.StringIO()
    scene = Scene("darkroom", 1, 60, 200, ordered=200, workers=4)
    scene.faults.update({"database network: cut_after_commit": 12345, "killed: worker": 9})
    Console(file=out, width=80).print(scene.draw())
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= 80
    assert "12345  database network" in out.getvalue()


def _places(shop: Shop, dsn: str, folder: Path) -> Surroundings:
    nowhere = "http://127.0.0.1:9"
    (folder / "objects").symlink_to(next(folder.glob("objects-*")))
    assert shop.darkroom.store is not None
    return Surroundings(folder, dsn, dsn, 9, nowhere, nowhere, "", nowhere, "", "")


async def _sold_out(shop: Shop) -> tuple[Sold, list[Made]]:
    _, job = await shop.sold()
    await shop.drain()
    row = (await shop.rows("SELECT * FROM payments WHERE id = %s", job.payment_id))[0]
    sold = Sold(row["id"], row["photo_count"], row["amount_minor"], 1, frozenset({job.id}))
    made = [
        Made(
            str(request.token),
            request.prompt,
            tuple(f"https://shop.example/{one.object_key}" for one in request.references),
            hashlib.sha256(picture_of(request.task_id)).hexdigest(),
        )
        for request in shop.provider.created.values()
    ]
    return sold, made


async def test_the_judge_finds_nothing_where_nothing_is(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    sold, made = await _sold_out(shop)
    verdict = await Ours().judge(_places(shop, dsn, tmp_path), [sold], made)
    assert verdict.clean
    assert verdict.photos == 7


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"payment_id": 999}, "lost"),
        ({"payment_id": None, "paid_minor": 0, "bank_payments": 0}, "lost"),
        ({"payment_ids": frozenset({1, 2})}, "doubled"),
        ({"bank_payments": 2}, "doubled"),
        ({"job_ids": frozenset({999})}, "doubled"),
        ({"paid_minor": 1}, "unexplained"),
        ({"paid_minor": 0, "bank_payments": 0}, "unexplained"),
        ({"photos": 15}, "unexplained"),
        ({"price_minor": 99_900}, "unexplained"),
    ],
    ids=str,
)
async def test_the_judge_believes_the_outside(
    shop: Shop, dsn: str, tmp_path: Path, change: Mapping[str, Any], where: str
) -> None:
    """What the bank took and what customers were told is compared with our rows, not read from them."""
    sold, made = await _sold_out(shop)
    told = Sold(**{name: getattr(sold, name) for name in sold.__slots__} | dict(change))
    verdict = await Ours().judge(_places(shop, dsn, tmp_path), [told], made)
    assert getattr(verdict, where), verdict


async def test_the_judge_reads_the_bytes_and_the_providers_list(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    sold, made = await _sold_out(shop)
    places = _places(shop, dsn, tmp_path)
    photos = sorted((tmp_path / "objects" / "generated").rglob("*.*"))
    photos[0].unlink()
    photos[1].write_bytes(b"something else")
    verdict = await Ours().judge(
        places, [sold], [*made, made[0], replace(made[0], token="of-nobody")]
    )
    assert len(verdict.lost) == 2
    assert verdict.photos == 5
    assert len(verdict.doubled) == 1
    assert len(verdict.unexplained) == 1
    assert (await run_audit(shop.database)).clean, "the audit alone does not look at the disk"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, "not the picture that was made for it"),
        ({"sha256": None}, "not the picture that was made for it"),
        ({"prompt": "somebody else's"}, "another prompt than ours"),
        ({"links": ("https://shop.example/references/999/a.jpg",)}, "another's selfies"),
        ({"links": ()}, "another's selfies"),
    ],
    ids=str,
)
async def test_the_judge_asks_whose_picture_it_is(
    shop: Shop, dsn: str, tmp_path: Path, change: Mapping[str, Any], says: str
) -> None:
    """Each photo had its bytes, and our own hash of them: so has another's photo."""
    sold, made = await _sold_out(shop)
    made[3] = replace(made[3], **change)
    verdict = await Ours().judge(_places(shop, dsn, tmp_path), [sold], made)
    assert len(verdict.unexplained) == 1
    assert says in verdict.unexplained[0]


async def test_the_judge_counts_what_may_go_back_for_itself(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    """A refund that was too generous was clean, as long as we had written it down."""

    async def fail_one(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("400", "no", Again.NEVER) if request.prompt_index == 0 else None

    shop.provider.on_ask = fail_one
    sold, made = await _sold_out(shop)
    back = replace(sold, returned_minor=7129)
    places = _places(shop, dsn, tmp_path)
    assert (await Ours().judge(places, [back], made)).clean
    await shop.rows("UPDATE refunds SET amount_minor = 7131, settled_minor = 7131 RETURNING id")
    verdict = await Ours().judge(places, [replace(back, returned_minor=7131)], made)
    assert [one for one in verdict.doubled if "7131 go back where 7129 are missing" in one]
    shop.audit_at_end = False


def test_percentiles() -> None:
    assert percentile([], 0.99) is None
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([float(n) for n in range(100)], 0.99) == 99
