"""The limit of photos: pgbench running the pipeline's own statements, and files being written beside it.

Nobody asks a provider, nothing is decoded, no Python decides anything: PostgreSQL and the disk are left.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from obstore.store import LocalStore
from psycopg.conninfo import conninfo_to_dict

from bench.claims import as_we_plan
from bench.photos import PHOTOS_A_SET, rate, start_sets
from bench.places import look_at_tables, open_database, picture_folder
from darkroom.adapters.storage_disk import Disk
from darkroom.adapters.storage_folder import DurableFolder
from darkroom.adapters.storage_together import FilesTogether
from darkroom.core.answers import WRITE_CREATED, WRITE_READY
from darkroom.core.attempts import BEGIN_CALLS
from darkroom.core.people import REFERENCES_OF_JOBS
from darkroom.core.photos import LOCK_JOBS, STORE_PHOTOS
from darkroom.core.tasks import CLAIM_PENDING, CLAIM_QUEUED_FREE, CLAIM_STORING
from darkroom.limits import Limits

CLIENTS: Final = 8
FILE_BYTES: Final = (900, 200)
"""Of a photo of the instant provider and of its thumbnail."""
FILES_AT_ONCE: Final = 6
"""Threads that Python gives to blocking work on two cores."""
SECONDS_MAX: Final = 240

_CREATED: Final = """jsonb_build_object('task_id', id, 'claim', claim, 'attempt_id', attempt_id,
    'provider_task_id', 'instant-' || attempt_id, 'pause', 0)"""
_READY: Final = """jsonb_build_object('task_id', id, 'claim', claim, 'attempt_id', attempt_id,
    'result_url', 'http://127.0.0.1/' || attempt_id || '.jpg', 'credits', 18)"""
_STORED: Final = """jsonb_build_object('task_id', id, 'claim', claim,
    'object_key', 'generated/' || id || '.jpg', 'sha256', encode(sha256(id::TEXT::BYTEA), 'hex'),
    'size_bytes', 900, 'content_type', 'image/jpeg', 'width', 60, 'height', 80,
    'thumbnail_key', 'thumbnails/' || id || '.webp',
    'thumbnail_sha256', encode(sha256(id::TEXT::BYTEA), 'hex'), 'thumbnail_bytes', 200,
    'thumbnail_type', 'image/webp')"""


@dataclass(frozen=True, slots=True)
class Limit:
    """Photos per second: of the database, of the files, and of both at once, which is the slower of the two."""

    database_per_second: float
    files_per_second: float

    @property
    def per_second(self) -> float:
        """Both were under way at once."""
        return min(self.database_per_second, self.files_per_second)


def _claim_of(query: str, told: str) -> str:
    """A claim whose rows come back as the next statements' parameters."""
    head, _, last = query.rpartition("\n)\nSELECT ")
    return (
        f"{head}\n), claimed AS (SELECT {last}) SELECT coalesce(jsonb_agg({told}), '[]') AS told, "
        "coalesce(array_agg(DISTINCT job_id), '{}')::TEXT AS jobs, "
        "coalesce(array_agg(attempt_id), '{}')::TEXT AS attempts, "
        "coalesce(array_agg(token), '{}')::TEXT AS tokens, "
        "coalesce(array_agg(id), '{}')::TEXT AS tasks, "
        "coalesce(array_agg(claim), '{}')::TEXT AS claims FROM claimed"
    )


def script(batch: int) -> str:
    """One turn of a worker, for up to `batch` photos: the same statements in the same transactions."""
    limits = Limits()
    values = {
        "provider": "'kie'",
        "account": "'kie'",
        # A colon would begin a variable.
        "model_key": "'kie' || chr(58) || 'nano-banana-pro'",
        "limit": str(batch),
        "lease": str(limits.lease_seconds),
        "dying": str(limits.links_alarm_seconds),
        "model": "'nano-banana-pro'",
        "price": "18",
        "told": ":told",
        "stored": ":told",
        "jobs": ":jobs::BIGINT[]",
        "attempts": ":attempts",
        "tokens": ":tokens",
        "tasks": ":tasks",
        "claims": ":claims",
        "to_chat": "FALSE",
    }
    references = _filled(REFERENCES_OF_JOBS, values) + ";"
    return "\n".join(
        [
            _filled(_claim_of(CLAIM_QUEUED_FREE, _CREATED), values) + " \\gset",
            _filled(BEGIN_CALLS, values) + ";",
            "BEGIN;",
            _filled(WRITE_CREATED, values) + ";",
            "END;",
            _filled(_claim_of(CLAIM_PENDING, _READY), values) + " \\gset",
            references,
            "BEGIN;",
            _filled(WRITE_READY, values) + ";",
            "END;",
            _filled(_claim_of(CLAIM_STORING, _STORED), values) + " \\gset",
            references,
            "BEGIN;",
            _filled(LOCK_JOBS, values) + ";",
            _filled(STORE_PHOTOS, values) + ";",
            "END;",
            "",
        ]
    )


