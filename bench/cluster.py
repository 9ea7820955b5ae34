"""Three PostgreSQL servers on this machine as one: Patroni over etcd, with synchronous replication.

A commit is acknowledged when a second server has it on its disk. `fsync` is on everywhere. Patroni comes from
the dependency group `cluster`, etcd from Debian (scripts/install-cluster.sh), PostgreSQL from Darkroom's wheel.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg

from bench.ordinary import free_ports, hand_over, start, stop
from darkroom.db.embedded import server_owner, server_programs

NODES: Final = 3
TTL_SECONDS: Final = 20
"""So long after a primary's last word another may take its place: the shortest that Patroni allows."""
LOOP_SECONDS: Final = 2
RETRY_SECONDS: Final = 5
"""Patroni wants LOOP + 2 * RETRY <= TTL."""
READY_SECONDS: Final = 120
"""Three servers on an idle machine of two cores are there after some 15 s."""
STOP_SECONDS: Final = 20
LOOK_SECONDS: Final = 0.1
PARAMETERS: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": 200,
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_compression": "on",
    "wal_log_hints": "on",
}
"""As Darkroom's embedded server, so that the two can be compared. The first three are defaults, said aloud."""


class ClusterError(Exception):
    """The cluster cannot be started. One line for whoever asked."""


@dataclass(slots=True)
class Node:
    """One server and the Patroni that leads it."""

    name: str
    port: int
    api_port: int
    folder: Path
    patroni: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """This server's own address."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?connect_timeout=2"

    def postmaster(self) -> int | None:
        """The server's process, if its file names one that lives."""
        try:
            pid = int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if psutil.pid_exists(pid) else None


@dataclass(slots=True)
class Cluster:
    """A running cluster.

    Attributes:
        dsn: of the primary, whoever that is: every node is named, and only one takes writes.
    """

    nodes: list[Node]
    _etcd_port: int
    _folder: Path
    _python: str
    _site: Path
    _owner: str | None
    _etcd: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    @property
    def dsn(self) -> str:
        """Every node, with the wish for one that takes writes, as libpq understands it."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def primary(self) -> Node | None:
        """Who takes writes now."""
        for node in self.nodes:
            with contextlib.suppress(psycopg.Error):
                with psycopg.connect(node.dsn, autocommit=True) as one:
                    row = one.execute("SELECT pg_is_in_recovery()").fetchone()
                if row == (False,):
                    return node
        return None

    def standbys(self) -> dict[str, str]:
        """The primary's followers that stream, by name, and whether each is waited for ("sync")."""
        node = self.primary()
        if node is None:
            return {}
        with contextlib.suppress(psycopg.Error), psycopg.connect(node.dsn, autocommit=True) as one:
            rows = one.execute(
                "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
            ).fetchall()
            return {str(name): str(state) for name, state in rows}
        return {}

    def wait_until_whole(self, *, standbys: int = NODES - 1) -> None:
        """Return when a primary has so many standbys, one of them synchronous.

        Raises:
            ClusterError: not within READY_SECONDS.
        """
        ends_at = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends_at:
            found = self.standbys()
            if len(found) >= standbys and "sync" in found.values():
                return
            time.sleep(LOOK_SECONDS)
        raise ClusterError(f"not whole after {READY_SECONDS} s: {self._last_words()}")

    def kill(self, node: Node) -> None:
        """As if the machine had lost its power: Patroni, the server and each of its processes, SIGKILL."""
        for pid in self._processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if node.patroni is not None:
            node.patroni.wait()

    def freeze(self, node: Node) -> list[int]:
        """Everything that `kill` would kill hangs, with its sockets open. Gives the processes, for `thaw`."""
        frozen = self._processes(node)
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return frozen

    def thaw(self, frozen: Sequence[int]) -> None:
        """What was frozen goes on, as if nothing had been."""
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _processes(self, node: Node) -> list[int]:
        """Patroni first: alive it would start again what dies."""
        found = [] if node.patroni is None else [node.patroni.pid]
        postmaster = node.postmaster()
        if postmaster is not None:
            children = psutil.Process(postmaster).children(recursive=True)
            found += [postmaster, *(child.pid for child in children)]
        return found

    def start(self, node: Node) -> None:
        """Start a node's Patroni, which does the rest; also one that was killed."""
        node.patroni = start(
            [self._python, "-m", "patroni", str(node.folder / "patroni.json")],
            owner=self._owner,
            log=node.folder / "patroni.log",
            environment={"PYTHONPATH": str(self._site), "PYTHONWARNINGS": "ignore"},
        )

    def start_all(self) -> None:
        """Etcd, then the first node alone, so that it is the primary, then the others."""
        etcd = shutil.which("etcd")
        if etcd is None:
            raise ClusterError("there is no etcd: run scripts/install-cluster.sh")
        peer = free_ports(1)[0]
        client, between = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, peer))
        options = {
            "name": "etcd", "data-dir": str(self._folder / "etcd"),
            "listen-client-urls": client, "advertise-client-urls": client,
            "listen-peer-urls": between, "initial-advertise-peer-urls": between,
            "initial-cluster": f"etcd={between}", "log-level": "warn",
        }  # fmt: skip
        self._etcd.append(
            start(
                [etcd, *(f"--{name}={value}" for name, value in options.items())],
                owner=self._owner,
                log=self._folder / "etcd.log",
                # Debian builds it for machines that etcd has not tested, too.
                environment={
                    "ETCD_UNSUPPORTED_ARCH": os.uname().machine.replace("aarch64", "arm64")
                },
            )
        )
        self.start(self.nodes[0])
        self._wait_for_primary()
        for node in self.nodes[1:]:
            self.start(node)
        self.wait_until_whole()

    def stop(self) -> None:
        """End everything that was started here, and nothing else."""
        for node in self.nodes:
            self.thaw(self._processes(node))
        stop([node.patroni for node in self.nodes if node.patroni is not None], STOP_SECONDS)
        for node in self.nodes:
            pid = node.postmaster()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
        stop(self._etcd, STOP_SECONDS)

    def _wait_for_primary(self) -> None:
        ends_at = time.monotonic() + READY_SECONDS
        while self.primary() is None:
            patroni = self.nodes[0].patroni
            if time.monotonic() > ends_at or (patroni is not None and patroni.poll() is not None):
                raise ClusterError(f"no primary: {self._last_words()}")
            time.sleep(LOOK_SECONDS)

    def _last_words(self) -> str:
        logs = [self._folder / "etcd.log", *(node.folder / "patroni.log" for node in self.nodes)]
        return " | ".join(
            log.read_text(errors="replace").strip().rpartition("\n")[2]
            for log in logs
            if log.exists()
        )


