"""Darkroom itself, as something to be tortured."""

import hashlib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from darkroom.adapters.storage import Storage, open_storage
from darkroom.config import IsolatedSettings
from darkroom.core.audit import run_audit
from darkroom.db.database import Database
from darkroom.db.migrate import migrate
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.place_dev_order import place_dev_order
from darkroom.flow.prepare import prepare
from darkroom.flow.reconcile import Look, reconcile
from darkroom.ports.intake import RefusalCode, Selfie
from darkroom.ports.storage import ObjectMissingError
from darkroom.torture.design import Held, Made, Rented, Sold, Standing, Surroundings, Verdict
from darkroom.torture.plan import Plan
from darkroom.wiring import bundled_catalog, bundled_portrait, open_darkroom, store_place

POOL_SIZE: Final = 22
"""Of one process, as in production: five of them stay far below the embedded server's 200 connections."""
ATTEMPTS_MAX: Final = 6
"""A photo of a bad day may need more tries than one of a good one; each is in the ledger."""
LINK_SECRET: Final = "torture-signs-links-with-this-key"  # noqa: S105 - of a database that lives for minutes

STANDING: Final = """
SELECT (SELECT count(*) FROM generated_photos) AS photos,
    (SELECT count(*) FROM generation_jobs
     WHERE status NOT IN ('pending', 'processing')) AS jobs_ended,
    (SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing'))
    + (SELECT count(*) FROM kie_tasks WHERE status NOT IN ('completed', 'failed'))
    + (SELECT count(*) FROM inbox WHERE processed_at IS NULL)
    + (SELECT count(*) FROM payments WHERE status = 'pending')
    + (SELECT count(*) FROM refunds WHERE status IN ('requested', 'sending', 'unknown'))
    + (SELECT count(*) FROM payments WHERE status = 'succeeded' AND NOT generation_consumed
       AND order_style_id IS NOT NULL) AS open_work
"""
HELD: Final = """
SELECT kind, id, mark, extract(epoch FROM lease_until - darkroom_now())::FLOAT8 FROM (
    SELECT 'task' AS kind, id, claim || ' ' || status AS mark, lease_until FROM kie_tasks
    UNION ALL SELECT 'job', id, claim || ' ' || status, lease_until FROM generation_jobs
    UNION ALL SELECT 'payment', id, claim || ' ' || status, lease_until FROM payments
    UNION ALL SELECT 'refund', id, claim || ' ' || status, lease_until FROM refunds
    UNION ALL SELECT 'message', id, claim::TEXT, lease_until FROM inbox WHERE processed_at IS NULL
) held WHERE lease_until IS NOT NULL
"""
PAYMENTS: Final = """
SELECT p.id, p.status, p.amount_minor, p.photo_count, p.generation_consumed,
    (SELECT policy.whole_price_below_percent FROM refund_policies policy WHERE policy.id = p.policy_id)
    AS whole_below_percent,
    coalesce(array_agg(DISTINCT j.id) FILTER (WHERE j.id IS NOT NULL), '{}') AS jobs,
    count(DISTINCT g.id) AS photos, count(DISTINCT (g.job_id, t.prompt_index)) AS places,
    count(DISTINCT l.task_id) FILTER (WHERE g.id IS NULL) AS lines,
    count(DISTINCT l.task_id) FILTER (WHERE g.id IS NOT NULL AND l.kind = 'shortfall') AS both,
    (SELECT coalesce(sum(r.amount_minor), 0) FROM refunds r WHERE r.payment_id = p.id) AS owed_minor,
    (SELECT coalesce(sum(r.amount_minor), 0) FROM refunds r
     WHERE r.payment_id = p.id AND r.status = 'succeeded') AS settled_minor,
    (SELECT count(*) FROM refunds r WHERE r.payment_id = p.id AND r.status = 'failed') AS refused
FROM payments p LEFT JOIN generation_jobs j ON j.payment_id = p.id
LEFT JOIN kie_tasks t ON t.job_id = j.id LEFT JOIN generated_photos g ON g.task_id = t.id
LEFT JOIN refund_lines l ON l.task_id = t.id GROUP BY p.id ORDER BY p.id
"""

ATTEMPTS: Final = """
SELECT a.token::TEXT AS token, t.prompt, t.avatar_id, g.id AS photo_id, g.sha256
FROM task_attempts a JOIN kie_tasks t ON t.id = a.task_id
LEFT JOIN generated_photos g ON g.attempt_id = a.id
"""


