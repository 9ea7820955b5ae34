"""Settings: typed, read once, from the environment. Half-configured parts stop the start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from darkroom.settings_rules import (
    Address,
    AddressWithPath,
    Amount,
    DatabaseUrl,
    KieModel,
    OwnAddress,
    Secret,
    Text,
    Word,
    strip,
    strip_only,
)
from darkroom.settings_together import refuse_what_does_not_fit


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
    metrics_port: Annotated[int | None, BeforeValidator(strip)] = Field(
        None,
        alias="DARKROOM_METRICS_PORT",
        ge=0,
        le=65535,
        description="a port for this process's /metrics alone; unset: on the server's own",
    )
    public_url: OwnAddress = Field(
        None,
        alias="DARKROOM_PUBLIC_URL",
        description="how the outside reaches us; needed by real providers",
    )
    database_url: DatabaseUrl = Field(
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
        description="off behind a pooler that gives connections away between transactions",
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
        description="the sandbox bank; unset is this server itself (demo mode)",
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
    def _refuse_what_does_not_fit(self) -> "Settings":
        refuse_what_does_not_fit(self)
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