@contextmanager
def open_cluster() -> Generator[Cluster]:
    """Three nodes, whole, for as long as the block runs; their folder goes with them.

    Ended by any way out of the block, Ctrl-C too. A process that is killed itself leaves them running.

    Raises:
        ClusterError: something to run it with is missing, or it did not start; in one line.
    """
    owner = server_owner()
    site = _site()
    python = _interpreter(owner, site)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-cluster-"))
    etcd_port, *ports = free_ports(1 + 2 * NODES)
    nodes = [
        Node(
            f"node{number + 1}",
            ports[2 * number],
            ports[2 * number + 1],
            folder / f"node{number + 1}",
        )
        for number in range(NODES)
    ]
    for node in nodes:
        node.folder.mkdir(mode=0o700)
        (node.folder / "patroni.json").write_text(json.dumps(_settings(node, etcd_port), indent=1))
    hand_over(folder, owner)
    cluster = Cluster(nodes, etcd_port, folder, python, site, owner)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _settings(node: Node, etcd_port: int) -> dict[str, Any]:
    api = f"127.0.0.1:{node.api_port}"
    return {
        "scope": "darkroom",
        "name": node.name,
        "restapi": {"listen": api, "connect_address": api},
        # JSON is YAML.
        "etcd3": {"host": f"127.0.0.1:{etcd_port}"},
        "bootstrap": {
            "dcs": {
                "ttl": TTL_SECONDS,
                "loop_wait": LOOP_SECONDS,
                "retry_timeout": RETRY_SECONDS,
                "synchronous_mode": True,
                # Without any standby left nothing is acknowledged, rather than by one disk alone.
                "synchronous_mode_strict": True,
                "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
            },
            "initdb": [{"encoding": "UTF8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{node.port}",
            "connect_address": f"127.0.0.1:{node.port}",
            "data_dir": str(node.folder / "data"),
            "bin_dir": str(server_programs()),
            "pgpass": str(node.folder / "pgpass"),
            "parameters": {"unix_socket_directories": str(node.folder)},
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
                "rewind": {"username": "postgres"},
            },
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 trust",
                "host replication all 127.0.0.1/32 trust",
            ],
        },
    }


def _site() -> Path:
    """Where Patroni is installed."""
    found = importlib.util.find_spec("patroni")
    if found is None or found.origin is None:
        raise ClusterError(
            "there is no Patroni: make bench-many installs it (dependency group `cluster`)"
        )
    return Path(found.origin).parents[1]


def _interpreter(owner: str | None, site: Path) -> str:
    """A Python that the servers' user may run: root's own often lies in a folder closed to others."""
    candidates: Sequence[str | None] = (sys.executable, shutil.which("python3"), "/usr/bin/python3")
    for candidate in dict.fromkeys(filter(None, candidates)):
        try:
            done = subprocess.run(  # noqa: S603 - a Python of this machine
                [candidate, "-c", "import patroni, psycopg"],
                user=owner, cwd="/", env={**os.environ, "PYTHONPATH": str(site)},
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    raise ClusterError(
        f"no Python that the user {owner} may run can load Patroni: use one outside of root's home"
    )
