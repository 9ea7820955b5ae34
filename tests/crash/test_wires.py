"""The faulty network itself: it cuts where it says it cuts, and is no obstacle where it does nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from darkroom.db.database import Connection
from darkroom.twin.faulty_network import FaultyNetwork
from darkroom.twin.network_faults import COMMIT_KINDS, Fault, Kind, Passing, SeededFaults
from darkroom.twin.wires import HttpWire, Moment, Piece, PostgresWire
from tests.crash.sale import Strike

INSERT: Final = "INSERT INTO drops (name) VALUES (%s)"


@asynccontextmanager
async def _client(network: FaultyNetwork, **more: str) -> AsyncGenerator[Connection]:
    dsn = make_conninfo(network.dsn, **more)
    client = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    try:
        yield client
    finally:
        await client.close()


async def _transaction(client: Connection) -> None:
    async with client.transaction():
        await client.execute(INSERT, ["a"])


async def _pipeline(client: Connection) -> None:
    """Everything in one breath, by the extended protocol."""
    async with client.pipeline():
        await client.execute("BEGIN")
        await client.execute(INSERT, ["a"])
        await client.execute("SAVEPOINT s")
        await client.execute("ROLLBACK TO SAVEPOINT s")
        await client.execute("COMMIT")


async def _autocommit(client: Connection) -> None:
    await client.execute("INSERT INTO drops (name) VALUES ('a')", prepare=False)


async def _prepared(client: Connection) -> None:
    await client.execute(INSERT, ["a"], prepare=True)


WAYS: Final = [_transaction, _pipeline, _autocommit, _prepared]


@pytest.fixture
async def drops(dsn: str) -> AsyncGenerator[Connection]:
    """A table of its own, seen past the network."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as direct:
        await direct.execute("CREATE TABLE drops (name TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        yield direct


async def _count(drops: Connection) -> int:
    row = await (await drops.execute("SELECT count(*) FROM drops")).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "kept"), [(Kind.CUT_BEFORE_COMMIT, 0), (Kind.CUT_AFTER_COMMIT, 1)]
)
async def test_a_commit_is_cut_on_the_side_that_was_asked_for(
    drops: Connection, dsn: str, way: Callable[[Connection], Awaitable[None]], kind: Kind, kept: int
) -> None:
    faults = Strike(kind, Moment.COMMIT)
    async with FaultyNetwork.to_postgres(dsn, faults=faults) as network:
        async with _client(network) as client:
            with pytest.raises(psycopg.OperationalError):
                await way(client)
        assert network.struck == {kind.value: 1}
    assert await _count(drops) == kept


async def test_a_commit_that_was_refused_is_not_cut(drops: Connection, dsn: str) -> None:
    """There is no done commit whose answer could get lost; the next one is another."""
    await drops.execute("INSERT INTO drops VALUES ('a')")
    always = Fault(Kind.CUT_AFTER_COMMIT)
    async with FaultyNetwork.to_postgres(dsn, faults=lambda _passing: always) as network:
        async with _client(network) as client:
            with pytest.raises(psycopg.errors.UniqueViolation):
                await _transaction(client)
            assert not network.struck
            with pytest.raises(psycopg.OperationalError):
                await client.execute("INSERT INTO drops VALUES ('b')")
        assert network.struck == {Kind.CUT_AFTER_COMMIT.value: 1}
    assert await _count(drops) == 2


async def test_what_is_large_passes_whole(dsn: str) -> None:
    """Many chunks each way, by either protocol, with commits seen behind them."""
    large = "x" * 3_000_000
    async with FaultyNetwork.to_postgres(dsn) as network, _client(network) as client:
        for query, values in (("SELECT %s", [large]), (f"SELECT '{large}'", None)):
            answer = await (await client.execute(query.encode(), values)).fetchone()
            assert answer == (large,)
        async with client.transaction():
            await client.execute("SELECT 1")
        assert network.seen[Moment.COMMIT] == 1


async def test_a_client_that_would_like_encryption_is_let_in_without(dsn: str) -> None:
    async with (
        FaultyNetwork.to_postgres(dsn) as network,
        _client(network, sslmode="prefer") as client,
    ):
        assert not client.pgconn.ssl_in_use
        assert client.info.host == "127.0.0.1"


async def test_a_question_can_be_canceled_through_it(dsn: str) -> None:
    async with FaultyNetwork.to_postgres(dsn) as network, _client(network) as client:
        asking = asyncio.create_task(client.execute("SELECT pg_sleep(30)"))
        while network.seen[Moment.REQUEST] == 0:
            await asyncio.sleep(0.01)
        await client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asking


