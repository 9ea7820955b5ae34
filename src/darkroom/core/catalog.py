"""Tiers, prices, styles and prompts. The tables are the truth; a payment copies what it bought."""

from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class Tier:
    """A size of set. `prices` maps a currency to minor units."""

    id: str
    title_ru: str
    title_en: str
    photo_count: int
    is_active: bool
    is_popular: bool
    position: int
    prices: dict[str, int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One picture of a style."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """A family of pictures."""

    id: str
    title_ru: str
    title_en: str
    description_ru: str
    description_en: str
    is_active: bool
    position: int
    prompts: tuple[Prompt, ...]


async def catalog_is_empty(tx: Connection) -> bool:
    """Whether nothing was ever imported."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT NOT EXISTS (SELECT FROM tiers) AND NOT EXISTS (SELECT FROM styles)"
        )
        return bool(await cursor.fetchone())


async def save_tier(tx: Connection, tier: Tier) -> None:
    """Insert or update a tier and its prices. What was bought before is untouched."""
    await tx.execute(
        """
        INSERT INTO tiers (id, title_ru, title_en, photo_count, is_active, is_popular, position)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET
            title_ru = EXCLUDED.title_ru, title_en = EXCLUDED.title_en,
            photo_count = EXCLUDED.photo_count, is_active = EXCLUDED.is_active,
            is_popular = EXCLUDED.is_popular, position = EXCLUDED.position
        """,
        [
            tier.id,
            tier.title_ru,
            tier.title_en,
            tier.photo_count,
            tier.is_active,
            tier.is_popular,
            tier.position,
        ],
    )
    await tx.execute(
        "DELETE FROM tier_prices WHERE tier_id = %s AND currency <> ALL(%s)",
        [tier.id, list(tier.prices)],
    )
    for currency, amount_minor in tier.prices.items():
        await tx.execute(
            "INSERT INTO tier_prices (tier_id, currency, amount_minor) VALUES (%s, %s, %s) "
            "ON CONFLICT (tier_id, currency) DO UPDATE SET amount_minor = EXCLUDED.amount_minor",
            [tier.id, currency, amount_minor],
        )


async def save_style(tx: Connection, style: Style) -> None:
    """Insert or update a style. Prompts it no longer lists become inactive, never deleted."""
    await tx.execute(
        """
        INSERT INTO styles (id, title_ru, title_en, description_ru, description_en, is_active, position)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET
            title_ru = EXCLUDED.title_ru, title_en = EXCLUDED.title_en,
            description_ru = EXCLUDED.description_ru, description_en = EXCLUDED.description_en,
            is_active = EXCLUDED.is_active, position = EXCLUDED.position
        """,
        [
            style.id,
            style.title_ru,
            style.title_en,
            style.description_ru,
            style.description_en,
            style.is_active,
            style.position,
        ],
    )
    await tx.execute(
        "UPDATE prompts SET is_active = FALSE WHERE style_id = %s AND key <> ALL(%s)",
        [style.id, [prompt.key for prompt in style.prompts]],
    )
    for position, prompt in enumerate(style.prompts):
        await tx.execute(
            "INSERT INTO prompts (style_id, key, text, position) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (style_id, key) DO UPDATE SET "
            "text = EXCLUDED.text, position = EXCLUDED.position, is_active = TRUE",
            [style.id, prompt.key, prompt.text, position],
        )


@dataclass(frozen=True, slots=True)
class Eligibility:
    """All a request for a set can be wrong about, in one read."""

    avatar_is_theirs: bool
    style_is_active: bool
    selfies: int
    good_selfies: int
    payment_is_ready: bool
    consumed_by_job_id: int | None
    has_paid_before: bool
    open_jobs: int


ELIGIBILITY: Final = """
WITH mine AS (
    SELECT p.id, p.status, p.generation_consumed, p.consumed_at,
           p.order_avatar_id, p.order_style_id
    FROM payments p
    WHERE p.user_id = %(user_id)s
      AND (%(payment_id)s::BIGINT IS NULL OR p.id = %(payment_id)s)
)
SELECT
    EXISTS (SELECT FROM avatars a WHERE a.id = %(avatar_id)s
            AND a.user_id = %(user_id)s AND a.deleted_at IS NULL) AS avatar_is_theirs,
    EXISTS (SELECT FROM styles s JOIN prompts q ON q.style_id = s.id AND q.is_active
            WHERE s.id = %(style_id)s AND s.is_active) AS style_is_active,
    (SELECT count(*) FROM reference_photos r
     WHERE r.avatar_id = %(avatar_id)s AND r.deleted_at IS NULL) AS selfies,
    -- Of each that was looked at before there were verdicts, nothing bad is known.
    (SELECT count(*) FROM reference_photos r
     WHERE r.avatar_id = %(avatar_id)s AND r.deleted_at IS NULL
       AND coalesce(r.verdict -> 'severe', '[]') = '[]') AS good_selfies,
    EXISTS (SELECT FROM mine m WHERE m.status = 'succeeded' AND NOT m.generation_consumed
            AND (m.order_avatar_id IS NULL
                 OR (m.order_avatar_id = %(avatar_id)s
                     AND m.order_style_id = %(style_id)s))) AS payment_is_ready,
    (SELECT j.id FROM mine m JOIN generation_jobs j ON j.payment_id = m.id
     WHERE m.generation_consumed
     ORDER BY m.consumed_at DESC, m.id DESC LIMIT 1) AS consumed_by_job_id,
    EXISTS (SELECT FROM mine m WHERE m.generation_consumed) AS has_paid_before,
    (SELECT count(*) FROM generation_jobs j WHERE j.user_id = %(user_id)s
     AND j.status IN ('pending', 'processing')) AS open_jobs
"""


async def check_eligibility(
    tx: Connection, *, user_id: int, avatar_id: int, style_id: str, payment_id: int | None
) -> Eligibility:
    """What is wrong with a request, before anything is consumed. A look, not a decision."""
    async with tx.cursor(row_factory=class_row(Eligibility)) as cursor:
        await cursor.execute(
            ELIGIBILITY,
            {
                "user_id": user_id,
                "avatar_id": avatar_id,
                "style_id": style_id,
                "payment_id": payment_id,
            },
        )
        row = await cursor.fetchone()
        if row is None:
            raise AssertionError("a SELECT without FROM gave no row")
        return row


async def load_catalog(tx: Connection) -> tuple[list[Tier], list[Style]]:
    """The whole catalog as it stands, in display order; prompts that are inactive are left out."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            "SELECT t.id, t.title_ru, t.title_en, t.photo_count, t.is_active, t.is_popular, t.position, "
            "coalesce((SELECT jsonb_object_agg(p.currency, p.amount_minor) FROM tier_prices p "
            "WHERE p.tier_id = t.id), '{}') FROM tiers t ORDER BY t.position, t.id"
        )
        tiers = [Tier(*row) for row in await cursor.fetchall()]
        await cursor.execute(
            "SELECT style_id, key, text FROM prompts WHERE is_active ORDER BY style_id, position, id"
        )
        prompts: dict[str, list[Prompt]] = {}
        for style_id, key, text in await cursor.fetchall():
            prompts.setdefault(style_id, []).append(Prompt(key, text))
        await cursor.execute(
            "SELECT id, title_ru, title_en, description_ru, description_en, is_active, position "
            "FROM styles ORDER BY position, id"
        )
        styles = [
            Style(*row, prompts=tuple(prompts.get(row[0], ()))) for row in await cursor.fetchall()
        ]
    return tiers, styles
