"""How far people come: each first time once, with what made it true, or not at all."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import date
from uuid import uuid4

import pytest
from rich.console import Console
from typer.testing import CliRunner

from darkroom.config import IsolatedSettings, Settings
from darkroom.core import funnel
from darkroom.core.funnel import STEPS, Cohort, Funnel, FunnelDay, read_funnel
from darkroom.core.people import create_avatar, ensure_user
from darkroom.db.database import Database, DatabaseRefusedError
from darkroom.db.migrate import list_migrations
from darkroom.edges import cli_funnel
from darkroom.edges.cli import build_cli
from darkroom.edges.cli_funnel import show_funnel
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.forget_me import forget_leavers, forget_me
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.sign_in import know_person, sign_in
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.identity import Person
from tests.scripted import picture_of
from tests.shop import Customer, Shop
from tests.wires import wires_of

DAY = 86_400


class CrashError(Exception):
    """The process is gone."""


async def steps_of(shop: Shop, user_id: int) -> list[str]:
    """In the order they were done."""
    rows = await shop.rows("SELECT step FROM funnel_steps WHERE user_id = %s ORDER BY at", user_id)
    return [row["step"] for row in rows]


async def times(shop: Shop) -> dict[tuple[int, str], object]:
    rows = await shop.rows("SELECT user_id, step, at FROM funnel_steps")
    return {(row["user_id"], row["step"]): row["at"] for row in rows}


async def buys(shop: Shop, customer: Customer) -> int:
    """Ordered, paid by the bank's notice, made."""
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.drain()
    return payment_id


async def test_each_step_is_there_as_soon_as_it_is_true(shop: Shop) -> None:
    async with shop.database.connection() as tx:
        user_id = await ensure_user(tx, 501)
        avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
    assert await steps_of(shop, user_id) == ["opened"]
    await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture_of(-avatar_id))
    assert await steps_of(shop, user_id) == ["opened", "uploaded"]
    customer = Customer(user_id, avatar_id, 501)
    payment_id = await shop.ordered(customer, order_style="signature")
    assert await steps_of(shop, user_id) == ["opened", "uploaded", "chose"]
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.step("notice")
    assert await steps_of(shop, user_id) == ["opened", "uploaded", "chose", "paid"]
    await shop.drain()
    assert await steps_of(shop, user_id) == list(STEPS)


async def test_the_first_time_stays_the_first_time(shop: Shop) -> None:
    customer = await shop.customer()
    await buys(shop, customer)
    before = await times(shop)
    await shop.advance(10 * DAY)
    person = Person(telegram_user_id=customer.telegram_user_id, locale="ru")
    await know_person(shop.darkroom, person)
    await sign_in(shop.darkroom, person)
    await add_selfie(shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(7))
    await buys(shop, customer)
    assert await times(shop) == before


async def test_money_that_is_found_by_asking_or_comes_late_counts(shop: Shop) -> None:
    asked, late = await shop.customer(), await shop.customer()
    of_asked = await shop.ordered(asked, order_style="signature")
    of_late = await shop.ordered(late, order_style="signature")
    shop.bank.pays(of_asked)
    await shop.advance(3 * DAY)
    await shop.drain()
    assert "paid" in await steps_of(shop, asked.user_id)
    assert await shop.value("SELECT status FROM payments WHERE id = %s", of_late) == "expired"
    assert "paid" not in await steps_of(shop, late.user_id)
    shop.bank.pays(of_late)
    await shop.notify(of_late)
    await shop.drain()
    assert await steps_of(shop, late.user_id) == list(STEPS)


async def test_a_free_set_is_neither_chosen_nor_paid_but_got(shop: Shop) -> None:
    customer = await shop.customer()
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=uuid4()
    )
    await shop.start(customer)
    await shop.drain()
    assert await steps_of(shop, customer.user_id) == ["opened", "uploaded", "got"]


