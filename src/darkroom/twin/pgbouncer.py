"""A real PgBouncer in transaction mode for tests and trials: Debian's, ended with the block that started it.

Debian's 1.18 knows no prepared statements, and keeps no session: the worst pooler there is to work behind.
"""

import asyncio
import contextlib
import pwd
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from darkroom.twin.ending import end_process

START_SECONDS: Final = 20
"""It is there in some milliseconds on an idle machine."""
STOP_SECONDS: Final = 5
LOOK_SECONDS: Final = 0.02
PLACES: Final = ("pgbouncer", "/usr/sbin/pgbouncer")
"""Where only root's PATH leads."""
CLIENTS_MAX: Final = 500


class PgBouncerError(Exception):
    """It did not start; the text has the end of its log."""


def pgbouncer_binary() -> str:
    """The pooler's program.

    Raises:
        PgBouncerError: it is not installed.
    """
    for place in PLACES:
        found = shutil.which(place)
        if found is not None:
            return found
    raise PgBouncerError("there is no PgBouncer: run scripts/install-cluster.sh")


@asynccontextmanager
async def pgbouncer(
    dsn: str, folder: Path, *, owner: str | None, servers_max: int = 10
) -> AsyncGenerator[str]:
    """A pooler in front of the database that `dsn` names; gives that database's DSN through it.

    Args:
        dsn: of the database, on TCP or on a Unix socket; one host.
        folder: for its files. Under root it is given to `owner`, who must be able to reach it.
        owner: whom it runs as where we are root, which it refuses to be.
        servers_max: connections that it opens to the server, for any number of clients.

    Raises:
        PgBouncerError: it is not installed, or did not start.
    """
    binary = pgbouncer_binary()
    known = conninfo_to_dict(dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = _write(folder, _settings(known, port, servers_max, folder))
    as_whom: tuple[str, ...] = ()
    if owner is not None:
        entry = pwd.getpwnam(owner)
        for path in (folder, settings):
            shutil.chown(path, entry.pw_uid, entry.pw_gid)
        as_whom = ("-u", owner)
    process = await asyncio.create_subprocess_exec(
        binary, "-q", *as_whom, str(settings), cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _until_it_listens(process, port, folder)
        through = {"host": "127.0.0.1", "port": port, "sslmode": "disable"}
        kept = {key: value for key, value in known.items() if key not in {"hostaddr", "password"}}
        yield make_conninfo("", **kept | through)
    finally:
        await asyncio.shield(end_process(process, within_seconds=STOP_SECONDS))


def _write(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "pgbouncer.ini"
    settings.touch(mode=0o600)
    settings.write_text(content)
    return settings


def _settings(known: dict[str, Any], port: int, servers_max: int, folder: Path) -> str:
    server = {
        "host": known.get("hostaddr") or known.get("host") or "127.0.0.1",
        "port": known.get("port") or 5432,
        "user": known.get("user") or "postgres",
    }
    if known.get("password"):
        server["password"] = known["password"]
    where = " ".join(
        f"{key}='{str(value).replace(chr(39), chr(39) * 2)}'" for key, value in server.items()
    )
    return "\n".join(
        [
            "[databases]",
            f"* = {where}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "pool_mode = transaction",
            f"default_pool_size = {servers_max}",
            f"max_client_conn = {CLIENTS_MAX}",
            # On loopback, for a block: whoever comes is let in as the server's own user.
            "auth_type = any",
            f"logfile = {folder / 'pgbouncer.log'}",
            "",
        ]
    )


async def _until_it_listens(process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(LOOK_SECONDS)
                else:
                    writer.close()
                    return
    log = folder / "pgbouncer.log"
    said = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    raise PgBouncerError(f"it did not start: {' | '.join(said)}")
