"""What is left of the promises, by the older design's own rows, the stored bytes and what the outside knows."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from PIL import Image
from psycopg.rows import DictRow, dict_row

from bench.previous_design.outside import RefundDoor, open_books
from bench.previous_design.worker import PARTIAL_SHARE
from darkroom.torture.design import Sold, Surroundings, Verdict

PAYMENTS: Final[LiteralString] = (
    "SELECT id, status, photo_count, amount_minor, generation_consumed, refund_status, "
    "refund_amount_minor FROM payments ORDER BY id"
)
JOBS: Final[LiteralString] = (
    "SELECT id, payment_id, status, total_photos FROM generation_jobs ORDER BY id"
)
TASKS: Final[LiteralString] = (
    "SELECT job_id, prompt_index, status, callback_token FROM kie_tasks ORDER BY id"
)
PHOTOS: Final[LiteralString] = (
    "SELECT id, job_id, prompt_index, image_url, sha256 FROM generated_photos ORDER BY id"
)

Place = tuple[int, int]
"""A job and a prompt's index: one photo of one set."""


@dataclass(slots=True)
class _Books:
    """Everything that is written down anywhere.

    Attributes:
        stored: how many photos with true bytes each place has.
        dying: places whose photo is only at the provider's address.
        tasks: the statuses of each place's tasks.
        paid_back: minor units, by payment.
    """

    payments: dict[int, DictRow] = field(default_factory=dict[int, DictRow])
    jobs: dict[int, list[DictRow]] = field(default_factory=dict[int, list[DictRow]])
    stored: Counter[Place] = field(default_factory=Counter[Place])
    dying: set[Place] = field(default_factory=set[Place])
    tasks: dict[Place, list[str]] = field(default_factory=dict[Place, list[str]])
    tokens: set[str] = field(default_factory=set[str])
    paid_back: dict[int, int] = field(default_factory=dict[int, int])


async def judge(
    places: Surroundings, sold: Sequence[Sold], provider_tokens: Sequence[str]
) -> Verdict:
    """Count what was lost, doubled or can't be explained."""
    verdict = Verdict()
    books = await _read(places)
    verdict.photos = books.stored.total()
    for sale in sold:
        _judge_sale(verdict, books, sale)
    for payment_id in books.jobs.keys() - {sale.payment_id for sale in sold}:
        verdict.unexplained.append(f"payment {payment_id}: nobody's, and it has a job")
    for (job_id, index), statuses in books.tasks.items():
        extra = len(statuses) - 1
        verdict.doubled += [f"job {job_id}: another task for photo {index}"] * extra
    for token, times in Counter(provider_tokens).items():
        if token not in books.tokens:
            verdict.unexplained.append(f"provider task under {token}: no row knows it")
        verdict.doubled += [f"another provider task under {token}"] * (times - 1)
    return verdict


async def _read(places: Surroundings) -> _Books:
    books = _Books()
    async with await psycopg.AsyncConnection[DictRow].connect(
        places.calm_dsn, autocommit=True, row_factory=dict_row
    ) as connection:
        books.payments = {row["id"]: row for row in await _rows(connection, PAYMENTS)}
        for row in await _rows(connection, JOBS):
            books.jobs.setdefault(row["payment_id"], []).append(row)
        for row in await _rows(connection, TASKS):
            place = (row["job_id"], row["prompt_index"])
            books.tasks.setdefault(place, []).append(row["status"])
            books.tokens.add(str(row["callback_token"]))
        for row in await _rows(connection, PHOTOS):
            place = (row["job_id"], row["prompt_index"])
            if _is_whole(places.folder / "objects", row):
                books.stored[place] += 1
            else:
                books.dying.add(place)
    with closing(open_books(places.folder)) as outside:
        books.paid_back = RefundDoor(outside).paid_back()
    return books


async def _rows(
    connection: psycopg.AsyncConnection[DictRow], query: LiteralString
) -> list[dict[str, Any]]:
    return await (await connection.execute(query)).fetchall()


