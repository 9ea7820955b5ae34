"""`darkroom demo --full`: orders through every stand-in, driven by HTTP calls alone, under faults from a seed.

No worker lives anywhere. The host starts the program at a call, freezes it between calls and kills it in the
middle of some; QStash and cron are the only clocks. What is shown at the end is counted at the stand-ins.
"""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from darkroom.config import IsolatedSettings, Settings
from darkroom.db.database import Database
from darkroom.db.embedded import EmbeddedPostgres
from darkroom.db.migrate import migrate
from darkroom.flow.stock_catalog import stock_catalog
from darkroom.rehearsal.customer import Bought, Customer, CustomerError
from darkroom.rehearsal.judge import judge
from darkroom.rehearsal.painter import studio_painter
from darkroom.rehearsal.standing import read_standing
from darkroom.rehearsal.town import Town, TownHabits, open_town
from darkroom.rehearsal.view import Scene, show_end, write_photos
from darkroom.twin.hosting import HostHabits, Hosting, hosting_cron
from darkroom.twin.kie_faults import Painter
from darkroom.wiring import bundled_catalog, bundled_portrait

LOOK_SECONDS: Final = 0.25
ENDS_SECONDS: Final = 600
"""What nobody answered waits 90 s for its callback before it is tried again; three such in a row, and more."""
CRON_SECONDS: Final = {"/api/cron/poll-kie-tasks": 15.0, "/api/cron/sweep": 30.0}
QUEUE_TIME_SCALE: Final = 5
"""QStash repeats after 12 s, 2 min, 30 min: five times as fast, for whoever watches."""
DEAD_SHARE: Final = 0.3
"""Of the calls, so many would end with the instance dead, if they lasted so long: most are over before."""
DEAD_SECONDS: Final = 2
WORKING_PATHS: Final = ("/api/jobs/process", "/api/cron/poll-kie-tasks")
DOOMED_SECONDS: Final = 0.3
"""Tasks are being created by then, and none has been heard of again."""
POOL_SIZE: Final = 5


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the command line asked for.

    Attributes:
        has_queue: QStash takes messages; else every publish is refused.
        has_cron: the host's clock ticks.
    """

    seed: int
    orders: int
    fault_percent: float
    tier: str
    style: str
    photos_folder: Path
    has_queue: bool = True
    has_cron: bool = True


async def run_rehearsal(wish: Rehearsal, console: Console) -> int:
    """Returns the exit code: 0 when every photo is there and every audit is clean."""
    # Requests that were broken off on purpose are no news.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-rehearsal-"))
    is_good = False
    try:
        is_good = await _rehearse(folder, wish, console)
    except CustomerError as error:
        console.print(f"[red]stopped:[/red] {error}")
    finally:
        if is_good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"logs of the processes: {folder}")
    return 0 if is_good else 1


async def _rehearse(folder: Path, wish: Rehearsal, console: Console) -> bool:
    began = time.monotonic()
    console.print("starting PostgreSQL, SeaweedFS, kie.ai's, QStash's and the bank's stand-ins ...")
    async with _stage(folder, wish) as stage:
        scene = Scene(stage.town, stage.hosting, wish.orders)
        with Live(console=console, get_renderable=scene.draw, transient=True):
            showing = asyncio.create_task(_show(scene, stage.database))
            try:
                bought = await stage.sell(wish)
                await stage.until_all_is_done(len(bought))
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
        photos = [photo for one in bought for photo in await stage.customer.photos(one.avatar_id)]
        write_photos(wish.photos_folder, photos)
        scene.standing = await read_standing(stage.database)
        judgement = await judge(stage.settings, stage.town, stage.database, bought, photos)
    show_end(console, scene, judgement, wish.photos_folder, seconds=time.monotonic() - began)
    return judgement.is_clean


@dataclass(slots=True)
class _Stage:
    town: Town
    hosting: Hosting
    database: Database
    settings: Settings
    customer: Customer

    async def sell(self, wish: Rehearsal) -> list[Bought]:
        """The orders, one customer's after the other's."""
        portrait = bundled_portrait()
        return [
            await self.customer.buy(portrait, tier=wish.tier, style=wish.style)
            for _ in range(wish.orders)
        ]

    async def until_all_is_done(self, orders: int) -> None:
        """Wait until every set has ended and every refund is known. Raises CustomerError: it took too long."""
        try:
            async with asyncio.timeout(ENDS_SECONDS):
                while True:
                    standing = await read_standing(self.database)
                    if standing.sets_ended >= orders and standing.open_rows == 0:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise CustomerError(f"not done within {ENDS_SECONDS} s") from None


async def _show(scene: Scene, database: Database) -> None:
    while True:
        scene.standing = await read_standing(database)
        await asyncio.sleep(LOOK_SECONDS)


def _town(folder: Path, wish: Rehearsal, painter: Painter) -> AbstractAsyncContextManager[Town]:
    habits = TownHabits(
        seed=wish.seed,
        fault_rate=wish.fault_percent / 100,
        queue_time_scale=QUEUE_TIME_SCALE,
        painter=painter,
    )
    return open_town(folder, habits)


@asynccontextmanager
async def _stage(folder: Path, wish: Rehearsal) -> AsyncGenerator[_Stage]:
    embedded = EmbeddedPostgres(folder / "postgres")
    dsn = await asyncio.to_thread(embedded.start)
    fault_rate = wish.fault_percent / 100
    host_habits = HostHabits(
        seed=wish.seed,
        killed_share=DEAD_SHARE if fault_rate else 0,
        killed_within_seconds=DEAD_SECONDS,
        # Whatever the seed draws, the first call that works dies at it.
        doomed=dict.fromkeys(WORKING_PATHS, DOOMED_SECONDS) if fault_rate else {},
    )
    hosting = Hosting(
        {}, host_habits, folder / "instances.log", application="darkroom.rehearsal.instance:app"
    )
    database = Database(dsn, pool_size=POOL_SIZE)
    try:
        await database.open()
        await migrate(database)
        await stock_catalog(database, bundled_catalog(), only_if_empty=True)
        async with (
            studio_painter() as painter,
            _town(folder, wish, painter) as town,
            hosting.running(),
        ):
            variables = {
                **town.variables(hosting.base_url),
                "DARKROOM_SERVERLESS": "true",
                "DARKROOM_DATA_DIR": str(folder / "data"),
                "DATABASE_URL": dsn,
                "DARKROOM_DATABASE_POOL_SIZE": str(POOL_SIZE),
            }
            hosting.environment = {**variables, "DARKROOM_LOG": "json"}
            if not wish.has_queue:
                town.queue.habits.messages_daily = 0
            customer = Customer(hosting.base_url, telegram_user_id=1001)
            ticks = CRON_SECONDS if wish.has_cron else {}
            clock = hosting_cron(hosting, ticks, secret=town.secrets["cron"], seed=wish.seed)
            try:
                async with clock:
                    settings = IsolatedSettings.model_validate(variables)
                    yield _Stage(town, hosting, database, settings, customer)
            finally:
                await customer.close()
    finally:
        await database.close()
        await asyncio.to_thread(embedded.stop)
