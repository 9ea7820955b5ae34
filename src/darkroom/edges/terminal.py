"""What every command shares: settings, a loop that stops in order, and how findings look."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from fastapi import FastAPI
from psycopg.errors import UndefinedColumn, UndefinedFunction, UndefinedTable
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from starlette.types import ASGIApp

from darkroom.config import Settings, SettingsError, read_settings
from darkroom.core.audit import Report
from darkroom.core.requests import UserLeftError
from darkroom.db.database import (
    Database,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    RowBusyError,
)
from darkroom.db.embedded import EmbeddedServerError
from darkroom.db.migrate import MigrationChangedError, TableBusyError
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.recognize_store import ForeignStoreError
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop
from darkroom.ports.checkup import Check
from darkroom.ports.schedules import Schedules
from darkroom.ports.storage import StorageUnavailableError

T = TypeVar("T")
console: Final = Console(highlight=False)
errors: Final = Console(stderr=True, highlight=False)


class BuildApplication(Protocol):
    """`wiring.build_application`."""

    def __call__(
        self,
        darkroom: Darkroom,
        settings: Settings,
        *,
        worker: Worker | None,
        mounts: dict[str, ASGIApp],
    ) -> FastAPI:
        """The server."""
        ...


class OpenChecks(Protocol):
    """`checks.open_checks`."""

    def __call__(self, settings: Settings) -> AbstractAsyncContextManager[Sequence[Check]]:
        """The checks of what is configured, and the parts they need, open while the block runs."""
        ...


class Rehearse(Protocol):
    """`rehearsal.begin_rehearsal`."""

    def __call__(
        self,
        *,
        seed: int,
        orders: int,
        fault_percent: float,
        tier: str,
        style: str,
        photos_folder: Path,
    ) -> Coroutine[Any, Any, int]:
        """The exit code."""
        ...


class RunTwins(Protocol):
    """`rehearsal.begin_twins`."""

    def __call__(
        self, *, seed: int, fault_percent: float, public_url: str, file: Path
    ) -> Coroutine[Any, Any, int]:
        """The exit code."""
        ...


class RunTorture(Protocol):
    """`torture.begin_torture`."""

    def __call__(
        self,
        *,
        seed: int,
        orders: int,
        minutes: float,
        workers: int,
        design: str,
        photos_failed_percent: float,
        is_calm: bool,
        is_full: bool,
    ) -> Coroutine[Any, Any, int]:
        """The exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Wires:
    """What `wiring` and `__main__` hand to the commands.

    Attributes:
        open_schedules: QStash's schedules; its token is set.
        open_mounts: applications beside ours by path: the sandbox bank where it is this server itself.
    """

    open_database: Callable[[Settings], AbstractAsyncContextManager[Database]]
    open_darkroom: Callable[[Settings], AbstractAsyncContextManager[Darkroom]]
    open_schedules: Callable[[Settings], AbstractAsyncContextManager[Schedules]]
    build_application: BuildApplication
    open_mounts: Callable[[Settings], AbstractAsyncContextManager[dict[str, ASGIApp]]]
    bundled_catalog: Callable[[], str]
    bundled_portrait: Callable[[], bytes]
    run_torture: RunTorture
    open_checks: OpenChecks
    rehearse: Rehearse
    run_twins: RunTwins


def settings_or_exit() -> Settings:
    """The settings, or one clear line and exit code 2."""
    try:
        settings = read_settings()
    except SettingsError as error:
        fail(str(error), code=2)
    # What a command finds is its output, and for pipes; a server says more.
    configure_logging(settings.log_shape, level=logging.WARNING)
    return settings


def fail(text: str, *, code: int = 1) -> NoReturn:
    """Say it in one line, and leave."""
    errors.print(f"[red]darkroom:[/red] {escape(text)}")
    sys.exit(code)


def _database_said(error: Exception) -> str:
    if isinstance(error, TableBusyError):
        return "somebody reads a table that changes (an audit, a dump?): try again"
    if isinstance(error, RowBusyError):
        return "somebody else holds this row: nothing was changed, try again"
    if isinstance(error, DatabaseUnavailableError):
        return "the database does not answer"
    if isinstance(error.__cause__, (UndefinedTable, UndefinedColumn, UndefinedFunction)):
        return "the database's tables are not those of this version: run `darkroom migrate`"
    return f"the database refused: {str(error).splitlines()[0]}"


def say_if_cut(found: Sequence[object], shown_max: int) -> None:
    """Below a list whose rest is not shown."""
    if len(found) > shown_max:
        console.print("... and more: those above first")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; SIGTERM and Ctrl-C unwind it, so that what it started is stopped."""

    async def main() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return run_loop(main())
    except (
        SettingsError,
        EmbeddedServerError,
        ForeignStoreError,
        MigrationChangedError,
    ) as error:
        # Settings: of what is read behind the environment, the brand's folder.
        fail(str(error))
    except RequestRefusedError as error:
        fail(f"{error.message} ({error.code})")
    except UserLeftError:
        fail("this customer asked to be forgotten")
    except StorageUnavailableError as error:
        fail(f"the object store does not answer: {error}")
    except (RowBusyError, DatabaseUnavailableError, DatabaseRefusedError) as error:
        fail(_database_said(error))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def show_report(report: Report) -> None:
    """The audit's verdict, and the rows behind it, at 80 columns."""
    console.print(
        f"photos stored [bold]{report.photos}[/bold] = tasks completed "
        f"[bold]{report.completed_tasks}[/bold], payments {report.payments}"
    )
    if report.clean:
        console.print(f"[green]audit clean:[/green] {report.questions} questions, no finding")
        return
    for finding in report.findings:
        table = Table(
            title=escape(f"{finding.name}: {finding.promise} ({finding.count} rows)"),
            title_justify="left",
        )
        for column in finding.rows[0]:
            table.add_column(column)
        for row in finding.rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        console.print(table)
    console.print(
        f"[red]audit failed:[/red] {len(report.findings)} of {report.questions} questions"
    )
