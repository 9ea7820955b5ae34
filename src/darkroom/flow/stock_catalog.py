"""catalog.toml -> the catalog's tables."""

import tomllib
from dataclasses import asdict
from typing import Any

import tomlkit

from darkroom.core.catalog import (
    Prompt,
    Style,
    Tier,
    catalog_is_empty,
    load_catalog,
    save_style,
    save_tier,
)
from darkroom.core.refund_policy import POLICY_NAMES, RefundPolicy, load_policy, save_policy
from darkroom.db.database import Database


class CatalogFileError(Exception):
    """The file is not a catalog; the text says where."""


def parse_catalog(text: str) -> tuple[list[Tier], list[Style]]:
    """Read a catalog file. Raises CatalogFileError."""
    try:
        content = tomllib.loads(text)
        tiers = [_tier(entry, place) for place, entry in enumerate(content["tiers"])]
        styles = [_style(entry, place) for place, entry in enumerate(content["styles"])]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CatalogFileError(f"not a catalog: {error!r}") from error
    return tiers, styles


def parse_policy(text: str) -> RefundPolicy | None:
    """The `[policy]` table of a catalog file; None: it has none. Raises CatalogFileError."""
    try:
        entry: dict[str, Any] | None = tomllib.loads(text).get("policy")
    except tomllib.TOMLDecodeError as error:
        raise CatalogFileError(f"not a catalog: {error!r}") from error
    if entry is None:
        return None
    unknown = set(entry) - set(POLICY_NAMES)
    if unknown:
        raise CatalogFileError(f"the policy knows no {', '.join(sorted(unknown))}")
    try:
        return RefundPolicy(**entry)
    except (TypeError, ValueError) as error:
        raise CatalogFileError(f"the policy: {error}") from error


def _tier(entry: dict[str, Any], place: int) -> Tier:
    return Tier(
        id=entry["id"],
        title_ru=entry["title_ru"],
        title_en=entry["title_en"],
        photo_count=entry["photo_count"],
        is_active=entry.get("is_active", True),
        is_popular=entry.get("is_popular", False),
        position=entry.get("position", place),
        prices=dict(entry["prices"]),
    )


def _style(entry: dict[str, Any], place: int) -> Style:
    return Style(
        id=entry["id"],
        title_ru=entry["title_ru"],
        title_en=entry["title_en"],
        description_ru=entry.get("description_ru", ""),
        description_en=entry.get("description_en", ""),
        is_active=entry.get("is_active", True),
        position=entry.get("position", place),
        prompts=tuple(Prompt(prompt["key"], prompt["text"]) for prompt in entry["prompts"]),
    )


async def export_catalog(database: Database) -> str:
    """The catalog as a file that `stock_catalog` reads back to the same tables."""
    async with database.connection() as tx:
        tiers, styles = await load_catalog(tx)
        policy = await load_policy(tx)
    document = tomlkit.document()
    document.add("policy", tomlkit.item(asdict(policy)))
    document.add("tiers", tomlkit.item([asdict(tier) for tier in tiers]))
    document.add("styles", tomlkit.item([_plain(style) for style in styles]))
    return tomlkit.dumps(document)


def _plain(style: Style) -> dict[str, Any]:
    return {**asdict(style), "prompts": [asdict(prompt) for prompt in style.prompts]}


async def stock_catalog(database: Database, text: str, *, only_if_empty: bool) -> bool:
    """Write a catalog file into the tables, all or nothing. False: there was one already.

    What was bought before keeps its own copy of count, price, prompts and refund policy.

    Raises:
        CatalogFileError: the file is not a catalog; nothing was changed.
    """
    tiers, styles = parse_catalog(text)
    policy = parse_policy(text)
    async with database.transaction() as tx:
        if only_if_empty and not await catalog_is_empty(tx):
            return False
        for tier in tiers:
            await save_tier(tx, tier)
        for style in styles:
            await save_style(tx, style)
        if policy is not None:
            await save_policy(tx, policy)
    return True
