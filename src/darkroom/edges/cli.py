"""`darkroom`: everything an operator does from a terminal."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom.config import Settings
from darkroom.core.audit import ALL_QUESTIONS, Report, run_audit
from darkroom.core.dead_letters import DeadLetter
from darkroom.db.migrate import migrate
from darkroom.edges.books import add_books
from darkroom.edges.bucket_audit import audit_stored_bytes
from darkroom.edges.cli_funnel import add_funnel
from darkroom.edges.cli_people import add_people
from darkroom.edges.cli_qstash import qstash_cli
from darkroom.edges.cli_refunds import refunds_cli
from darkroom.edges.demo import run_demo
from darkroom.edges.doctor import add_doctor
from darkroom.edges.serve import serve, work
from darkroom.edges.spend import add_spend
from darkroom.edges.terminal import (
    Wires,
    console,
    fail,
    run,
    say_if_cut,
    settings_or_exit,
    show_report,
)
from darkroom.flow.forget_me import forget_telegram_user
from darkroom.flow.place_dev_order import DevOrder, place_dev_order
from darkroom.flow.recognize_store import adopt_store
from darkroom.flow.replay_letters import LIST_MAX as LETTERS_MAX
from darkroom.flow.replay_letters import Replays, read_dead_letters, replay_letters
from darkroom.flow.stock_catalog import CatalogFileError, export_catalog, stock_catalog
from darkroom.kit.log import configure_logging

BUCKET_PHOTOS: Final = 500
"""Photos that `audit --bucket` reads when nobody says how many: a minute, at 20 MB a second."""


def build_cli(wires: Wires) -> typer.Typer:
    """The command line over the joined parts."""
    app = typer.Typer(
        help="Darkroom: one payment, one generation; every photo or its money.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    _add_serving(app, wires)
    _add_database(app, wires)
    add_books(app, wires)
    add_doctor(app, wires)
    add_spend(app, wires)
    add_funnel(app, wires)
    _add_twins(app, wires)
    _add_torture(app, wires)
    _add_leaving(app, wires)
    add_people(app, wires)
    app.add_typer(_dev(wires), name="dev")
    app.add_typer(_catalog(wires), name="catalog")
    app.add_typer(_letters(wires), name="dead-letters")
    app.add_typer(refunds_cli(wires), name="refunds")
    app.add_typer(qstash_cli(wires), name="qstash")
    return app


def _add_serving(app: typer.Typer, wires: Wires) -> None:
    @app.command("run")
    def run_everything() -> None:
        """API and worker in one process, everything embedded unless configured."""
        run(serve(wires, settings_or_exit(), with_worker=True))

    @app.command("serve")
    def serve_only() -> None:
        """The API alone; workers run elsewhere."""
        run(serve(wires, settings_or_exit(), with_worker=False))

    @app.command("worker")
    def worker_only() -> None:
        """A worker alone; any number of them, anywhere."""
        run(work(wires, settings_or_exit()))

    @app.command("demo")
    def demo(
        tier: Annotated[str, typer.Option(help="starter, standard or premium")] = "starter",
        style: Annotated[str, typer.Option(help="a style of the catalog")] = "signature",
        folder: Annotated[Path, typer.Option(help="where the photos go")] = Path("demo-photos"),
    ) -> None:
        """One whole order from payment to photos, on a database of its own, then the audit."""
        sys.exit(run(run_demo(wires, tier=tier, style=style, folder=folder)))

    @app.command("rehearse")
    def rehearse(
        seed: Annotated[int, typer.Option(min=0, help="the same seed, the same faults")] = 1,
        orders: Annotated[int, typer.Option(min=1, max=50, help="sets to sell")] = 2,
        faults: Annotated[
            float, typer.Option(min=0, max=60, help="percent of requests that go wrong")
        ] = 15,
        tier: Annotated[str, typer.Option(help="starter, standard or premium")] = "starter",
        style: Annotated[str, typer.Option(help="a style of the catalog")] = "signature",
        *,
        folder: Annotated[Path, typer.Option(help="where the photos go")] = Path("demo-photos"),
    ) -> None:
        """Orders through stand-ins of kie.ai, QStash, S3 and a bank, without a worker, under faults."""
        sys.exit(
            run(
                wires.rehearse(
                    seed=seed,
                    orders=orders,
                    fault_percent=faults,
                    tier=tier,
                    style=style,
                    photos_folder=folder,
                )
            )
        )


def _add_twins(app: typer.Typer, wires: Wires) -> None:
    @app.command("twin")
    def twin(
        seed: Annotated[int, typer.Option(min=0, help="the same seed, the same faults")] = 1,
        faults: Annotated[
            float, typer.Option(min=0, max=60, help="percent of requests that go wrong")
        ] = 0,
        public_url: Annotated[
            str, typer.Option(help="how the stand-ins reach your Darkroom")
        ] = "http://127.0.0.1:8000",
        env_file: Annotated[Path, typer.Option(help="where the variables go")] = Path("twin.env"),
    ) -> None:
        """Stand-ins of kie.ai, QStash, S3 and a bank on loopback, until stopped, to point a Darkroom at."""
        sys.exit(
            run(
                wires.run_twins(
                    seed=seed, fault_percent=faults, public_url=public_url, file=env_file
                )
            )
        )


def _add_torture(app: typer.Typer, wires: Wires) -> None:
    @app.command("torture")
    def torture(
        seed: Annotated[int, typer.Option(min=0, help="the same seed, the same day")] = 1,
        orders: Annotated[int, typer.Option(min=1, max=10_000, help="sets to sell")] = 50,
        minutes: Annotated[float, typer.Option(min=0.1, max=600, help="how long it hurts")] = 1,
        workers: Annotated[int, typer.Option(min=1, max=32, help="worker processes")] = 2,
        design: Annotated[
            str, typer.Option(help="darkroom, or previous: the older design")
        ] = "darkroom",
        *,
        photos_failed: Annotated[
            float, typer.Option(min=0, max=100, help="percent of photos that fail for good")
        ] = 5,
        calm: Annotated[bool, typer.Option("--calm", help="nobody dies: the money alone")] = False,
        full: Annotated[
            bool, typer.Option("--full", help="also an S3 store and QStash, both failing")
        ] = False,
    ) -> None:
        """Sell while processes, database and networks die. Exit code 0: nothing lost, doubled, unexplained."""
        sys.exit(
            run(
                wires.run_torture(
                    seed=seed,
                    orders=orders,
                    minutes=minutes,
                    workers=workers,
                    design=design,
                    photos_failed_percent=photos_failed,
                    is_calm=calm,
                    is_full=full,
                )
            )
        )


def _add_database(app: typer.Typer, wires: Wires) -> None:
    @app.command("migrate")
    def migrate_database() -> None:
        """Bring the schema up to date. Safe twice, and by two processes at once."""
        settings = settings_or_exit()
        applied = run(_migrate(wires, settings))
        console.print(f"{applied} migrations applied" if applied else "nothing to migrate")

    @app.command("adopt-store")
    def adopt(
        from_database: Annotated[
            UUID | None,
            typer.Option(help="the database whose store it is now, as the refusal says"),
        ] = None,
    ) -> None:
        """Say that the configured object store is the one from now on. What another holds stays there."""
        run(_adopt_store(wires, settings_or_exit(), from_database))
        console.print("the object store bears this database's mark")

    @app.command("audit")
    def audit(
        *,
        bucket: Annotated[
            bool, typer.Option("--bucket", help="the stored bytes instead: read, hash, decode")
        ] = False,
        limit: Annotated[
            int, typer.Option(min=1, help="with --bucket: so many, the longest unread first")
        ] = BUCKET_PHOTOS,
        all_photos: Annotated[
            bool, typer.Option("--all", help="with --bucket: every photo")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    ) -> None:
        """Ask every promise of the database. Exit code 0: all hold. 1: not all; the rows are shown."""
        settings = settings_or_exit()
        if bucket:
            most = None if all_photos else limit
            sys.exit(audit_stored_bytes(wires, settings, limit=most, as_json=as_json))
        report = run(_audit(wires, settings))
        if as_json:
            print(json.dumps(_plain(report), ensure_ascii=False, default=str))  # noqa: T201 - for pipes
        else:
            show_report(report)
        sys.exit(0 if report.clean else 1)


def _add_leaving(app: typer.Typer, wires: Wires) -> None:
    @app.command("forget")
    def forget(
        telegram_user: Annotated[int, typer.Option(help="Telegram id of the customer", min=1)],
    ) -> None:
        """Erase a customer: pictures and personal data. The books and the counts stay."""
        user_id = run(_forget(wires, settings_or_exit(), telegram_user))
        if user_id is None:
            console.print("no such customer, or they left before")
        else:
            console.print(f"user {user_id} is signed out; a worker erases the rest")


async def _adopt_store(wires: Wires, settings: Settings, from_database: UUID | None) -> None:
    async with wires.open_darkroom(settings) as darkroom:
        await adopt_store(darkroom, from_database=from_database)


async def _forget(wires: Wires, settings: Settings, telegram_user_id: int) -> int | None:
    async with wires.open_darkroom(settings) as darkroom:
        return await forget_telegram_user(darkroom, telegram_user_id)


def _plain(report: Report) -> dict[str, object]:
    return {"clean": report.clean, **dataclasses.asdict(report)}


async def _migrate(wires: Wires, settings: Settings) -> int:
    async with wires.open_database(settings) as database:
        return await migrate(database, console.print)


async def _audit(wires: Wires, settings: Settings) -> Report:
    errors = Console(stderr=True)
    async with wires.open_database(settings) as database:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        ) as progress:
            bar = progress.add_task("asking", total=len(ALL_QUESTIONS))
            # One less: what is being asked is not yet answered.
            numbers = itertools.count()

            def asked(name: str) -> None:
                progress.update(bar, completed=next(numbers), description=name.replace("_", " "))

            return await run_audit(database, asked=asked)


def _dev(wires: Wires) -> typer.Typer:
    dev = typer.Typer(help="For developers: rows to try things with.", no_args_is_help=True)

    @dev.callback()
    def only_in_demo_mode() -> None:
        """For developers: rows to try things with."""

    @dev.command("order")
    def order(
        telegram_user: Annotated[int, typer.Option(help="Telegram id of the customer")],
        avatar: Annotated[int, typer.Option(help="id of the avatar to make")],
        tier: Annotated[str, typer.Option(help="what was bought")] = "starter",
        *,
        paid: Annotated[bool, typer.Option("--paid", help="with a payment to spend")] = False,
    ) -> None:
        """A user, an avatar with a selfie, and with --paid a payment that one generation may use."""
        settings = settings_or_exit()
        if settings.mode != "demo":
            fail("developers' orders exist in demo mode only: set DARKROOM_MODE=demo", code=2)
        configure_logging(settings.log_shape)
        made = run(
            _dev_order(
                wires,
                settings,
                telegram_user=telegram_user,
                avatar=avatar,
                tier=tier if paid else None,
            )
        )
        console.print(
            f"user {made.user_id}, avatar {made.avatar_id}, payment {made.payment_id or 'none'}"
        )

    return dev


async def _dev_order(
    wires: Wires, settings: Settings, *, telegram_user: int, avatar: int, tier: str | None
) -> DevOrder:
    async with wires.open_darkroom(settings) as darkroom:
        await migrate(darkroom.database)
        await stock_catalog(darkroom.database, wires.bundled_catalog(), only_if_empty=True)
        return await place_dev_order(
            darkroom,
            telegram_user_id=telegram_user,
            avatar_id=avatar,
            tier_id=tier,
            selfie=wires.bundled_portrait(),
        )


def _catalog(wires: Wires) -> typer.Typer:
    catalog = typer.Typer(help="Tiers, prices, styles and prompts.", no_args_is_help=True)

    @catalog.callback()
    def about() -> None:
        """Tiers, prices, styles and prompts."""

    @catalog.command("import")
    def import_file(
        file: Annotated[Path, typer.Argument(help="a catalog.toml", exists=True, dir_okay=False)],
    ) -> None:
        """Write a catalog file into the tables. What was bought before does not change."""
        text = file.read_text(encoding="utf-8")
        try:
            run(_import(wires, settings_or_exit(), text))
        except CatalogFileError as error:
            fail(str(error))
        console.print("catalog imported")

    @catalog.command("export")
    def export_file() -> None:
        """Print the catalog as a file that import reads back."""
        print(run(_export(wires, settings_or_exit())), end="")  # noqa: T201 - for a file

    return catalog


async def _export(wires: Wires, settings: Settings) -> str:
    async with wires.open_database(settings) as database:
        return await export_catalog(database)


def _letters(wires: Wires) -> typer.Typer:
    letters = typer.Typer(help="Photos that failed for good.", no_args_is_help=True)

    @letters.command("list")
    def list_letters() -> None:
        """Every open dead letter, and whether its money is going back already."""
        found = run(_list_letters(wires, settings_or_exit()))
        table = Table("letter", "job", "photo", "provider", "error", "replay")
        for letter in found[:LETTERS_MAX]:
            table.add_row(
                str(letter.id),
                str(letter.job_id),
                str(letter.prompt_index + 1),
                escape(letter.provider),
                escape(f"{letter.error_code}: {letter.error_text}"[:60]),
                "yes" if letter.replayable else "no",
            )
        console.print(table if found else "no dead letters")
        say_if_cut(found, LETTERS_MAX)

    @letters.command("replay")
    def replay(
        letter: Annotated[int | None, typer.Argument(help="a letter's number; none: all")] = None,
        provider: Annotated[str | None, typer.Option(help="with another provider")] = None,
    ) -> None:
        """Give failed photos another try. Never one whose money is going back."""
        done = run(_replay(wires, settings_or_exit(), letter, provider))
        console.print(f"{done.replayed} replayed, {done.kept} kept")

    return letters


async def _list_letters(wires: Wires, settings: Settings) -> list[DeadLetter]:
    async with wires.open_darkroom(settings) as darkroom:
        return await read_dead_letters(darkroom)


async def _replay(
    wires: Wires, settings: Settings, letter: int | None, provider: str | None
) -> Replays:
    async with wires.open_darkroom(settings) as darkroom:
        return await replay_letters(darkroom, letter, provider=provider)


async def _import(wires: Wires, settings: Settings, text: str) -> None:
    async with wires.open_database(settings) as database:
        await migrate(database)
        await stock_catalog(database, text, only_if_empty=False)
