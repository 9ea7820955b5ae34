"""The only place that builds and joins things. No logic."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider, KieTerms
from darkroom.adapters.generation.studio_provider import StudioProvider
from darkroom.adapters.intake import ProcessIntake
from darkroom.adapters.mail_folder import FolderMailer
from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.adapters.pictures import read_picture
from darkroom.adapters.pictures_apart import DeveloperApart
from darkroom.adapters.pictures_here import DeveloperHere
from darkroom.adapters.qstash_doorbell import QStashDoorbell
from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.adapters.qstash_schedules import QStashSchedules
from darkroom.adapters.storage import Storage, open_storage
from darkroom.adapters.storage_s3 import S3Place, place_of
from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.adapters.thumbnails import make_thumbnail
from darkroom.brand import Brand, load_brand
from darkroom.config import Settings
from darkroom.db.database import Database
from darkroom.db.embedded import EmbeddedPostgres
from darkroom.edges.server import ServerParts, build_server
from darkroom.edges.site.texts import Texts
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.photo_links import PhotoLinks
from darkroom.flow.signed_tokens import SignedTokens
from darkroom.limits import Limits
from darkroom.ports.generation import GenerationProvider
from darkroom.ports.payments import PaymentProvider
from darkroom.ports.schedules import Schedules

BANK_PATH: Final = "/sandbox-bank"
DEMO_SENDER: Final = "Darkroom <demo@darkroom.invalid>"


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncGenerator[Database]:
    """The configured database, or the embedded one, started for as long as the block runs."""
    embedded: EmbeddedPostgres | None = None
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
    else:
        embedded = EmbeddedPostgres((settings.data_dir / "postgres").absolute())
        dsn = embedded.start()
    database = Database(
        dsn,
        pool_size=settings.database_pool_size,
        prepare_statements=settings.database_prepare,
        check_before_use=settings.serverless,
    )
    try:
        async with nullcontext() if embedded is None else embedded.kept_alive():
            await database.open()
            yield database
    finally:
        try:
            await database.close()
        finally:
            if embedded is not None:
                embedded.stop()


def sandbox_secret(settings: Settings) -> str | None:
    """The secret shared with the sandbox bank. Demo mode makes one and keeps it in the data folder."""
    if settings.sandbox_secret is not None:
        return settings.sandbox_secret.get_secret_value()
    if settings.mode != "demo":
        return None
    return kept_secret(settings, "sandbox-secret")


def link_secret(settings: Settings) -> str:
    """The key of the photos' links. Without a shared database one is made and kept in the data folder."""
    if settings.link_secret is not None:
        return settings.link_secret.get_secret_value()
    return kept_secret(settings, "link-secret")


def photo_links(settings: Settings) -> PhotoLinks:
    """What signs the links to photos."""
    previous = settings.link_secret_previous
    return PhotoLinks(
        secret=link_secret(settings),
        previous=None if previous is None else previous.get_secret_value(),
        minutes=settings.link_minutes,
    )


def signed_tokens(settings: Settings) -> SignedTokens:
    """What signs the tokens of one-time and shared addresses: the links' key, for other words."""
    previous = settings.link_secret_previous
    return SignedTokens(
        secret=link_secret(settings),
        previous=None if previous is None else previous.get_secret_value(),
    )


def kept_secret(settings: Settings, name: str) -> str:
    """A secret of this machine, made at first use. Of two processes that make it at once, one wins."""
    file = settings.data_dir / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{name}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600, exist_ok=False)
        fresh.write_text(secrets.token_hex(16))
        # A link appears whole or not at all: nobody reads half a secret.
        with suppress(FileExistsError):
            file.hardlink_to(fresh)
        fresh.unlink()
    return file.read_text().strip()


def bank_url(settings: Settings) -> str:
    """Where the sandbox bank is: this server, unless told otherwise."""
    return settings.sandbox_url or f"http://{settings.host}:{settings.port}{BANK_PATH}"


def store_place(settings: Settings) -> S3Place | None:
    """The bucket that is configured; None: photos are kept in the data folder."""
    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    if settings.storage_url is None or key is None or secret is None:
        return None
    return place_of(
        settings.storage_url,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key_id=key,
        secret_access_key=secret.get_secret_value(),
    )


def mailer_of(settings: Settings) -> FolderMailer | None:
    """Who carries letters; None: mail is off. Demo mode puts them into the data folder."""
    if settings.mail_folder is None and settings.mode != "demo":
        return None
    folder = settings.mail_folder or settings.data_dir / "outbox"
    return FolderMailer(Path(folder).absolute(), sender=settings.mail_from or DEMO_SENDER)


