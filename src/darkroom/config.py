"""Settings: typed, read once, from the environment. Half-configured parts stop the start."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from darkroom.settings_rules import (
    LINK_SECRET_MIN,
    LOOPBACK_HOSTS,
    Address,
    AddressWithPath,
    Amount,
    KieModel,
    OwnAddress,
    Secret,
    Text,
    Word,
    is_loopback,
    is_remote_database,
    refuse_half_a_mailer,
    refuse_odd_endpoint,
    refuse_odd_fallback,
    strip,
    strip_only,
)


class SettingsError(Exception):
    """The environment cannot be started with. The text is one clear line for the operator."""


class Settings(BaseSettings):
    """All of Darkroom's settings. Each field's description stands in docs/operating.md."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore", frozen=True)

    mode: Annotated[Literal["production", "demo"], BeforeValidator(strip)] = Field(
        "production",
        alias="DARKROOM_MODE",
        description="`demo` trusts a bare telegramUserId on loopback",
    )
    data_dir: Annotated[Path, BeforeValidator(strip_only)] = Field(
        Path(".darkroom"),
        alias="DARKROOM_DATA_DIR",
        description="the embedded database and local photos",
    )
    brand_folder: Annotated[Path | None, BeforeValidator(strip)] = Field(
        None, alias="DARKROOM_BRAND", description="your name, colours, legal pages and examples"
    )
    serverless: bool = Field(
        False,
        alias="DARKROOM_SERVERLESS",
        description="no worker lives anywhere: queue deliveries and cron calls do the work",
    )
    host: Word = Field(
        "127.0.0.1", alias="DARKROOM_HOST", description="address the server listens on"
    )
    port: int = Field(8000, alias="DARKROOM_PORT", ge=0, le=65535, description="port it listens on")
    public_url: OwnAddress = Field(
        None,
        alias="DARKROOM_PUBLIC_URL",
        description="how the outside reaches us; needed by real providers",
    )
    database_url: Secret = Field(
        None, alias="DATABASE_URL", description="PostgreSQL; unset starts the embedded one"
    )
    database_pool_size: int = Field(
        23,
        alias="DARKROOM_DATABASE_POOL_SIZE",
        ge=2,
        le=200,
        description="connections of one process",
    )
    database_prepare: bool = Field(
        True,
        alias="DARKROOM_DATABASE_PREPARE",
        description="off behind a pooler that does not know prepared statements",
    )
    storage_url: Text = Field(
        None,
        alias="DARKROOM_STORAGE_URL",
        description="object store; unset keeps photos in the data folder",
    )
    s3_endpoint: Text = Field(
        None, alias="S3_ENDPOINT", description="the object store's address; unset is Amazon's own"
    )
    s3_region: Annotated[str, BeforeValidator(lambda value: strip(value) or "auto")] = Field(
        "auto", alias="S3_REGION", description="the bucket's region; R2 has only `auto`"
    )
    s3_access_key_id: Text = Field(
        None, alias="S3_ACCESS_KEY_ID", description="the key to the bucket"
    )
    s3_secret_access_key: Secret = Field(
        None, alias="S3_SECRET_ACCESS_KEY", description="the key's secret"
    )
    generation_provider: Annotated[Literal["studio", "kie"], BeforeValidator(strip)] = Field(
        "studio",
        alias="DARKROOM_GENERATION_PROVIDER",
        description="who makes the photos of new sets",
    )
    studio_processes: int = Field(
        2, alias="DARKROOM_STUDIO_PROCESSES", ge=1, le=16, description="CPU processes of the studio"
    )
    intake_processes: int = Field(
        2,
        alias="DARKROOM_INTAKE_PROCESSES",
        ge=1,
        le=16,
        description="CPU processes that open customers' files",
    )
    kie_api_key: Secret = Field(None, alias="KIE_API_KEY", description="turns kie.ai on")
    kie_base_url: Address = Field(
        "https://api.kie.ai", alias="KIE_BASE_URL", description="kie.ai's address"
    )
    kie_window_requests: int = Field(
        20, alias="KIE_WINDOW_REQUESTS", ge=1, description="creations kie.ai takes in one window"
    )
    kie_window_seconds: float = Field(
        10.25,
        alias="KIE_WINDOW_SECONDS",
        gt=0,
        description="the window, with a little for the road",
    )
    kie_model: KieModel = Field("nano-banana-pro", alias="KIE_MODEL", description="kie.ai's model")
    kie_price_credits: float = Field(
        18,
        alias="KIE_PRICE_CREDITS",
        gt=0,
        allow_inf_nan=False,
        description="credits that one photo is expected to cost",
    )
    kie_credits_low: float = Field(
        2000,
        alias="KIE_CREDITS_LOW",
        ge=0,
        allow_inf_nan=False,
        description="with fewer credits left a person is told; 0 never (2000 are five premium sets)",
    )
    kie_daily_credits_max: Amount = Field(
        None,
        alias="KIE_DAILY_CREDITS_MAX",
        gt=0,
        allow_inf_nan=False,
        description="credits that may be spent in one UTC day; unset is no limit",
    )
    kie_result_hours: float = Field(
        24,
        alias="KIE_RESULT_HOURS",
        gt=0,
        le=336,
        description="how long a result's link lives after its task's end",
    )
    kie_webhook_hmac_key: Secret = Field(
        None,
        alias="KIE_WEBHOOK_HMAC_KEY",
        description="kie.ai's webhook key: callbacks must be signed with it",
    )
    generation_fallback: Text = Field(
        None,
        alias="DARKROOM_GENERATION_FALLBACK",
        description="who takes over, in order: `studio`, `kie`, `kie:MODEL`, with commas",
    )
    allow_private_downloads: bool = Field(
        False,
        alias="DARKROOM_ALLOW_PRIVATE_DOWNLOADS",
        description="results may come from private addresses (stand-ins on loopback)",
    )
    sandbox_secret: Secret = Field(
        None,
        alias="DARKROOM_SANDBOX_SECRET",
        description="shared secret with the sandbox bank; turns it on (`demo` makes one)",
    )
    sandbox_url: AddressWithPath = Field(
        None,
        alias="DARKROOM_SANDBOX_URL",
        description="the sandbox bank; unset is this server itself",
    )
    sandbox_receipts: bool = Field(
        False,
        alias="DARKROOM_SANDBOX_RECEIPTS",
        description="the sandbox bank wants an address for each receipt, as banks under 54-FZ do",
    )
    mail_folder: Text = Field(
        None,
        alias="DARKROOM_MAIL_FOLDER",
        description="letters are put here as .eml files; unset: `outbox` of demo mode, else no mail",
    )
    mail_from: Text = Field(
        None, alias="DARKROOM_MAIL_FROM", description="who letters are from; needed with the folder"
    )
    telegram_bot_token: Secret = Field(
        None,
        alias="TELEGRAM_BOT_TOKEN",
        description="checks init data; without it nobody can sign in",
    )
    cron_secret: Secret = Field(
        None, alias="CRON_SECRET", description="opens /api/cron/*; closed when unset"
    )
    qstash_token: Secret = Field(
        None,
        alias="QSTASH_TOKEN",
        description="turns publishing on: QStash calls us when work is due",
    )
    qstash_url: Address = Field(
        "https://qstash.upstash.io",
        alias="QSTASH_URL",
        description="QStash's address in the token's region",
    )
    qstash_retries: int = Field(
        3,
        alias="QSTASH_RETRIES",
        ge=0,
        le=20,
        description="how often a delivery is repeated before QStash gives up on it",
    )
    qstash_current_signing_key: Secret = Field(
        None, alias="QSTASH_CURRENT_SIGNING_KEY", description="verifies QStash deliveries"
    )
    qstash_next_signing_key: Secret = Field(
        None, alias="QSTASH_NEXT_SIGNING_KEY", description="the key after the next rotation"
    )
    link_secret: Secret = Field(
        None,
        alias="DARKROOM_LINK_SECRET",
        description="signs links to photos; the same for all processes (embedded: one is made)",
    )
    link_secret_previous: Secret = Field(
        None,
        alias="DARKROOM_LINK_SECRET_PREVIOUS",
        description="the key before a rotation; its links are good until they expire",
    )
    link_minutes: int = Field(
        15,
        alias="DARKROOM_LINK_MINUTES",
        ge=1,
        le=1440,
        description="how long a link to a photo is good at most",
    )
    max_generation_attempts: int = Field(
        3,
        alias="DARKROOM_MAX_GENERATION_ATTEMPTS",
        ge=1,
        le=10,
        description="paid tries of one photo",
    )
    selfie_days: int = Field(
        30,
        alias="DARKROOM_SELFIE_DAYS",
        ge=1,
        le=3650,
        description="after so many days a selfie is deleted, and its customer told",
    )
    history_days: int = Field(
        180, alias="DARKROOM_HISTORY_DAYS", ge=30, le=3650, description="days the log is kept"
    )
    log_shape: Annotated[Literal["auto", "json", "console"], BeforeValidator(strip)] = Field(
        "auto", alias="DARKROOM_LOG", description="how log lines look"
    )

    @model_validator(mode="after")
    def _refuse_half_a_queue(self) -> "Settings":
        needed: dict[str, object] = {
            "QSTASH_CURRENT_SIGNING_KEY": self.qstash_current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": self.qstash_next_signing_key,
        }
        if self.qstash_token is None and not any(needed.values()):
            return self
        if self.qstash_token is not None:
            # It would deliver what we could not verify, or to nowhere.
            needed["DARKROOM_PUBLIC_URL"] = self.public_url
        for name, value in needed.items():
            if value is None:
                raise ValueError(f"QStash is half configured: {name} is not set")
        return self

    @model_validator(mode="after")
    def _refuse_half_configured(self) -> "Settings":
        if self.generation_provider == "kie" and self.kie_api_key is None:
            raise ValueError("kie.ai is half configured: KIE_API_KEY is not set")
        if self.kie_api_key is not None and self.public_url is None:
            raise ValueError("kie.ai is half configured: DARKROOM_PUBLIC_URL is not set")
        if self.kie_api_key is not None and self.storage_url is None:
            raise ValueError(
                "kie.ai is half configured: DARKROOM_STORAGE_URL is not set, it could not read selfies"
            )
        return self

    @model_validator(mode="after")
    def _refuse_half_a_mailer(self) -> "Settings":
        refuse_half_a_mailer(self.mail_folder, self.mail_from, is_demo=self.mode == "demo")
        return self

    @model_validator(mode="after")
    def _refuse_serverless_alone(self) -> "Settings":
        if not self.serverless:
            return self
        needed = {
            "DATABASE_URL": self.database_url,
            "DARKROOM_STORAGE_URL": self.storage_url,
            "DARKROOM_PUBLIC_URL": self.public_url,
            "CRON_SECRET": self.cron_secret,
        }
        for name, value in needed.items():
            if value is None:
                raise ValueError(f"serverless is half configured: {name} is not set")
        return self

    @model_validator(mode="after")
    def _refuse_half_a_store(self) -> "Settings":
        keys = {
            "S3_ACCESS_KEY_ID": self.s3_access_key_id,
            "S3_SECRET_ACCESS_KEY": self.s3_secret_access_key,
        }
        if self.storage_url is None:
            given = [name for name, value in keys.items() if value is not None]
            if given or self.s3_endpoint is not None:
                name = given[0] if given else "S3_ENDPOINT"
                raise ValueError(
                    f"{name} is set, and DARKROOM_STORAGE_URL is not: there is no bucket"
                )
            return self
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?", self.storage_url):
            raise ValueError("DARKROOM_STORAGE_URL must be s3://bucket/optional/prefix")
        for name, value in keys.items():
            if value is None:
                raise ValueError(f"the object store is half configured: {name} is not set")
        if self.s3_endpoint is None and self.s3_region == "auto":
            raise ValueError(
                "the object store is half configured: S3_ENDPOINT is not set (Amazon's own: set S3_REGION)"
            )
        refuse_odd_endpoint(self.s3_endpoint, is_demo=self.mode == "demo")
        return self

    @model_validator(mode="after")
    def _refuse_odd_fallback(self) -> "Settings":
        refuse_odd_fallback(
            self.fallback_names,
            first=self.generation_provider,
            kie_model=self.kie_model,
            has_kie=self.kie_api_key is not None,
        )
        return self

    @model_validator(mode="after")
    def _refuse_a_day_without_a_photo(self) -> "Settings":
        most = self.kie_daily_credits_max
        if most is not None and most < self.kie_price_credits:
            raise ValueError(
                "KIE_DAILY_CREDITS_MAX is less than KIE_PRICE_CREDITS: not one photo could be made"
            )
        return self

    @model_validator(mode="after")
    def _refuse_weak_links(self) -> "Settings":
        shared = self.database_url is not None and self.mode != "demo"
        if shared and self.link_secret is None:
            raise ValueError(
                "photos would have no links: with DATABASE_URL set, DARKROOM_LINK_SECRET must be, too"
            )
        for name, secret in (
            ("DARKROOM_LINK_SECRET", self.link_secret),
            ("DARKROOM_LINK_SECRET_PREVIOUS", self.link_secret_previous),
        ):
            if secret is not None and len(secret.get_secret_value()) < LINK_SECRET_MIN:
                raise ValueError(f"{name} is too short: it needs {LINK_SECRET_MIN} characters")
        return self

    @model_validator(mode="after")
    def _refuse_demo_with_real_parts(self) -> "Settings":
        if self.mode != "demo":
            return self
        if self.host not in LOOPBACK_HOSTS:
            raise ValueError("demo mode listens on loopback only: DARKROOM_HOST is something else")
        if self.kie_api_key is not None and not is_loopback(self.kie_base_url):
            raise ValueError("demo mode refuses real providers: KIE_API_KEY is set")
        if self.qstash_token is not None and not is_loopback(self.qstash_url):
            raise ValueError("demo mode refuses real providers: QSTASH_TOKEN is set")
        if self.database_url is not None and is_remote_database(
            self.database_url.get_secret_value()
        ):
            raise ValueError("demo mode refuses a real database: DATABASE_URL is not on loopback")
        if (
            self.qstash_current_signing_key is not None
            and self.public_url is not None
            and not is_loopback(self.public_url)
        ):
            raise ValueError("demo mode refuses to be public: DARKROOM_PUBLIC_URL is set")
        return self

    @model_validator(mode="after")
    def _refuse_sandbox_money_for_real_photos(self) -> "Settings":
        if (
            self.mode == "production"
            and self.sandbox_secret is not None
            and self.kie_api_key is not None
        ):
            raise ValueError(
                "DARKROOM_SANDBOX_SECRET is set: sandbox money would buy kie.ai's photos"
            )
        if self.mode == "demo" and self.telegram_bot_token is not None:
            raise ValueError("demo mode refuses real providers: TELEGRAM_BOT_TOKEN is set")
        return self

    @property
    def fallback_names(self) -> tuple[str, ...]:
        """The fallback's providers, in order."""
        listed = (self.generation_fallback or "").split(",")
        return tuple(name.strip() for name in listed if name.strip())

    @property
    def base_url(self) -> str:
        """How others reach this server."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


class IsolatedSettings(Settings):
    """Settings from arguments alone: for the demo and for tests, whatever the environment holds."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the arguments."""
        return (init_settings,)


def read_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: with one line that names the variable.
    """
    try:
        return Settings()  # pyright: ignore[reportCallIssue] - the environment gives the arguments
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{place}: {text}" if place else text) from None
