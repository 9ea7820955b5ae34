"""What settings must be together: half a part stops the start, and so does one of another mode.

Every refusal is a ValueError of one line that never repeats a value, which may hold a secret.
"""

import re
from typing import TYPE_CHECKING, Final

from darkroom.settings_rules import (
    LINK_SECRET_MIN,
    LOOPBACK_HOSTS,
    is_loopback,
    is_remote_database,
    refuse_half_a_mailer,
    refuse_odd_endpoint,
    refuse_odd_fallback,
)

if TYPE_CHECKING:
    from darkroom.config import Settings


def refuse_what_does_not_fit(settings: "Settings") -> None:
    """Raises ValueError: the first rule that these settings break."""
    for refuse in _RULES:
        refuse(settings)


def _refuse_half_a_queue(settings: "Settings") -> None:
    needed: dict[str, object] = {
        "QSTASH_CURRENT_SIGNING_KEY": settings.qstash_current_signing_key,
        "QSTASH_NEXT_SIGNING_KEY": settings.qstash_next_signing_key,
    }
    if settings.qstash_token is None and not any(needed.values()):
        return
    if settings.qstash_token is not None or settings.mode == "production":
        # It would deliver what we could not verify, or to nowhere: the address is part of what is signed.
        needed["DARKROOM_PUBLIC_URL"] = settings.public_url
    for name, value in needed.items():
        if value is None:
            raise ValueError(f"QStash is half configured: {name} is not set")


def _refuse_half_configured(settings: "Settings") -> None:
    if settings.generation_provider == "kie" and settings.kie_api_key is None:
        raise ValueError("kie.ai is half configured: KIE_API_KEY is not set")
    if settings.kie_api_key is not None and settings.public_url is None:
        raise ValueError("kie.ai is half configured: DARKROOM_PUBLIC_URL is not set")
    if settings.kie_api_key is not None and settings.storage_url is None:
        raise ValueError(
            "kie.ai is half configured: DARKROOM_STORAGE_URL is not set, it could not read selfies"
        )


def _refuse_half_a_mailer(settings: "Settings") -> None:
    refuse_half_a_mailer(settings.mail_folder, settings.mail_from, is_demo=settings.mode == "demo")
    if settings.mode == "production" and settings.mail_folder and settings.public_url is None:
        raise ValueError(
            "mail is half configured: DARKROOM_PUBLIC_URL is not set, its links would lead nowhere"
        )


def _refuse_half_a_sandbox(settings: "Settings") -> None:
    """Only demo mode serves the bank itself, and makes its secret."""
    if settings.mode == "demo":
        return
    both = {
        "DARKROOM_SANDBOX_SECRET": settings.sandbox_secret,
        "DARKROOM_SANDBOX_URL": settings.sandbox_url,
    }
    missing = [name for name, value in both.items() if value is None]
    if len(missing) == 1:
        raise ValueError(f"the sandbox bank is half configured: {missing[0]} is not set")


def _refuse_serverless_alone(settings: "Settings") -> None:
    if not settings.serverless:
        return
    needed = {
        "DATABASE_URL": settings.database_url,
        "DARKROOM_STORAGE_URL": settings.storage_url,
        "DARKROOM_PUBLIC_URL": settings.public_url,
        "CRON_SECRET": settings.cron_secret,
    }
    for name, value in needed.items():
        if value is None:
            raise ValueError(f"serverless is half configured: {name} is not set")


def _refuse_half_a_store(settings: "Settings") -> None:
    keys = {
        "S3_ACCESS_KEY_ID": settings.s3_access_key_id,
        "S3_SECRET_ACCESS_KEY": settings.s3_secret_access_key,
    }
    if settings.storage_url is None:
        given = [name for name, value in keys.items() if value is not None]
        if given or settings.s3_endpoint is not None:
            name = given[0] if given else "S3_ENDPOINT"
            raise ValueError(f"{name} is set, and DARKROOM_STORAGE_URL is not: there is no bucket")
        return
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?", settings.storage_url):
        raise ValueError("DARKROOM_STORAGE_URL must be s3://bucket/optional/prefix")
    if any(part in ("", ".", "..") or not part.isprintable() for part in _prefix_of(settings)):
        raise ValueError(
            "DARKROOM_STORAGE_URL must be s3://bucket/optional/prefix, without //, . and .. in the prefix"
        )
    for name, value in keys.items():
        if value is None:
            raise ValueError(f"the object store is half configured: {name} is not set")
    if settings.s3_endpoint is None and settings.s3_region == "auto":
        raise ValueError(
            "the object store is half configured: S3_ENDPOINT is not set (Amazon's own: set S3_REGION)"
        )
    refuse_odd_endpoint(settings.s3_endpoint, is_demo=settings.mode == "demo")


