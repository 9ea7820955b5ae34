"""What passes on a wire, read along the way: where a request begins, and where a database commits.

Only as much of PostgreSQL's protocol 3 is understood as it takes to see a COMMIT before the server does,
and the server's word on it before the client does. Nothing is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

HEAD_BYTES: Final = 512
"""So much of a message is kept to know it by. Names and first words of statements are far shorter."""

_SSL_REQUEST: Final = 80_877_103
_GSS_REQUEST: Final = 80_877_104
_CANCEL_REQUEST: Final = 80_877_102
_COMMITS: Final = frozenset({b"COMMIT", b"END"})
_BEGINS: Final = frozenset({b"BEGIN", b"START"})
_ROLLS_BACK: Final = frozenset({b"ROLLBACK", b"ABORT"})
_READS: Final = frozenset(
    b"SELECT SHOW SET VALUES EXPLAIN LISTEN UNLISTEN DISCARD DEALLOCATE SAVEPOINT RELEASE".split()
) | {b""}
"""Outside a transaction everything else is a commit of its own: INSERT, UPDATE, WITH ..., CREATE."""


class Moment(Enum):
    """When a fault may strike."""

    REQUEST = "request"
    """A request is about to go to the server: a statement that commits nothing, or an HTTP request."""
    COMMIT = "commit"
    """A COMMIT, or a writing statement outside a transaction, is about to go to the server."""


class Verdict(Enum):
    """What the server said to the commit that was waited for."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for the server. With a moment, a fault may strike before the first of them is sent.

    Attributes:
        reply: what the client is answered on the spot; the server never sees the question.
    """

    data: bytes
    moment: Moment | None = None
    text: str = ""
    reply: bytes = b""


class Wire(Protocol):
    """One connection's state. Both directions are fed every byte, in order."""

    def sent(self, data: bytes) -> Iterator[Piece]:
        """The client's bytes, in pieces; the end of a message that is not whole yet is kept."""
        ...

    def answered(self, data: bytes) -> Verdict | None:
        """The server's bytes; the verdict once the commit that `watch_commit` named has one."""
        ...

    def watch_commit(self) -> None:
        """Wait for the verdict on the commit whose piece was given out last."""
        ...


class HttpWire:
    """HTTP/1.1, one request at a time: the client's first bytes after an answer are a request."""

    def __init__(self) -> None:
        self._idle = True

    def sent(self, data: bytes) -> Iterator[Piece]:
        """See `Wire`."""
        begins, self._idle = self._idle, False
        if begins:
            line = data[:HEAD_BYTES].split(b"\r\n", 1)[0].decode("latin-1")
            yield Piece(data, Moment.REQUEST, line)
        else:
            yield Piece(data)

    def answered(self, data: bytes) -> Verdict | None:
        """See `Wire`."""
        del data
        self._idle = True
        return None

    def watch_commit(self) -> None:
        """HTTP knows no commits."""


