"""Settings: typed, read once, from the environment. Half-configured parts stop the start."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1"})
LINK_SECRET_MIN: Final = 32
"""`openssl rand -hex 16`: 128 bits, which nobody guesses from any number of links."""


class SettingsError(Exception):
    """The environment cannot be started with. The text is one clear line for the operator."""


def _strip(value: object) -> object:
    """Environment values come with stray newlines; an empty one is an unset one."""
    if isinstance(value, str):
        return value.strip() or None
    return value


Text = Annotated[str | None, BeforeValidator(_strip)]
Secret = Annotated[SecretStr | None, BeforeValidator(_strip)]


class Settings(BaseSettings):
    """All of Darkroom's settings. Each field's description stands in docs/operating.md."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore", frozen=True)

    mode: Annotated[Literal["production", "demo"], BeforeValidator(_strip)] = Field(
        "production",
        alias="DARKROOM_MODE",
        description="`demo` trusts a bare telegramUserId on loopback",
    )
    data_dir: Path = Field(
        Path(".darkroom"),
        alias="DARKROOM_DATA_DIR",
        description="the embedded database and local photos",
    )
    host: str = Field(
        "127.0.0.1", alias="DARKROOM_HOST", description="address the server listens on"
    )
    port: int = Field(8000, alias="DARKROOM_PORT", ge=0, le=65535, description="port it listens on")
    public_url: Text = Field(
        None,
        alias="DARKROOM_PUBLIC_URL",
        description="how the outside reaches us; needed by real providers",
    )
    database_url: Secret = Field(
        None, alias="DATABASE_URL", description="PostgreSQL; unset starts the embedded one"
    )
    database_pool_size: int = Field(
        20,
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
    s3_region: Annotated[str, BeforeValidator(lambda value: _strip(value) or "auto")] = Field(
        "auto", alias="S3_REGION", description="the bucket's region; R2 has only `auto`"
    )
    s3_access_key_id: Text = Field(
        None, alias="S3_ACCESS_KEY_ID", description="the key to the bucket"
    )
    s3_secret_access_key: Secret = Field(
        None, alias="S3_SECRET_ACCESS_KEY", description="the key's secret"
    )
    generation_provider: Annotated[Literal["studio", "kie"], BeforeValidator(_strip)] = Field(
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
    kie_base_url: str = Field(
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
    kie_model: str = Field("nano-banana-pro", alias="KIE_MODEL", description="kie.ai's model")
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
    sandbox_url: Text = Field(
        None,
        alias="DARKROOM_SANDBOX_URL",
        description="the sandbox bank; unset is this server itself",
    )
    telegram_bot_token: Secret = Field(
        None,
        alias="TELEGRAM_BOT_TOKEN",
        description="checks init data; without it nobody can sign in",
    )
    cron_secret: Secret = Field(
        None, alias="CRON_SECRET", description="opens /api/cron/*; closed when unset"
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
    log_shape: Literal["auto", "json", "console"] = Field(
        "auto", alias="DARKROOM_LOG", description="how log lines look"
    )

    @model_validator(mode="after")
    def _refuse_half_configured(self) -> "Settings":
        keys = (self.qstash_current_signing_key, self.qstash_next_signing_key)
        if any(keys) and not all(keys):
            missing = "QSTASH_NEXT_SIGNING_KEY" if keys[0] else "QSTASH_CURRENT_SIGNING_KEY"
            raise ValueError(f"QStash is half configured: {missing} is not set")
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
        self._refuse_odd_endpoint()
        return self

    def _refuse_odd_endpoint(self) -> None:
        parts = urlsplit(self.s3_endpoint or "https://amazon")
        is_near = parts.hostname in LOOPBACK_HOSTS
        if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(
                "S3_ENDPOINT is a scheme and a host alone: the bucket is not part of it"
            )
        if not parts.hostname or parts.scheme not in ({"http", "https"} if is_near else {"https"}):
            raise ValueError("S3_ENDPOINT must begin with https:// (http:// on loopback only)")
        if self.mode == "demo" and not is_near:
            raise ValueError(
                "demo mode refuses a real object store: S3_ENDPOINT is not on loopback"
            )

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
        if (
            self.kie_api_key is not None
            and urlsplit(self.kie_base_url).hostname not in LOOPBACK_HOSTS
        ):
            raise ValueError("demo mode refuses real providers: KIE_API_KEY is set")
        if self.qstash_current_signing_key is not None and self.public_url is not None:
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


class Limits(BaseModel):
    """Bounds of the pipeline. Not read from the environment: each is derived in its comment."""

    model_config = ConfigDict(frozen=True)

    recovery_seconds: float = 10
    """Promise 5: what a dead worker held goes on within this."""
    lease_seconds: float = 9
    """The promise, less the longest pause between two looks for work (1 s in `flow/steps`)."""
    renew_seconds: float = 3
    """Three renewals a lease: two may fail before the work is lost."""
    batch: int = 20
    """Rows of one claim: kie.ai takes 20 creations in 10 s (external-apis 1.5)."""
    lock_timeout_ms: int = 2000
    """A claim waits this long for another of the same user; a claim takes milliseconds, so a longer wait
    means a stalled peer, and the customer is better told to come back."""
    unknown_grace_seconds: float = 90
    """After a lost answer: a callback comes within twice the slowest generations seen (DESIGN 3)."""
    pending_give_up_seconds: float = 900
    """kie.ai itself gives up on its upstream after 600 s (code 408); half as much again on top."""
    poll_first_seconds: float = 2.5
    """kie.ai advises the first question after 2 to 3 s."""
    poll_cap_seconds: float = 15
    """The longest pause between two questions: what a lost callback may cost a waiting customer."""
    retry_base_seconds: float = 1
    retry_cap_seconds: float = 60
    """1, 2, 4 ... 60 s: an hour's deadline leaves about 60 tries of a step."""
    paused_seconds: float = 60
    """Out of credit: look again every minute, without burning an attempt."""
    slowed_seconds: float = 2
    """After a 429 without Retry-After: a fifth of kie.ai's window."""
    bad_results_max: int = 3
    """Downloads of one result that were no picture before another generation is bought."""
    callback_tries_max: int = 6
    """Looks at a task that its provider does not know yet: 2 + 4 + ... + 64 s, longer than the grace."""
    payment_ask_first_seconds: float = 30
    """A notice comes within seconds of paying; paying takes longer than this."""
    payment_ask_cap_seconds: float = 600
    payment_expire_seconds: float = 86_400
    """The older system kept a pending generation for 24 h (domain facts)."""
    refund_ask_first_seconds: float = 5
    """A bank's own timeout is about as long: sooner its books may not hold what it is doing."""
    refund_ask_cap_seconds: float = 3600
    """SBP refunds take days (external-apis 4.2): once an hour is enough for those, a notice comes sooner."""
    refund_grace_seconds: float = 600
    """Without keys, a call that is not in the books may still be on its way: YooKassa's longest is 30 s
    (external-apis 5.1), twenty of those."""
    refund_tries_max: int = 30
    """"Not now" so often, an hour apart at the end, is more than a day: then a person looks."""
    dedupe_days: int = 7
    """QStash keeps a failed message at most 7 days; after that a redelivery cannot come."""
    request_key_days: int = 30
    open_jobs_max: int = 10
    """Sets of one customer at once, by hand: three avatars with three styles each, and one more."""
    payments_max: int = 10
    payments_window_seconds: float = 900
    """10 in 15 minutes, as the older system declared for opening payments, and never counted."""
    uploads_max: int = 60
    uploads_window_seconds: float = 3600
    """Three avatars of eight selfies, one file a request, twice over and a little."""
    session_days: int = 30
    """A customer comes back for the photos within a month; after that they open the Mini App again."""
    look_seconds: float = 2
    """Between two looks at the jobs that are watched: what a lost NOTIFY costs a waiting customer. One
    statement a process, however many watch."""
    look_pause_seconds: float = 0.1
    """After a NOTIFY: ten looks a second at most, however many photos are stored in it."""
    heartbeat_seconds: float = 15
    """Half of the shortest idle time that proxies in front of us close a connection after (30 s)."""
    stream_seconds: float = 600
    """Then the client comes back by itself and shows its session again: an ended one lives on so long. Shorter
    than a link is good, so that none in a live page dies."""
    streams_per_user: int = 5
    """A browser opens 6 connections to one HTTP/1.1 host: one is left for everything else."""
    streams_per_process: int = 500
    """Half of the 1024 open files that a process has by default; the rest is for requests and the pool."""
    sweep_batch: int = 1000
    """Rows a sweep deletes in one statement: milliseconds, so that nobody waits behind it."""
    put_grace_seconds: float = 300
    """A put takes 30 s at most (the adapter's own limit): after ten times that none is under way."""
    bucket_check_seconds: float = 60
    """A batch of 20 photos a minute, 28,800 a day: a year of 100 sets a day (550,000 photos) is seen again
    every three weeks, for 0.7 MB read a second."""
    bucket_page: int = 500
    """Objects of one look of the sweeper: half of what one answer of S3 lists, and one statement."""
    bucket_sweep_seconds: float = 60
    """720,000 objects a day: that year's photos and thumbnails in two days, for one listing call a minute."""
    bucket_sweep_pause_seconds: float = 3600
    """At the end of the walk: what becomes a day old meanwhile is in no hurry."""
    orphan_seconds: float = 86_400
    """Anything under way ends within minutes; a day also bears two clocks that differ."""
    audit_seconds: float = 600
    """Every ten minutes, as the model for it does (style-models 2.1)."""