async def test_it_ends_what_it_opened(dsn: str) -> None:
    """Stalled, half closed or healthy: after the block nothing of it is left, here or at the server."""
    before = asyncio.all_tasks()
    faults = iter([Fault(Kind.STALL), Fault(Kind.HALF_CLOSE_CLIENT), None])
    async with FaultyNetwork.to_postgres(dsn, faults=lambda _: next(faults)) as network:
        async with (
            _client(network) as stalled,
            _client(network) as halved,
            _client(network) as fine,
        ):
            asking = asyncio.create_task(stalled.execute("SELECT 1"))
            while not network.struck:
                await asyncio.sleep(0.01)
            with pytest.raises(psycopg.OperationalError):
                await halved.execute("SELECT 1")
            await fine.execute("SELECT 1")
            network.cut_all()
            with pytest.raises(psycopg.OperationalError):
                await asking
        dead = network.dsn
    assert asyncio.all_tasks() == before
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await psycopg.AsyncConnection.connect(dead)


async def test_nobody_behind_it_is_a_cut() -> None:
    async with FaultyNetwork.to_postgres("host=127.0.0.1 port=9 user=nobody") as network:
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(network.dsn)


def _typed(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


QUESTIONS: Final = b"".join(
    [
        (8).to_bytes(4) + (80_877_103).to_bytes(4),
        (8).to_bytes(4) + (196_608).to_bytes(4),
        _typed(b"Q", b"begin;\0"),
        _typed(b"P", b"s\0" + b"INSERT INTO t VALUES ($1)\0" + bytes(2)),
        _typed(b"B", b"\0s\0" + b"x" * 2000),
        _typed(b"E", b"\0" + bytes(4)),
        _typed(b"S", b""),
        _typed(b"Q", b" Commit\0"),
        _typed(b"B", b"\0s\0" + bytes(6)),
        _typed(b"E", b"\0" + bytes(4)),
        _typed(b"S", b""),
    ]
)


@pytest.mark.parametrize("size", [1, 7, 600, 100_000])
def test_a_conversation_is_understood_however_it_is_sliced(size: int) -> None:
    wire = PostgresWire()
    pieces: list[Piece] = []
    for at in range(0, len(QUESTIONS), size):
        pieces += wire.sent(QUESTIONS[at : at + size])
    assert [piece.moment for piece in pieces if piece.moment is not None] == [
        Moment.REQUEST,
        Moment.REQUEST,
        Moment.COMMIT,
        Moment.COMMIT,
    ]
    assert b"".join(piece.data for piece in pieces) == QUESTIONS[8:]
    assert [piece.reply for piece in pieces if piece.reply] == [b"N"]


def test_a_request_in_many_pieces_is_one() -> None:
    wire = HttpWire()
    pieces = [*wire.sent(b"POST /a HTTP/1.1\r\n"), *wire.sent(b"\r\n{}")]
    assert wire.answered(b"HTTP/1.1 200 OK\r\n\r\n") is None
    pieces += wire.sent(b"GET /b HTTP/1.1\r\n\r\n")
    assert [piece.text for piece in pieces if piece.moment] == [
        "POST /a HTTP/1.1",
        "GET /b HTTP/1.1",
    ]


def test_a_seed_says_the_same_again_and_keeps_to_its_rates() -> None:
    rates = dict.fromkeys(Kind, 0.05)
    commits = [Passing(Moment.COMMIT, number, 1, "") for number in range(2000)]
    requests = [Passing(Moment.REQUEST, number, 1, "") for number in range(2000)]
    fates = [
        [SeededFaults(seed, rates, seconds_max=1)(passing) for passing in (*commits, *requests)]
        for seed in (1, 1, 2)
    ]
    assert fates[0] == fates[1] != fates[2]
    struck = [fault.kind for fault in fates[0] if fault is not None]
    for kind in Kind:
        expected = 100 if kind in COMMIT_KINDS else 200
        assert 0.6 * expected < struck.count(kind) < 1.4 * expected, kind
    assert not COMMIT_KINDS & {fault.kind for fault in fates[0][2000:] if fault is not None}


@pytest.mark.parametrize("rates", [{Kind.STALL: 0.6, Kind.DELAY: 0.6}, {Kind.STALL: -0.1}])
def test_rates_that_are_no_shares_are_refused(rates: dict[Kind, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        SeededFaults(1, rates, seconds_max=1)
