"""Other people's servers as processes: started as an ordinary user even by root, and ended by their ids."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. All are held until the last is known, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def hand_over(folder: Path, owner: str | None) -> None:
    """Give a folder and everything in it to the user that the servers run as; None: it is ours already."""
    if owner is None:
        return
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)


def start(
    command: Sequence[str], *, owner: str | None, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a server. Ctrl-C at our terminal is ours alone: we end it in order."""
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - a program of this machine, by its path
            list(command),
            user=owner,
            group=None if owner is None else pwd.getpwnam(owner).pw_gid,
            extra_groups=None if owner is None else [],
            cwd=log.parent,
            env={**os.environ, "HOME": str(log.parent), **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def stop(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Ask all to end, wait, and insist. Who is gone already is left alone."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    ends_at = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.1, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
