"""Playing the matrix: people outside a shop, and cells that are played side by side at one moment."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, LiteralString
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.adapters.storage import open_memory
from darkroom.core.audit import run_audit
from darkroom.core.leases import LeaseKind
from darkroom.core.lifecycle import Kind
from darkroom.db.database import Database
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.make_avatar import AVATARS_MAX, AvatarRequest, make_avatar
from darkroom.flow.take_notices import take_due_notices
from darkroom.limits import Limits
from tests.promises.ends import MADE_FOR, OVERSPENT, STANDING, End, State, after, read_ends
from tests.promises.messages import Message, TalkativeBank, look
from tests.promises.moments import Moment
from tests.promises.stage import Case, Stage
from tests.scripted import only_read, picture_of
from tests.shop import Customer, Shop, open_shop

TIMES: Final = {"once": 1, "twice": 2, "five at once": 5}
PATTERNS: Final = ("never", *TIMES, "late")
"""And `before`: a pair, this message first."""
STRIDE_SECONDS: Final = 2
"""Two hundred orders drift apart: their times are taken together."""


@dataclass(frozen=True)
class Cell:
    """One customer's fate: this message in this pattern; in a pair, `then` follows it."""

    message: Message
    pattern: str
    then: Message | None = None

    @property
    def name(self) -> str:
        """As a failure shows it."""
        return f"{self.message.name} {self.pattern}" + (f" {self.then.name}" if self.then else "")


@dataclass(frozen=True)
class Crowd:
    """A database full of people, and what the bank knows of them: to be cloned."""

    name: str
    people: list[Customer]
    ordered: dict[int, int]
    bank: TalkativeBank


def admin(server: str, statement: LiteralString, name: str, template: str = "") -> None:
    """Make or drop a database."""
    with psycopg.connect(server, autocommit=True) as admin:
        text = SQL(statement)
        admin.execute(text.format(name=Identifier(name), template=Identifier(template or name)))


async def gather_crowd(
    server: str, template: str, folder: Path, count: int, *, ordered: bool
) -> Crowd:
    name = f"darkroom_crowd_{uuid4().hex[:12]}"
    admin(server, "CREATE DATABASE {name} TEMPLATE {template}", name, template)
    bank = TalkativeBank()
    async with _shop_on(make_conninfo(server, dbname=name), folder, bank) as shop:
        async with shop.database.connection() as tx:
            await tx.execute("UPDATE tiers SET photo_count = 1 WHERE id = 'starter'")
            await tx.execute("UPDATE tiers SET photo_count = 2 WHERE id = 'standard'")
        people = [await shop.customer() for _ in range(count)]
        payments_of = {
            one.user_id: await shop.ordered(one, order_style="signature")
            for one in people
            if ordered
        }
    return Crowd(name, people, payments_of, bank)


@asynccontextmanager
async def _shop_on(
    dsn: str, folder: Path, bank: TalkativeBank, *, chat: bool = False
) -> AsyncGenerator[Shop]:
    """A shop whose storage is memory and which makes no thumbnails: neither is a message's business."""
    database = Database(dsn, pool_size=10)
    await database.open()
    limits = Limits().model_copy(update={"batch": 50})
    async with open_shop(database, folder, limits=limits, bank=bank) as shop:
        shop.darkroom = replace(
            shop.darkroom,
            store=open_memory(),
            develop=only_read,
            chat_enabled=chat,
        )
        yield shop
    await database.close()


@asynccontextmanager
async def open_stage(
    server: str, crowd: Crowd, folder: Path, *, chat: bool = False
) -> AsyncGenerator[Stage]:
    """A clone of the crowd, and a shop on it."""
    name = f"darkroom_matrix_{uuid4().hex[:12]}"
    admin(server, "CREATE DATABASE {name} TEMPLATE {template}", name, crowd.name)
    bank = TalkativeBank(facts=dict(crowd.bank.facts))
    try:
        async with _shop_on(make_conninfo(server, dbname=name), folder, bank, chat=chat) as shop:
            yield Stage(shop, list(crowd.people), crowd.ordered)
    finally:
        admin(server, "DROP DATABASE {name} WITH (FORCE)", name)


