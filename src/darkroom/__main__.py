"""The program's beginning: joins the commands, the parts, and the stand-ins that demo mode serves."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from darkroom.checks import open_checks
from darkroom.config import Settings
from darkroom.edges.cli import build_cli
from darkroom.edges.terminal import Wires
from darkroom.rehearsal.begin import begin_rehearsal, begin_twins
from darkroom.torture.begin import begin_torture
from darkroom.twin.bank import SandboxBank
from darkroom.wiring import (
    BANK_PATH,
    bank_url,
    build_application,
    bundled_catalog,
    bundled_portrait,
    open_darkroom,
    open_database,
    open_schedules,
    sandbox_secret,
)


@asynccontextmanager
async def open_mounts(settings: Settings) -> AsyncGenerator[dict[str, ASGIApp]]:
    """The sandbox bank, where it is this server itself (demo mode without an address of another)."""
    secret = sandbox_secret(settings)
    if settings.mode != "demo" or secret is None or settings.sandbox_url is not None:
        yield {}
        return
    bank = SandboxBank(
        secret=secret, file=settings.data_dir / "sandbox-bank.sqlite", public_url=bank_url(settings)
    )
    async with bank.running():
        yield {BANK_PATH: bank.app}


def main() -> None:
    """Run the command line."""
    build_cli(
        Wires(
            open_database=open_database,
            open_darkroom=open_darkroom,
            open_schedules=open_schedules,
            build_application=build_application,
            open_mounts=open_mounts,
            bundled_catalog=bundled_catalog,
            bundled_portrait=bundled_portrait,
            run_torture=begin_torture,
            open_checks=open_checks,
            rehearse=begin_rehearsal,
            run_twins=begin_twins,
        )
    )()


if __name__ == "__main__":
    main()
