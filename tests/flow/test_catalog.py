"""The catalog: seeded from a file, true in the tables, never changing what was bought."""

import tomllib

import pytest

from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.stock_catalog import (
    CatalogFileError,
    export_catalog,
    parse_catalog,
    stock_catalog,
)
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.wiring import bundled_catalog
from tests.shop import Shop


def test_the_bundled_catalog_is_what_customers_know() -> None:
    tiers, styles = parse_catalog(bundled_catalog())
    assert {
        tier.id: (tier.photo_count, tier.prices["RUB"], tier.prices["XTR"]) for tier in tiers
    } == {
        "starter": (7, 49900, 99),
        "standard": (15, 99900, 199),
        "premium": (23, 149900, 299),
    }
    assert {style.id: len(style.prompts) for style in styles} == {
        "signature": 23,
        "professional": 7,
        "lifestyle": 9,
        "creative": 9,
    }
    texts = [prompt.text for style in styles for prompt in style.prompts]
    assert len(set(texts)) == 48


async def test_what_is_exported_reads_back_to_the_same(shop: Shop) -> None:
    text = await export_catalog(shop.database)
    await stock_catalog(shop.database, text, only_if_empty=False)
    assert await export_catalog(shop.database) == text
    assert parse_catalog(text) == parse_catalog(bundled_catalog())


async def test_a_policy_holds_for_what_is_sold_under_it(shop: Shop) -> None:
    """bugbook C11: in one place, and the buyer's own for ever."""
    earlier, later = await shop.customer(), await shop.customer()
    await shop.paid(earlier)
    text = bundled_catalog().replace(
        "whole_price_below_percent = 70", "whole_price_below_percent = 90"
    )
    for _ in range(2):
        await stock_catalog(shop.database, text, only_if_empty=False)
    await shop.paid(later)
    assert await shop.value("SELECT count(*) FROM refund_policies") == 2

    async def fail_one(request: GenerationRequest) -> FailedThere | None:
        failed = request.prompt_index == 0
        return FailedThere("400", "no", Again.NEVER) if failed else None

    shop.provider.on_ask = fail_one
    for customer in (earlier, later):
        await shop.start(customer)
    await shop.drain()
    reasons = await shop.rows("SELECT reason FROM refunds ORDER BY payment_id")
    assert [row["reason"] for row in reasons] == ["shortfall", "below_threshold"]


@pytest.mark.parametrize(
    "policy",
    [
        "late_mony = 'start'",
        "late_money = 'keep'",
        "redo_photos = 101",
        "unused_refund_days = 1",
        "x = 1",
        "unused_remind_days = '3'",
    ],
)
async def test_a_policy_that_is_none_changes_nothing(shop: Shop, policy: str) -> None:
    text = bundled_catalog().split("[[tiers]]", 1)
    broken = f"[policy]\n{policy}\n[[tiers]]{text[1]}"
    with pytest.raises(CatalogFileError):
        await stock_catalog(shop.database, broken, only_if_empty=False)
    assert await shop.value("SELECT count(*) FROM refund_policies") == 1


async def test_an_edit_never_changes_what_was_bought(shop: Shop) -> None:
    customer = await shop.customer()
    await shop.paid(customer)
    text = bundled_catalog().replace("photo_count = 7", "photo_count = 3").replace("49900", "100")
    await stock_catalog(shop.database, text, only_if_empty=False)
    job = await shop.start(customer)
    assert job.total_photos == 7
    assert await shop.value("SELECT sum(share_minor) FROM kie_tasks") == 49900
    await shop.drain()
    later = await shop.ordered(customer)
    bought = await shop.rows("SELECT photo_count, amount_minor FROM payments WHERE id = %s", later)
    assert bought == [{"photo_count": 3, "amount_minor": 100}]


async def test_a_style_that_lost_a_prompt_keeps_it_for_the_books(shop: Shop) -> None:
    content = tomllib.loads(await export_catalog(shop.database))
    dropped = content["styles"][1]["prompts"][0]["key"]
    style = content["styles"][1]["id"]
    text = (await export_catalog(shop.database)).replace(f'"{dropped}"', '"another"')
    await stock_catalog(shop.database, text, only_if_empty=False)
    rows = await shop.rows(
        "SELECT is_active FROM prompts WHERE style_id = %s AND key = %s", style, dropped
    )
    assert rows == [{"is_active": False}]


@pytest.mark.parametrize(
    ("tier", "change"),
    [
        ("gold", None),
        ("starter", "UPDATE tiers SET is_active = FALSE"),
        ("starter", "DELETE FROM tier_prices WHERE currency = 'RUB'"),
    ],
)
async def test_what_is_unknown_inactive_or_unpriced_cannot_be_bought(
    shop: Shop, tier: str, change: str | None
) -> None:
    customer = await shop.customer()
    if change is not None:
        async with shop.database.connection() as tx:
            await tx.execute(change.encode())
    with pytest.raises(RequestRefusedError, match="TIER_NOT_FOUND"):
        await shop.ordered(customer, tier=tier)
    assert await shop.value("SELECT count(*) FROM payments") == 0


@pytest.mark.parametrize(
    "text", ["", "tiers = 1", "[[tiers]]\nid = 'x'", "not toml", "tiers = []\nstyles = [1]"]
)
async def test_what_is_no_catalog_changes_nothing(shop: Shop, text: str) -> None:
    with pytest.raises(CatalogFileError):
        await stock_catalog(shop.database, text, only_if_empty=False)
    assert await shop.value("SELECT count(*) FROM tiers") == 3


async def test_a_price_of_zero_is_refused_by_the_database(shop: Shop) -> None:
    text = bundled_catalog().replace("49900", "0")
    with pytest.raises(Exception, match="amount_minor"):
        await stock_catalog(shop.database, text, only_if_empty=False)
    assert (
        await shop.value(
            "SELECT amount_minor FROM tier_prices WHERE tier_id = 'starter' AND currency = 'RUB'"
        )
        == 49900
    )