async def test_a_set_without_a_photo_is_not_got(shop: Shop) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.step("notice")
    await shop.rows("UPDATE generation_jobs SET deadline_at = darkroom_now() RETURNING id")
    await shop.rows("UPDATE generation_jobs SET due_at = darkroom_now() RETURNING id")
    await shop.step("finish")
    assert await shop.value("SELECT status FROM generation_jobs") == "failed"
    assert await steps_of(shop, customer.user_id) == ["opened", "uploaded", "chose", "paid"]
    await shop.drain()


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("selfie.before_commit", "uploaded"),
        ("order.before_commit", "chose"),
        ("finish.before_commit", "got"),
    ],
)
async def test_a_crash_before_the_commit_loses_both_and_the_next_try_makes_both(
    shop: Shop, place: str, step: str
) -> None:
    async with shop.database.connection() as tx:
        user_id = await ensure_user(tx, 502)
        avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
    struck = False

    async def refuse_one(request: GenerationRequest) -> FailedThere | None:
        # Of a set that has all its photos the step is a part of the one statement that ends it.
        return FailedThere("501", "no", Again.NEVER) if request.prompt_index == 3 else None

    shop.provider.on_ask = refuse_one

    async def strike(name: str) -> None:
        nonlocal struck
        if name == place and not struck:
            struck = True
            assert step not in await steps_of(shop, user_id)
            raise CrashError

    async def story() -> None:
        await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture_of(-avatar_id))
        await buys(shop, Customer(user_id, avatar_id, 502))

    with checkpoints_handled_by(strike):
        try:
            await story()
        except CrashError:
            assert step not in await steps_of(shop, user_id)
            await story()
    assert struck
    assert await steps_of(shop, user_id) == list(STEPS)


async def test_nobody_is_known_who_never_opened(shop: Shop) -> None:
    """Also where no transaction is open: one statement makes the row and its first step."""
    async with shop.database.connection() as tx:
        await tx.execute("ALTER TABLE funnel_steps ADD CONSTRAINT broken CHECK (FALSE) NOT VALID")
    with pytest.raises(DatabaseRefusedError):
        await know_person(shop.darkroom, Person(telegram_user_id=503, locale="ru"))
    assert await shop.value("SELECT count(*) FROM users WHERE telegram_user_id = 503") == 0


async def test_somebody_who_signs_in_ten_times_at_once_opened_once(shop: Shop) -> None:
    person = Person(telegram_user_id=504, locale="ru")
    opened = await asyncio.gather(*(sign_in(shop.darkroom, person) for _ in range(10)))
    assert len({one.user_id for one in opened}) == 1
    assert await steps_of(shop, opened[0].user_id) == ["opened"]


async def test_two_sets_that_end_at_once_are_got_once(shop: Shop) -> None:
    customer = await shop.customer()
    for _ in range(2):
        await shop.paid(customer)
        await shop.start(customer)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM funnel_steps WHERE step = 'got'") == 1


async def test_the_steps_of_who_left_stay_as_counts(shop: Shop) -> None:
    customer = await shop.customer()
    await buys(shop, customer)
    before = await times(shop)
    await forget_me(shop.darkroom, user_id=customer.user_id)
    await shop.drain()
    await shop.advance(DAY)
    await forget_leavers(shop.darkroom)
    await shop.drain()
    assert await times(shop) == before
    columns = await shop.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'funnel_steps'"
    )
    assert {row["column_name"] for row in columns} == {"user_id", "step", "at"}
    # The row they hang on names nobody any more.
    row = (await shop.rows("SELECT * FROM users WHERE id = %s", customer.user_id))[0]
    assert row["forgotten_at"] is not None
    assert row["telegram_user_id"] is None
    assert row["forgotten_telegram_user_id"] is None


async def test_the_migration_counts_who_was_here_before(shop: Shop) -> None:
    """What it reads off the books is what was noted as it happened."""
    await buys(shop, await shop.customer())
    await shop.customer()
    await grant_photos(
        shop.darkroom,
        user_id=(await shop.customer()).user_id,
        tier_id="starter",
        request_id=uuid4(),
    )
    noted = await times(shop)
    sql = next(one.sql for one in list_migrations() if one.version == 50)
    backfill = sql[sql.index("INSERT INTO funnel_steps") :]
    async with shop.database.transaction() as tx:
        await tx.execute("DELETE FROM funnel_steps")
        await tx.execute(backfill.encode())
    assert set(await times(shop)) == set(noted)