def _prefix_of(settings: "Settings") -> list[str]:
    """Its parts, as a key has them; slashes around it are nobody's."""
    prefix = (settings.storage_url or "").removeprefix("s3://").partition("/")[2].strip("/")
    return prefix.split("/") if prefix else []


def _refuse_odd_fallback(settings: "Settings") -> None:
    refuse_odd_fallback(
        settings.fallback_names,
        first=settings.generation_provider,
        kie_model=settings.kie_model,
        has_kie=settings.kie_api_key is not None,
    )


def _refuse_a_day_without_a_photo(settings: "Settings") -> None:
    most = settings.kie_daily_credits_max
    if most is not None and most < settings.kie_price_credits:
        raise ValueError(
            "KIE_DAILY_CREDITS_MAX is less than KIE_PRICE_CREDITS: not one photo could be made"
        )


def _refuse_weak_links(settings: "Settings") -> None:
    shared = settings.database_url is not None and settings.mode != "demo"
    if shared and settings.link_secret is None:
        raise ValueError(
            "photos would have no links: with DATABASE_URL set, DARKROOM_LINK_SECRET must be, too"
        )
    for name, secret in (
        ("DARKROOM_LINK_SECRET", settings.link_secret),
        ("DARKROOM_LINK_SECRET_PREVIOUS", settings.link_secret_previous),
    ):
        if secret is not None and len(secret.get_secret_value()) < LINK_SECRET_MIN:
            raise ValueError(f"{name} is too short: it needs {LINK_SECRET_MIN} characters")


def _refuse_demo_with_real_parts(settings: "Settings") -> None:
    if settings.mode != "demo":
        return
    if settings.host not in LOOPBACK_HOSTS:
        raise ValueError("demo mode listens on loopback only: DARKROOM_HOST is something else")
    if settings.kie_api_key is not None and not is_loopback(settings.kie_base_url):
        raise ValueError("demo mode refuses real providers: KIE_API_KEY is set")
    if settings.qstash_token is not None and not is_loopback(settings.qstash_url):
        raise ValueError("demo mode refuses real providers: QSTASH_TOKEN is set")
    if settings.database_url is not None and is_remote_database(
        settings.database_url.get_secret_value()
    ):
        raise ValueError("demo mode refuses a real database: DATABASE_URL is not on loopback")
    if (
        settings.qstash_current_signing_key is not None
        and settings.public_url is not None
        and not is_loopback(settings.public_url)
    ):
        raise ValueError("demo mode refuses to be public: DARKROOM_PUBLIC_URL is set")


def _refuse_sandbox_money_for_real_photos(settings: "Settings") -> None:
    if (
        settings.mode == "production"
        and settings.sandbox_secret is not None
        and settings.kie_api_key is not None
    ):
        raise ValueError("DARKROOM_SANDBOX_SECRET is set: sandbox money would buy kie.ai's photos")
    if settings.mode == "demo" and settings.telegram_bot_token is not None:
        raise ValueError("demo mode refuses real providers: TELEGRAM_BOT_TOKEN is set")


_RULES: Final = (
    _refuse_half_a_queue,
    _refuse_half_configured,
    _refuse_half_a_mailer,
    _refuse_half_a_sandbox,
    _refuse_serverless_alone,
    _refuse_half_a_store,
    _refuse_odd_fallback,
    _refuse_a_day_without_a_photo,
    _refuse_weak_links,
    _refuse_demo_with_real_parts,
    _refuse_sandbox_money_for_real_photos,
)