class Ours:
    """Darkroom."""

    name = "darkroom"
    starts_by_notice = True
    rents = True

    def _settings(self, places: Surroundings, *, calm: bool) -> dict[str, str]:
        settings = {
            "DARKROOM_MODE": "demo",
            "DARKROOM_DATA_DIR": str(places.folder),
            "DARKROOM_PORT": str(places.server_port),
            "DATABASE_URL": places.calm_dsn if calm else places.dsn,
            "DARKROOM_DATABASE_POOL_SIZE": str(POOL_SIZE),
            "DARKROOM_LINK_SECRET": LINK_SECRET,
            "DARKROOM_SANDBOX_URL": places.bank_url,
            "DARKROOM_SANDBOX_SECRET": places.bank_secret,
            "DARKROOM_LOG": "json",
            "KIE_BASE_URL": places.provider_url,
            # kie.ai's own limit would make the run a test of patience: the window is that of its stand-in.
            "KIE_WINDOW_REQUESTS": "2000",
            "QSTASH_CURRENT_SIGNING_KEY": places.queue_key,
            "QSTASH_NEXT_SIGNING_KEY": places.queue_key,
        }
        return settings | (_rented(places, places.rented, calm=calm) if places.rented else {})

    async def prepare(self, places: Surroundings, plan: Plan) -> dict[int, int]:
        """Migrate, stock, and give each customer an avatar with one selfie."""
        settings = IsolatedSettings.model_validate(self._settings(places, calm=True))
        avatars: dict[int, int] = {}
        async with open_darkroom(settings) as darkroom:
            await migrate(darkroom.database)
            await prepare(darkroom, bundled_catalog())
            once = _seen_once(darkroom)
            for number, telegram_user_id in enumerate(plan.customers, start=1):
                made = await place_dev_order(
                    once,
                    telegram_user_id=telegram_user_id,
                    avatar_id=number,
                    tier_id=None,
                    selfie=bundled_portrait(),
                )
                avatars[telegram_user_id] = made.avatar_id
        return avatars

    def command(self, places: Surroundings, role: str, *, life: str) -> Sequence[str]:
        """The real server or worker."""
        del places
        return [sys.executable, "-m", "darkroom.torture.process", role, life]

    def environment(self, places: Surroundings) -> Mapping[str, str]:
        """Settings as an operator would write them."""
        return {
            **self._settings(places, calm=False),
            "TORTURE_KIE_KEY": places.provider_key,
            "TORTURE_PUBLIC_URL": places.server_url,
        }

    async def standing(self, connection: psycopg.AsyncConnection[Any]) -> Standing:
        """Counted over the queue itself: the rows."""
        photos, jobs_ended, open_work = await (await connection.execute(STANDING)).fetchone() or (
            0,
            0,
            0,
        )
        return Standing(photos, jobs_ended, open_work)

    async def held(self, connection: psycopg.AsyncConnection[Any]) -> list[Held]:
        """Everything with a lease."""
        return [Held(*row) for row in await (await connection.execute(HELD)).fetchall()]

    async def newest_move(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """The move log's last line."""
        row = await (await connection.execute("SELECT max(id) FROM move_log")).fetchone()
        return int((row or (0,))[0] or 0)

    async def judge(
        self, places: Surroundings, sold: Sequence[Sold], made: Sequence[Made]
    ) -> Verdict:
        """Our rows against the bank's books, the provider's list and the stored bytes."""
        verdict = Verdict()
        database = Database(places.calm_dsn, pool_size=4)
        await database.open()
        try:
            report = await run_audit(database)
            for finding in report.findings:
                verdict.unexplained.append(
                    f"audit: {finding.name} ({finding.count}): {finding.rows[:2]}"
                )
            rows = await _rows(database, PAYMENTS)
            _judge_payments(verdict, {row["id"]: row for row in rows}, sold)
            if places.bank_secret:
                await self._reconcile(verdict, places)
            settings = IsolatedSettings.model_validate(self._settings(places, calm=True))
            store = open_storage(store_place(settings), places.folder / "objects")
            await _judge_bytes(verdict, database, store)
            _judge_making(verdict, await _rows(database, ATTEMPTS), made)
        finally:
            await database.close()
        return verdict

    async def _reconcile(self, verdict: Verdict, places: Surroundings) -> None:
        """`darkroom reconcile`, as an operator would run it after such a day."""
        settings = IsolatedSettings.model_validate(self._settings(places, calm=True))
        async with open_darkroom(settings) as darkroom:
            looked = await reconcile(darkroom, "sandbox", Look(days=1, grace_seconds=0))
        if looked.failure is not None:
            verdict.unexplained.append(f"reconcile: {looked.failure}")
        verdict.unexplained += [
            f"reconcile: {one.kind} {one.subject}: ours {one.ours_minor}, theirs {one.theirs_minor}"
            for one in looked.differences
        ]
        verdict.lines_reconciled = looked.lines


def _rented(places: Surroundings, rented: Rented, *, calm: bool) -> dict[str, str]:
    """A store, a queue that rings, and kie.ai by the production wiring: signed links and callbacks."""
    return {
        "DARKROOM_PUBLIC_URL": places.server_url,
        "DARKROOM_GENERATION_PROVIDER": "kie",
        "DARKROOM_MAX_GENERATION_ATTEMPTS": str(ATTEMPTS_MAX),
        "DARKROOM_ALLOW_PRIVATE_DOWNLOADS": "true",
        "KIE_API_KEY": places.provider_key,
        "KIE_WEBHOOK_HMAC_KEY": rented.callback_key,
        "DARKROOM_STORAGE_URL": f"s3://{rented.bucket}",
        "S3_ENDPOINT": rented.calm_store_endpoint if calm else rented.store_endpoint,
        "S3_ACCESS_KEY_ID": rented.store_key_id,
        "S3_SECRET_ACCESS_KEY": rented.store_secret,
        "QSTASH_URL": rented.queue_url,
        "QSTASH_TOKEN": rented.queue_token,
        "QSTASH_NEXT_SIGNING_KEY": rented.next_queue_key,
    }


class _OneLook:
    """The real intake's answer about one file, given again for the same file."""

    def __init__(
        self, look: Callable[[Callable[[], bytes]], Awaitable[Selfie | RefusalCode]]
    ) -> None:
        self._look = look
        self._seen: Selfie | RefusalCode | None = None

    async def look(self, read: Callable[[], bytes]) -> Selfie | RefusalCode:
        if self._seen is None:
            self._seen = await self._look(read)
        return self._seen

    async def warm(self) -> None:
        """Nothing to warm."""

    async def close(self) -> None:
        """Nothing to close."""


def _seen_once(darkroom: Darkroom) -> Darkroom:
    return replace(darkroom, intake=_OneLook(darkroom.intake.look))


async def _rows(database: Database, query: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - constants above
    async with database.connection() as tx, tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()


def _judge_payments(
    verdict: Verdict, payments: Mapping[int, dict[str, Any]], sold: Sequence[Sold]
) -> None:
    """Each order: paid once, one job, each photo here or its money on the way back."""
    for sale in sold:
        row = payments.get(sale.payment_id or 0)
        if sale.payment_id is None:
            verdict.lost.append("a customer who pressed for two minutes and was never answered")
        several = sorted(sale.payment_ids)
        verdict.doubled += [f"payments {several} for one order"] * (len(several) - 1)
        if not sale.paid_minor:
            if row is not None and row["jobs"]:
                verdict.unexplained.append(f"payment {row['id']}: photos that nobody paid")
            continue
        if row is None:
            verdict.lost += [f"order paid at the bank and unknown to us: {sale}"] * sale.photos
            continue
        name = f"payment {row['id']} ({row['status']})"
        if row["amount_minor"] != sale.paid_minor or row["status"] == "pending":
            verdict.unexplained.append(
                f"{name}: the bank took {sale.paid_minor}, we say {row['amount_minor']}"
            )
        _judge_what_was_sold(verdict, row, sale, name)
        verdict.doubled += [f"{name}: paid {sale.bank_payments} times"] * (sale.bank_payments - 1)
        jobs = set(row["jobs"]) | sale.job_ids
        verdict.doubled += [f"{name}: jobs {sorted(jobs)}"] * (len(jobs) - 1)
        missing = row["photo_count"] - row["photos"] - row["lines"]
        verdict.lost += [f"{name}: a photo neither here nor paid back"] * max(missing, 0)
        verdict.doubled += [f"{name}: a photo too many"] * max(
            row["photos"] - row["photo_count"], 0
        )
        verdict.doubled += [f"{name}: photo twice in one place"] * (row["photos"] - row["places"])
        verdict.doubled += [f"{name}: a photo and its money"] * row["both"]
        verdict.paid_back += row["lines"]
        _judge_refunds(verdict, row, sale, name)
    strangers = payments.keys() - {sale.payment_id for sale in sold}
    for payment_id in strangers:
        if payments[payment_id]["jobs"]:
            verdict.unexplained.append(f"payment {payment_id}: nobody's, and it has a job")


def _judge_what_was_sold(verdict: Verdict, row: dict[str, Any], sale: Sold, name: str) -> None:
    """Held against the plan, which knows what stands at the door: not against our own answers."""
    price = sale.price_minor
    if price is not None and sale.paid_minor != price * sale.bank_payments:
        verdict.unexplained.append(f"{name}: the bank took {sale.paid_minor}, the price is {price}")
    if row["photo_count"] != sale.photos:
        verdict.unexplained.append(
            f"{name}: sold as {sale.photos} photos, we say {row['photo_count']}"
        )


def _judge_refunds(verdict: Verdict, row: dict[str, Any], sale: Sold, name: str) -> None:
    """What is owed went back once, by the bank's own books; what it refuses for good is with a person."""
    verdict.returned_minor += sale.returned_minor
    verdict.with_a_person += row["refused"]
    most = _most_owed_minor(row)
    if row["owed_minor"] > most:
        verdict.doubled.append(
            f"{name}: {row['owed_minor']} go back where {most} are missing at most"
        )
    if sale.returned_minor > row["owed_minor"]:
        verdict.doubled.append(
            f"{name}: the bank gave back {sale.returned_minor} of {row['owed_minor']} owed"
        )
    if sale.returned_minor != row["settled_minor"]:
        verdict.unexplained.append(
            f"{name}: the bank gave back {sale.returned_minor}, we say {row['settled_minor']}"
        )
    if row["settled_minor"] < row["owed_minor"] and not (row["refused"] and sale.refuses_refunds):
        verdict.lost.append(
            f"{name}: {row['owed_minor'] - row['settled_minor']} minor units still owed"
        )


def _most_owed_minor(row: dict[str, Any]) -> int:
    """The missing photos' shares, rounded up; all of it below the policy's share of photos."""
    price, count, photos = row["amount_minor"], row["photo_count"], row["photos"]
    if not row["jobs"] or photos * 100 < row["whole_below_percent"] * count:
        return int(price)
    return int((count - photos) * (price // count + 1))


def _judge_making(
    verdict: Verdict, attempts: Sequence[dict[str, Any]], made: Sequence[Made]
) -> None:
    """Whose is what: by the provider's books, not by our own hashes of what we kept.

    Each task of its list is one attempt of ours, made of its own customer's selfies, and each photo is the
    picture that was made for it.
    """
    known = {row["token"]: row for row in attempts}
    for token, times in Counter(one.token for one in made).items():
        if token not in known:
            verdict.unexplained.append(f"provider task under {token}: in no attempt")
        elif times > 1:
            verdict.doubled.append(f"{times} provider tasks for the one attempt {token}")
    pictures: dict[str, set[str | None]] = {}
    for one in made:
        pictures.setdefault(one.token, set()).add(one.sha256)
        row = known.get(one.token)
        if row is None:
            continue
        if one.prompt != row["prompt"]:
            verdict.unexplained.append(f"provider task under {one.token}: another prompt than ours")
        if not one.links or not all(
            f"/references/{row['avatar_id']}/" in link for link in one.links
        ):
            verdict.unexplained.append(f"provider task under {one.token}: another's selfies")
    verdict.unexplained += [
        f"photo {row['photo_id']}: not the picture that was made for it"
        for row in attempts
        if row["photo_id"] is not None and row["sha256"] not in pictures.get(row["token"], ())
    ]


async def _judge_bytes(verdict: Verdict, database: Database, store: Storage) -> None:
    """Each photo's bytes, read and hashed again, around the proxy that fails."""
    for row in await _rows(
        database, "SELECT id, object_key, sha256 FROM generated_photos ORDER BY id"
    ):
        try:
            data = await store.get(row["object_key"])
        except ObjectMissingError:
            verdict.lost.append(f"photo {row['id']}: no bytes")
            continue
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            verdict.lost.append(f"photo {row['id']}: other bytes")
            continue
        verdict.photos += 1