async def fill(database: Database, days_ago: dict[int, tuple[str, ...]]) -> None:
    """People who opened so many days ago and took these steps on that day."""
    async with database.connection() as tx:
        for number, (days, steps) in enumerate(days_ago.items()):
            await tx.execute("INSERT INTO users (telegram_user_id) VALUES (%s)", [9000 + number])
            await tx.execute(
                "INSERT INTO funnel_steps SELECT u.id, s, darkroom_now() - make_interval(days => %s) "
                "FROM users u, unnest(%s::TEXT[]) AS s WHERE u.telegram_user_id = %s",
                [days, list(steps), 9000 + number],
            )


async def test_the_report_counts_the_days_it_is_asked_for(shop: Shop) -> None:
    await fill(
        shop.database,
        {0: ("opened", "uploaded"), 1: ("opened",), 2: STEPS, 3: STEPS, 400: STEPS},
    )
    async with shop.database.connection() as tx:
        # Of somebody who opened before the window: a first time of the day, and nobody of the cohort.
        await tx.execute(
            "UPDATE funnel_steps SET at = darkroom_now() WHERE step = 'paid' "
            "AND at < darkroom_now() - INTERVAL '300 days'"
        )
        found = await read_funnel(tx, days=3)
        whole = await read_funnel(tx, days=366)
    assert [tuple(asdict(day).values())[1:] for day in found.days] == [
        (1, 1, 1, 1, 1),
        (1, 0, 0, 0, 0),
        (1, 1, 0, 1, 0),
    ]
    assert found.cohort == Cohort(opened=3, uploaded=2, chose=1, paid=1, got=1)
    assert len(whole.days) == 366
    assert whole.cohort.opened == 4


@pytest.mark.parametrize("days", [0, -1, 367])
async def test_days_are_bounded(shop: Shop, days: int) -> None:
    async with shop.database.connection() as tx:
        with pytest.raises(ValueError, match="1 to 366"):
            await read_funnel(tx, days=days)


async def test_the_report_reads_its_days_and_not_the_years_before(shop: Shop) -> None:
    async with shop.database.connection() as tx:
        await tx.execute(
            "INSERT INTO users (telegram_user_id, created_at) SELECT 10000 + n, darkroom_now() - n * "
            "INTERVAL '2 hours' FROM generate_series(1, 20000) AS n"
        )
        await tx.execute(
            "INSERT INTO funnel_steps SELECT u.id, s, u.created_at "
            "FROM users u, unnest(%s::TEXT[]) AS s WHERE u.telegram_user_id > 10000",
            [list(STEPS)],
        )
        await tx.execute("ANALYZE funnel_steps")
        since = await shop.value("SELECT darkroom_now() - INTERVAL '30 days'")
        for query in (funnel._DAYS, funnel._COHORT):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            cursor = await tx.execute(
                b"EXPLAIN " + query.encode(), {"days": 30, "since": since, "steps": list(STEPS)}
            )
            plan = "\n".join(str(row[0]) for row in await cursor.fetchall())
            assert "Seq Scan on funnel_steps" not in plan
            assert "idx_funnel_steps_time" in plan


def test_the_command_prints_for_machines(dsn: str) -> None:
    @asynccontextmanager
    async def open_database(_settings: Settings) -> AsyncGenerator[Database]:
        database = Database(dsn, pool_size=2)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    async def prepare() -> None:
        async with open_database(IsolatedSettings()) as database:  # pyright: ignore[reportCallIssue]
            await fill(database, {0: ("opened", "uploaded"), 1: ("opened",)})

    asyncio.run(prepare())
    command = build_cli(wires_of(open_database=open_database))
    result = CliRunner().invoke(command, ["funnel", "--days", "2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["totals"] == {"opened": 2, "uploaded": 1, "chose": 0, "paid": 0, "got": 0}
    assert found["cohort"] == found["totals"]
    assert [day["opened"] for day in found["days"]] == [1, 1]


def test_the_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(highlight=False, width=80, record=True)
    monkeypatch.setattr(cli_funnel, "console", console)
    day = FunnelDay(date(2026, 11, 27), 1_234_567, 234_567, 34_567, 4_567, 567)
    show_funnel(Funnel((day,), Cohort(1_234_567, 617_283, 34_567, 4_567, 0)))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "50.0%" in text
    assert text.count("█") == 40 + 20 + 1
    show_funnel(Funnel((FunnelDay(date(2026, 11, 27), 0, 0, 0, 0, 0),), Cohort(0, 0, 0, 0, 0)))
    assert "%" not in console.export_text().replace("of", "")