def _is_whole(objects: Path, row: DictRow) -> bool:
    """Whether the photo's bytes are ours, the same as ever, and a picture."""
    if row["sha256"] is None:
        return False
    try:
        data = (objects / row["image_url"]).read_bytes()
        Image.open(io.BytesIO(data)).load()
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == row["sha256"]


def _judge_sale(verdict: Verdict, books: _Books, sale: Sold) -> None:
    """One order: paid once, one job, each photo here or its money back."""
    payment = books.payments.get(sale.payment_id or 0)
    if not sale.paid_minor:
        if payment is not None and payment["id"] in books.jobs:
            verdict.unexplained.append(f"payment {payment['id']}: photos that nobody paid")
        return
    if payment is None:
        # E1: the bank was asked before anything was written.
        verdict.lost += [f"order paid at the bank and unknown to us: {sale}"] * sale.photos
        return
    name = f"payment {payment['id']} ({payment['status']})"
    jobs = books.jobs.get(payment["id"], [])
    job_ids = {int(job["id"]) for job in jobs} | sale.job_ids
    verdict.doubled += [f"{name}: paid {sale.bank_payments} times"] * (sale.bank_payments - 1)
    verdict.doubled += [f"{name}: jobs {sorted(job_ids)}"] * (len(job_ids) - 1)
    if payment["generation_consumed"] and not jobs:
        verdict.unexplained.append(f"{name}: consumed, and no job")
    _judge_money(verdict, books, sale, name)
    _judge_photos(verdict, books, payment, name)


def _judge_money(verdict: Verdict, books: _Books, sale: Sold, name: str) -> None:
    payment = books.payments[sale.payment_id or 0]
    if payment["amount_minor"] != sale.paid_minor or payment["status"] in ("pending", "canceled"):
        verdict.unexplained.append(
            f"{name}: the bank took {sale.paid_minor}, we say {payment['amount_minor']}"
        )
    back = books.paid_back.get(payment["id"], 0)
    if back != payment["refund_amount_minor"] or payment["refund_status"] == "processing":
        verdict.unexplained.append(
            f"{name}: the bank paid back {back}, we say {payment['refund_amount_minor']} "
            f"({payment['refund_status']})"
        )
    if back > payment["amount_minor"]:
        verdict.doubled.append(f"{name}: {back} paid back of {payment['amount_minor']}")


def _judge_photos(verdict: Verdict, books: _Books, payment: DictRow, name: str) -> None:
    jobs = books.jobs.get(payment["id"], [])
    wanted = [(int(job["id"]), index) for job in jobs for index in range(job["total_photos"])]
    here = {place for place in wanted if books.stored[place]}
    copies = sum(books.stored[place] - 1 for place in here)
    bought = int(payment["photo_count"])
    have = min(len(here), bought)
    verdict.doubled += [f"{name}: photo twice in one place"] * copies
    verdict.doubled += [f"{name}: a photo too many"] * (len(here) - have)
    back = books.paid_back.get(payment["id"], 0)
    whole = back >= payment["amount_minor"]
    # A partial refund is in whole rubles: it stands for the nearest number of photos.
    photos_back = bought if whole else round(back * bought / payment["amount_minor"])
    verdict.paid_back += photos_back
    missing = bought - have - photos_back
    absent = [place for place in wanted if place not in here]
    verdict.lost += _lost(books, absent, count=max(missing, 0), name=name)
    # Under 70 % the whole price goes back and the photos stay: both designs promise that to the buyer.
    if not whole or have >= PARTIAL_SHARE * bought:
        verdict.doubled += [f"{name}: a photo and its money"] * max(-missing, 0)


def _lost(books: _Books, absent: Sequence[Place], *, count: int, name: str) -> list[str]:
    """One complaint a photo, each with what is known of it."""
    found: list[str] = []
    for place in absent:
        if place in books.dying:
            known = "only at the provider's address"
        elif place in books.tasks:
            known = f"no photo, and its task is {'/'.join(books.tasks[place])}"
        else:
            known = "no photo and no task"
        found.append(f"{name}, job {place[0]}, photo {place[1]}: {known}")
    found += [f"{name}: paid, and never began"] * count
    return found[:count]