def _filled(query: str, values: Mapping[str, str]) -> str:
    text = re.sub(r"--[^\n]*", "", query)
    text = re.sub(r"%\((\w+)\)s", lambda found: values[found[1]], text)
    return " ".join(text.split())


def measure_limit(server: str, sets: int, pgbench: Path, *, batch: int) -> Limit:
    """`sets` started sets through pgbench, `batch` photos a transaction, and their files beside it."""
    photos = sets * PHOTOS_A_SET
    folder = picture_folder()
    with open_database(server, customers=sets) as dsn:
        start_sets(dsn)
        with psycopg.connect(dsn, autocommit=True) as one:
            # As a worker says it when it starts: this account has no limits.
            one.execute(
                "INSERT INTO provider_budgets (provider, window_seconds) VALUES ('kie', 10)"
            )
            look_at_tables(one)
        file = folder / "photos.sql"
        file.write_text(script(batch))
        writing = subprocess.Popen(  # noqa: S603 - this module itself
            [sys.executable, "-m", "bench.limit", str(folder), str(photos), str(batch)],
            stdout=subprocess.PIPE,
        )
        try:
            _run(pgbench, dsn, file, turns=-(-photos // (batch * CLIENTS)) + 1)
            files, _ = writing.communicate(timeout=SECONDS_MAX)
        finally:
            writing.kill()
        with psycopg.connect(dsn) as one:
            stored = one.execute(
                "SELECT extract(epoch FROM created_at)::FLOAT8 FROM generated_photos ORDER BY 1"
            ).fetchall()
    if len(stored) < 0.9 * photos:
        raise AssertionError(f"pgbench stored {len(stored)} of {photos} photos")
    return Limit(rate([at for (at,) in stored]), float(files))


def _run(pgbench: Path, dsn: str, file: Path, *, turns: int) -> None:
    known = conninfo_to_dict(dsn)
    command = [
        str(pgbench), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-t", str(turns), "-f", str(file),
        "-h", str(known["host"]), "-U", str(known.get("user", "postgres")), str(known["dbname"]),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own pgbench, our own script
        command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False, env=as_we_plan()
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr[-2000:])


def _write_files(folder: Path, photos: int, batch: int) -> float:
    """Photos per second whose two files are durable, laid down as ours are, `batch` photos at a time."""
    write = _writer(folder)

    def write_batch(first: int) -> None:
        write(
            [
                (f"{name}/{number // PHOTOS_A_SET}/{number}.bin", os.urandom(size))
                for number in range(first, min(first + batch, photos))
                for name, size in zip(("generated", "thumbnails"), FILE_BYTES, strict=True)
            ]
        )

    began = time.perf_counter()
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        list(threads.map(write_batch, range(0, photos, batch)))
    return photos / (time.perf_counter() - began)


def _writer(folder: Path) -> Callable[[Sequence[tuple[str, bytes]]], None]:
    """Writes files durably, in the calling thread: with one sync of their disk, or of each where need be."""
    store, durable, disk = LocalStore(folder), DurableFolder(folder), Disk.below(folder)
    together = None if disk is None else FilesTogether(store, folder, disk, durable)

    def write(files: Sequence[tuple[str, bytes]]) -> None:
        if together is not None:
            for error in together.write(files):
                if error is not None:
                    raise error
            return
        for key, data in files:
            store.put(key, data, mode="create", use_multipart=False)
            durable.keep(folder / key)

    return write


if __name__ == "__main__":
    sys.stdout.write(str(_write_files(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