class PostgresWire:
    """PostgreSQL's protocol 3, simple and extended, pipelined or not.

    Encryption is refused in the server's name: nobody could read along.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._passing = 0
        self._started = False
        self._statements: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._executed = b""
        self._in_transaction = False
        self._writes = False
        self._asked = 0
        self._words = _ServerWords()
        self._commit = (0, False)
        self._watched: tuple[int, bool] | None = None

    def sent(self, data: bytes) -> Iterator[Piece]:
        """See `Wire`."""
        self._kept += data
        while self._kept:
            if self._passing:
                rest = self._take(self._passing)
                self._passing -= len(rest)
                yield Piece(rest)
                continue
            size_at, header = (1, 5) if self._started else (0, 8)
            if len(self._kept) < header:
                return
            size = max(size_at + int.from_bytes(self._kept[size_at : size_at + 4]), header)
            if len(self._kept) < min(size, HEAD_BYTES):
                return
            message = self._take(size)
            self._passing = size - len(message)
            yield self._read(message) if self._started else self._start(message)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._kept[:count])
        del self._kept[: len(taken)]
        return taken

    def _start(self, message: bytes) -> Piece:
        code = int.from_bytes(message[4:8])
        if code in (_SSL_REQUEST, _GSS_REQUEST):
            return Piece(b"", reply=b"N")
        if code != _CANCEL_REQUEST:
            self._started = True
            self._asked = 1  # the server says "ready" for the first time without being asked
        return Piece(message)

    def _read(self, message: bytes) -> Piece:
        """Know a message by its head, and move on what is remembered."""
        moment: Moment | None = None
        body = message[5:HEAD_BYTES]
        match message[:1]:
            case b"Q":
                moment = self._execute(body.partition(b"\0")[0]) or self._end_of_request()
                self._asked += 1
            case b"P":
                name, _, rest = body.partition(b"\0")
                self._statements[name] = rest.partition(b"\0")[0]
            case b"B":
                portal, _, rest = body.partition(b"\0")
                self._portals[portal] = self._statements.get(rest.partition(b"\0")[0], b"")
            case b"E":
                moment = self._execute(self._portals.get(body.partition(b"\0")[0], b""))
            case b"S":
                moment = self._end_of_request()
                self._asked += 1
            case b"F":
                self._asked += 1
            case _:
                pass
        return Piece(message, moment, self._executed.decode(errors="replace"))

    def _execute(self, statement: bytes) -> Moment | None:
        """One statement. A COMMIT is one when it is executed, before any Sync."""
        self._executed = statement
        word = _first_word(statement)
        if word in _COMMITS:
            self._in_transaction = False
            self._commit = (self._asked + 1, True)
            return Moment.COMMIT
        if word in _BEGINS:
            self._in_transaction = True
        elif word in _ROLLS_BACK:
            self._in_transaction = False
        elif word not in _READS and not self._in_transaction:
            self._writes = True
        return None

    def _end_of_request(self) -> Moment:
        """Here the server commits what was written outside a transaction."""
        writes, self._writes = self._writes, False
        if not writes:
            return Moment.REQUEST
        self._commit = (self._asked + 1, False)
        return Moment.COMMIT

    def watch_commit(self) -> None:
        """See `Wire`."""
        self._watched = self._commit

    def answered(self, data: bytes) -> Verdict | None:
        """See `Wire`."""
        verdict: Verdict | None = None
        for ready in self._words.read(data):
            if self._watched is None or ready.number < self._watched[0]:
                continue
            explicit = self._watched[1]
            done = not ready.failed and (b"COMMIT" in ready.tags if explicit else ready.idle)
            verdict = Verdict.DONE if done else Verdict.REFUSED
            self._watched = None
        return verdict


@dataclass(frozen=True, slots=True)
class _Ready:
    """A ReadyForQuery: the how many-th, and what was said since the one before."""

    number: int
    idle: bool
    tags: list[bytes]
    failed: bool


class _ServerWords:
    """The server's messages. Only ends of statements, errors and "ready" are looked into."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._to_skip = 0
        self._number = 0
        self._tags: list[bytes] = []
        self._failed = False

    def read(self, data: bytes) -> Iterator[_Ready]:
        """Every "ready" in the next bytes."""
        self._kept += data
        while True:
            skipped = min(self._to_skip, len(self._kept))
            del self._kept[:skipped]
            self._to_skip -= skipped
            if self._to_skip or len(self._kept) < 5:  # noqa: PLR2004 - a kind and a length
                return
            kind, size = bytes(self._kept[:1]), 1 + int.from_bytes(self._kept[1:5])
            if kind in (b"C", b"Z") and len(self._kept) < size:
                return
            self._to_skip = size
            if kind == b"C":
                self._tags.append(bytes(self._kept[5 : size - 1]))
            elif kind == b"E":
                self._failed = True
            elif kind == b"Z":
                self._number += 1
                idle = self._kept[5] == ord("I")
                yield _Ready(self._number, idle, self._tags, self._failed)
                self._tags, self._failed = [], False


def _first_word(statement: bytes) -> bytes:
    """In capitals. Rolling back to a savepoint is another word than rolling back."""
    words = statement.upper().replace(b";", b" ").split(None, 2)
    if words[:2] == [b"ROLLBACK", b"TO"]:
        return b"SAVEPOINT"
    return words[0] if words else b""