@asynccontextmanager
async def open_darkroom(
    settings: Settings, limits: Limits | None = None
) -> AsyncGenerator[Darkroom]:
    """Every part, joined; closed in order when the block ends. Does not migrate."""
    limits = limits or Limits()
    store = open_storage(store_place(settings), settings.data_dir.absolute() / "objects")
    generation = generation_of(settings, store)
    intake = ProcessIntake(processes=settings.intake_processes)
    here, apart = DeveloperHere(), DeveloperApart()
    payments: dict[str, PaymentProvider] = {}
    secret = sandbox_secret(settings)
    if secret is not None:
        payments["sandbox"] = SandboxPayments(
            base_url=bank_url(settings), secret=secret, receipts=settings.sandbox_receipts
        )
    doorbell = _doorbell(settings)
    async with open_database(settings) as database:
        darkroom = Darkroom(
            database=database,
            store=store,
            generation=generation,
            new_tasks_go_to=settings.generation_provider,
            payments=payments,
            doorbell=doorbell,
            leases=LeaseKeeper(
                database, lease_seconds=limits.lease_seconds, renew_seconds=limits.renew_seconds
            ),
            intake=intake,
            read_picture=read_picture,
            make_thumbnail=make_thumbnail,
            develop=here.develop,
            develop_apart=apart.develop,
            links=photo_links(settings),
            tokens=signed_tokens(settings),
            limits=limits,
            max_generation_attempts=settings.max_generation_attempts,
            selfie_days=settings.selfie_days,
            chat_enabled=False,
            base_url=settings.base_url,
            generation_fallback=settings.fallback_names,
            mailer=mailer_of(settings),
            history_days=settings.history_days,
        )
        try:
            yield darkroom
        finally:
            for part in (*generation.values(), *payments.values(), intake, here, apart):
                await part.close()
            if isinstance(doorbell, QStashDoorbell):
                await doorbell.close()


def generation_of(settings: Settings, store: Storage) -> dict[str, GenerationProvider]:
    """Who can make photos, by name."""
    generation: dict[str, GenerationProvider] = {
        "studio": StudioProvider(store, processes=settings.studio_processes)
    }
    if settings.kie_api_key is not None:
        key = settings.kie_api_key.get_secret_value()
        models = {"kie": settings.kie_model} | {
            name: name.partition(":")[2] for name in settings.fallback_names if ":" in name
        }
        for name, model in models.items():
            generation[name] = _kie(settings, key, store, name=name, model=model)
    return generation


def _doorbell(settings: Settings) -> LocalDoorbell | QStashDoorbell:
    if settings.qstash_token is None:
        return LocalDoorbell()
    return QStashDoorbell(
        token=settings.qstash_token.get_secret_value(),
        base_url=settings.qstash_url,
        public_url=settings.base_url,
        retries=settings.qstash_retries,
    )


@asynccontextmanager
async def open_schedules(settings: Settings) -> AsyncGenerator[Schedules]:
    """QStash's schedules, for as long as the block runs."""
    token = settings.qstash_token
    clock = QStashSchedules(
        token="" if token is None else token.get_secret_value(),
        base_url=settings.qstash_url,
        public_url=settings.base_url,
    )
    try:
        yield clock
    finally:
        await clock.close()


def _kie(
    settings: Settings, api_key: str, storage: Storage, *, name: str, model: str
) -> KieProvider:
    hmac_key = settings.kie_webhook_hmac_key
    return KieProvider(
        name=name,
        model=model,
        terms=KieTerms(
            price_credits=settings.kie_price_credits,
            day_credits_max=settings.kie_daily_credits_max,
            credits_low=settings.kie_credits_low,
            result_hours=settings.kie_result_hours,
            hmac_key=None if hmac_key is None else hmac_key.get_secret_value(),
        ),
        base_url=settings.kie_base_url,
        api_key=api_key,
        callback_base_url=settings.base_url,
        reference_link=storage.readable_link,
        window_requests=settings.kie_window_requests,
        window_seconds=settings.kie_window_seconds,
        downloader=Downloader(allow_private=settings.allow_private_downloads, hosts_allowed=None),
    )


def read_brand(settings: Settings) -> Brand:
    """The seller's brand. Raises SettingsError: the folder is wrong, in one line."""
    return load_brand(
        settings.brand_folder, selfie_days=settings.selfie_days, text_keys=Texts().keys
    )


def build_application(
    darkroom: Darkroom,
    settings: Settings,
    *,
    worker: Worker | None,
    mounts: Mapping[str, ASGIApp] | None = None,
    brand: Brand | None = None,
) -> FastAPI:
    """The HTTP server over the joined parts, with a worker in the same process if one is given."""
    receiver = None
    if settings.qstash_current_signing_key is not None:
        next_key = settings.qstash_next_signing_key
        receiver = QStashReceiver(
            current_key=settings.qstash_current_signing_key.get_secret_value(),
            next_key="" if next_key is None else next_key.get_secret_value(),
        )
    secret = settings.cron_secret
    return build_server(
        darkroom,
        ServerParts(
            demo=settings.mode == "demo",
            brand=brand or read_brand(settings),
            upload_origin=_upload_origin(settings),
            cron_secret=None if secret is None else secret.get_secret_value(),
            queue_receiver=receiver,
            serverless=settings.serverless,
            identity_check=None
            if settings.telegram_bot_token is None
            else TelegramInitData(settings.telegram_bot_token.get_secret_value()),
            background=None if worker is None else worker.running(),
            mounts=mounts or {},
            shows_metrics=settings.metrics_port is None,
        ),
    )


def upload_link(settings: Settings) -> str | None:
    """An address as browsers get them who put selfies into the bucket by themselves; None: they send them here.

    Only hosting without a worker takes no large requests.
    """
    place = store_place(settings)
    if place is None or not settings.serverless:
        return None
    return open_storage(place, settings.data_dir / "objects").writable_link("uploads/-", seconds=60)


def _upload_origin(settings: Settings) -> str | None:
    link = upload_link(settings)
    if link is None:
        return None
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc}"


def bundled_catalog() -> str:
    """The catalog file that ships with the program."""
    return files("darkroom").joinpath("catalog.toml").read_text(encoding="utf-8")


def bundled_portrait(name: str = "astronaut.png") -> bytes:
    """An openly licensed portrait that ships with the program."""
    return files("darkroom").joinpath("web").joinpath("portraits").joinpath(name).read_bytes()
