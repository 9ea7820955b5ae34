"""The older design, as something to be tortured."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from bench.previous_design.database import SCHEMA, Settings
from bench.previous_design.verdict import judge
from darkroom.flow.stock_catalog import parse_catalog
from darkroom.torture.design import Held, Made, Sold, Standing, Surroundings, Verdict
from darkroom.torture.plan import ORDERS_A_CUSTOMER, Plan
from darkroom.wiring import bundled_catalog

ROOT: Final = Path(__file__).parents[2]
CURRENCY: Final = "RUB"
STANDING: Final[LiteralString] = """
SELECT (SELECT count(*) FROM generated_photos) AS photos,
    (SELECT count(*) FROM generation_jobs WHERE status NOT IN ('pending', 'processing')) AS jobs_ended,
    (SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing'))
    + (SELECT count(*) FROM kie_tasks WHERE status = 'pending') AS open_work
"""
MOVES: Final[LiteralString] = """
SELECT (SELECT count(*) + count(*) FILTER (WHERE status <> 'pending')
        + count(*) FILTER (WHERE generation_consumed) FROM payments)
    + (SELECT count(*) + count(*) FILTER (WHERE status <> 'pending')
       + count(*) FILTER (WHERE status NOT IN ('pending', 'processing')) FROM generation_jobs)
    + (SELECT count(*) + count(*) FILTER (WHERE status <> 'pending') FROM kie_tasks)
    + (SELECT count(*) FROM generated_photos)
"""


class PreviousDesign:
    """The model in this folder. See README.md for what it is and is not."""

    name = "previous"
    starts_by_notice = False
    rents = False

    async def prepare(self, places: Surroundings, plan: Plan) -> dict[int, int]:
        """Tables, the catalog, and each customer with an avatar."""
        avatars: dict[int, int] = {}
        async with await psycopg.AsyncConnection.connect(
            places.calm_dsn, autocommit=True
        ) as connection:
            await connection.execute(SCHEMA)
            await _stock(connection)
            for telegram_user_id in plan.customers:
                made = await connection.execute(
                    "WITH made AS (INSERT INTO users (telegram_user_id) VALUES (%s) RETURNING id) "
                    "INSERT INTO avatars (user_id, name) SELECT id, 'Me' FROM made RETURNING id",
                    [telegram_user_id],
                )
                row = await made.fetchone()
                avatars[telegram_user_id] = int(row[0]) if row else 0
        return avatars

    def command(self, places: Surroundings, role: str, *, life: str) -> Sequence[str]:
        """The server, or one worker with all crons."""
        settings = json.dumps(asdict(Settings.of(places, life=life)))
        return [sys.executable, "-m", "bench.previous_design.process", role, settings]

    def environment(self, places: Surroundings) -> Mapping[str, str]:
        """Where this package is found."""
        del places
        known = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join([str(ROOT), *([known] if known else [])])}

    async def standing(self, connection: psycopg.AsyncConnection[Any]) -> Standing:
        """What the crons still look at. A consumed payment without a job is not among it (A2)."""
        row = await (await connection.execute(STANDING)).fetchone()
        return Standing(*(row or (0, 0, 0)))

    async def held(self, connection: psycopg.AsyncConnection[Any]) -> list[Held]:
        """Nothing: no row was ever claimed by anybody (C2)."""
        del connection
        return []

    async def newest_move(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """How much has ever happened: there was no log of moves."""
        row = await (await connection.execute(MOVES)).fetchone()
        return int(row[0]) if row else 0

    async def judge(
        self, places: Surroundings, sold: Sequence[Sold], made: Sequence[Made]
    ) -> Verdict:
        """See `verdict`."""
        return await judge(places, sold, [one.token for one in made])


async def _stock(connection: psycopg.AsyncConnection[Any]) -> None:
    """The catalog, with packs long enough for every order of one customer.

    In the older system a short pack meant fewer photos for the same money (A7, A8). That has nothing to do
    with crashes, so here every scene is there as often as it takes.
    """
    tiers, styles = parse_catalog(bundled_catalog())
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO tiers (id, photo_count, amount_minor) VALUES (%s, %s, %s)",
            [(tier.id, tier.photo_count, tier.prices[CURRENCY]) for tier in tiers],
        )
        enough = ORDERS_A_CUSTOMER * max(tier.photo_count for tier in tiers)
        for style in styles:
            scenes = [prompt.text for prompt in style.prompts]
            await cursor.executemany(
                "INSERT INTO pack_prompts (style_id, position, prompt) VALUES (%s, %s, %s)",
                [
                    (style.id, place, _take(scenes[place % len(scenes)], place // len(scenes)))
                    for place in range(enough)
                ],
            )


def _take(scene: str, number: int) -> str:
    return f"Take {number + 1}. {scene}" if number else scene