class Play:
    """Cells of one moment, played side by side: what went wrong is collected, cell by cell."""

    def __init__(self, stage: Stage, moment: Moment) -> None:
        self.stage = stage
        self.shop = stage.shop
        self.moment = moment
        self.cells: dict[Case, Cell] = {}
        self.ends: dict[Case, End] = {}
        self.made: Counter[int] = Counter()
        self.wrong: list[str] = []

    async def begin(self, cells: Sequence[Cell]) -> list[Case]:
        """Fresh customers come to stand at the moment, each in its cell, beside those that are there."""
        cases = await self.moment.bring(self.stage, len(cells))
        standing = await _standing(self.shop, cases, self.moment.held)
        for case in cases:
            rows, held = standing[case.payment_id]
            assert rows >= self.moment.rows, f"{self.moment.name} stands at {rows}"
            assert held or self.moment.held is None, f"{self.moment.name} is in nobody's hands"
        self.cells |= dict(zip(cases, cells, strict=True))
        return cases

    async def send(self, *patterns: str, only: Sequence[Case] | None = None) -> None:
        """Deliver the messages of these patterns; of a pair the second after the first was acted on."""
        chosen = {
            case: cell
            for case, cell in self.cells.items()
            if cell.pattern in patterns and (only is None or case in only)
        }
        known = await look(self.stage, list(chosen))
        for case, cell in chosen.items():
            one, facts = cell.message, known[case]
            if cell.pattern == "five at once":
                await asyncio.gather(*(one.deliver(self.stage, facts) for _ in range(5)))
            else:
                for _ in range(TIMES.get(cell.pattern, 1)):
                    await one.deliver(self.stage, facts)
        if "before" in patterns:
            await self.stage.run(take_due_notices)
            known = await look(self.stage, list(chosen))
        for case, cell in chosen.items():
            if cell.then is not None:
                await cell.then.deliver(self.stage, known[case])

    async def check_leases(self) -> None:
        """Whoever has a row in its hands keeps it: a message without effect never touches a lease."""
        if self.moment.held is None:
            return
        standing = await _standing(self.shop, list(self.cells), self.moment.held)
        self.wrong += [
            f"{cell.name}: took a lease away"
            for case, cell in self.cells.items()
            if cell.message.effect is None and (cell.then is None or cell.then.effect is None)
            if not standing[case.payment_id][1]
        ]

    async def audit(self, when: str, excepted: frozenset[str] = frozenset()) -> None:
        """Every promise, as the operator's own audit asks it."""
        report = await run_audit(self.shop.database)
        self.wrong += [
            f"{when}: {finding}" for finding in report.findings if finding.name not in excepted
        ]

    async def drain(self) -> None:
        """Nobody pays any more, everything runs to its end, and the promises hold without exception."""
        self.shop.bank.closes_what_waits()
        await self.shop.drain(stride_seconds=STRIDE_SECONDS)
        await self.audit("drained")
        avatars = {case.payment_id: case.customer.avatar_id for case in self.cells}
        ends = await read_ends(self.shop, avatars)
        for case, cell in self.cells.items():
            end = ends[case.payment_id]
            self.wrong += [f"{cell.name}: {what}" for what in end.wrong]
            before = self.ends.get(case)
            if before is not None and end.photos < before.photos:
                self.wrong.append(f"{cell.name}: a photo was lost")
            returned = 0 if end.theirs is None else self.shop.bank.returned_minor(end.theirs)
            if returned != end.returned:
                self.wrong.append(f"{cell.name}: the bank gave back {returned}, not {end.returned}")
            self.ends[case] = end
        spent = await self.shop.rows(
            OVERSPENT,
            self.shop.darkroom.max_generation_attempts,
            self.shop.darkroom.limits.unknown_grace_seconds,
        )
        self.wrong += [f"spent: {row}" for row in spent]
        self.made = await self._made()

    async def _made(self) -> Counter[int]:
        """Tasks that the provider bills for each order; a token never makes two."""
        rows = await self.shop.rows(MADE_FOR, [case.payment_id for case in self.cells])
        payment_of = {row["token"]: row["payment_id"] for row in rows}
        gifts = set(self.stage.gifts.values())
        billed = Counter(
            asked.token for made, asked in self.shop.provider.created.items() if made not in gifts
        )
        self.wrong += [f"billed twice: {token}" for token, times in billed.items() if times > 1]
        return Counter(payment_of[token] for token in billed if token in payment_of)

    def compare(self) -> None:
        """Each end against the table, and each repetition against the single message."""
        for case, cell in self.cells.items():
            expected, end = _expected(self.moment.at, cell), self.ends[case]
            if end.state != expected:
                self.wrong.append(f"{cell.name}: {end.state} instead of {expected}")
        by_cell = {(cell.message, cell.pattern): case for case, cell in self.cells.items()}
        for (message, pattern), case in by_cell.items():
            base = by_cell.get((message, "once" if message.effect else "never"))
            times = TIMES.get(pattern)
            if base is None or times is None:
                continue
            expected = dict(self.ends[base].counts)
            if message.adds is not None:
                expected[message.adds] = _added(message, expected[message.adds], times)
            found = self.ends[case].counts
            differs = {
                one: (expected[one], found[one]) for one in found if found[one] != expected[one]
            }
            if differs:
                self.wrong.append(f"{message.name} {pattern} differs from {base}: {differs}")
            if self.made[case.payment_id] > self.made[base.payment_id]:
                self.wrong.append(f"{message.name} {pattern}: the provider was paid for more tasks")

    async def spend_what_is_ready(self) -> None:
        """Money that is there and unused can be used: with the avatar it has, or with a new one."""
        ready = [case for case in self.cells if self.ends[case].state.money == "ready"]
        for case in ready:
            user_id = case.customer.user_id
            avatar_id = await self.shop.value(
                "SELECT max(id) FROM avatars WHERE user_id = %s AND deleted_at IS NULL", user_id
            )
            if avatar_id is None:
                wish = AvatarRequest(user_id, "New", None, uuid4())
                avatar_id = (await make_avatar(self.shop.darkroom, wish)).id
            await add_selfie(self.shop.darkroom, avatar_id=avatar_id, data=picture_of(-avatar_id))
            await self.shop.start(Customer(user_id, avatar_id, 0), payment_id=case.payment_id)
        await self.drain()
        self.wrong += [
            f"{self.cells[case].name}: paid, free to use, and of no use: {self.ends[case].state}"
            for case in ready
            if self.ends[case].state.money != "made"
        ]


def _added(message: Message, before: int, times: int) -> int:
    """What so many wishes leave: an avatar is refused above the limit, and a key makes many one."""
    more = before + (1 if message.keyed else times)
    return min(more, AVATARS_MAX) if message.adds == "avatars" else more


def _expected(at: State, cell: Cell) -> State:
    effect = cell.message.effect
    match cell.pattern:
        case "never":
            return after(at, "time")
        case "late":
            return after(at, "time", effect, "time")
        case "before":
            assert cell.then is not None
            return after(at, effect, cell.then.effect, "time")
        case _:
            return after(at, effect, "time")


async def _standing(
    shop: Shop, cases: Sequence[Case], held: LeaseKind | None
) -> dict[int, tuple[set[tuple[Kind, str]], bool]]:
    """The statuses of each order's rows, and whether a worker holds one of the table `held`."""
    found: dict[int, tuple[set[tuple[Kind, str]], bool]] = {}
    for row in await shop.rows(STANDING, [case.payment_id for case in cases]):
        rows, is_held = found.get(row["payment_id"], (set(), False))
        rows.add((row["kind"], row["status"]))
        found[row["payment_id"]] = rows, is_held or (row["held"] and row["kind"] == held)
    return found
