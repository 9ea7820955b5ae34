"""What `darkroom doctor` examines: a check for each configured part, and what the settings alone can say."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from pydantic import SecretStr

from darkroom.adapters.intake import ProcessIntake
from darkroom.adapters.mail_folder import examine_mail_folder
from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.adapters.public_address import examine_public_address
from darkroom.adapters.qstash_keys import examine_queue
from darkroom.adapters.storage import open_storage
from darkroom.adapters.upload_rules import examine_upload_rules
from darkroom.config import Settings, SettingsError
from darkroom.core.checkup import examine_database
from darkroom.db.embedded import EmbeddedServerError
from darkroom.flow.examine import (
    examine_bot_token,
    examine_intake,
    examine_mark,
    examine_payments,
    examine_provider,
    examine_secret,
    examine_store,
)
from darkroom.ports.checkup import Check, Finding, doubtful, well, wrong
from darkroom.ports.generation import CreditMeter
from darkroom.ports.storage import ObjectStore
from darkroom.wiring import (
    bank_url,
    bundled_portrait,
    generation_of,
    mailer_of,
    open_database,
    read_brand,
    sandbox_secret,
    store_place,
    upload_link,
)


@asynccontextmanager
async def open_checks(settings: Settings) -> AsyncGenerator[Sequence[Check]]:
    """One check a configured part. A part that is away keeps none of the others from being examined."""
    async with AsyncExitStack() as stack:
        intake = ProcessIntake(processes=1)
        stack.push_async_callback(intake.close)
        store = open_storage(store_place(settings), settings.data_dir.absolute() / "objects")
        checks = [
            *await _database_checks(settings, store, stack),
            Check("opening files", partial(examine_intake, intake, bundled_portrait())),
            _bank_check(settings, stack),
            Check("object store", partial(examine_store, store)),
        ]
        for name, provider in generation_of(settings, store).items():
            stack.push_async_callback(provider.close)
            if name == settings.generation_provider or isinstance(provider, CreditMeter):
                checks.append(Check(f"photos: {name}", partial(examine_provider, provider)))
        mailer = mailer_of(settings)
        if mailer is not None:
            checks.append(Check("mail", partial(examine_mail_folder, mailer)))
        checks += _queue_checks(settings) + _settings_checks(settings)
        if settings.public_url is not None:
            checks.append(
                Check("public address", partial(examine_public_address, settings.base_url))
            )
        link = upload_link(settings)
        if link is not None:
            examine = partial(examine_upload_rules, link, settings.base_url)
            checks.append(Check("direct uploads", examine))
        yield checks


async def _database_checks(
    settings: Settings, store: ObjectStore, stack: AsyncExitStack
) -> list[Check]:
    try:
        database = await stack.enter_async_context(open_database(settings))
    except EmbeddedServerError as error:
        return [_known("database", wrong(str(error), "DARKROOM_DATA_DIR, and is the disk full?"))]
    examine = partial(examine_database, database, pool_size=settings.database_pool_size)
    return [
        Check("database", examine),
        Check("whose store", partial(examine_mark, database, store)),
    ]


def _bank_check(settings: Settings, stack: AsyncExitStack) -> Check:
    secret = sandbox_secret(settings)
    if secret is None:
        advice = "DARKROOM_SANDBOX_URL and DARKROOM_SANDBOX_SECRET, or an adapter for your bank"
        return _known("ways to pay", doubtful("none is configured: nobody can buy", advice))
    if settings.sandbox_url is None:
        return _known("ways to pay", well("the sandbox bank, served by this server itself"))
    bank = SandboxPayments(base_url=bank_url(settings), secret=secret)
    stack.push_async_callback(bank.close)
    return Check("sandbox bank", partial(examine_payments, bank))


def _queue_checks(settings: Settings) -> list[Check]:
    token = _plain(settings.qstash_token)
    if token is None:
        return []
    examine = partial(
        examine_queue,
        token=token,
        base_url=settings.qstash_url,
        current_key=_plain(settings.qstash_current_signing_key) or "",
        next_key=_plain(settings.qstash_next_signing_key) or "",
    )
    return [Check("QStash", examine)]


def _settings_checks(settings: Settings) -> list[Check]:
    """What only a look at the settings can say: these parts call us, we cannot call them."""
    cron = examine_secret(
        "CRON_SECRET",
        _plain(settings.cron_secret),
        unset="/api/cron is closed: good where workers run, and nothing but workers moves orders",
    )
    checks = [_known("cron", cron), _known("brand", _brand_finding(settings))]
    if settings.mode != "demo":
        has_mail = mailer_of(settings) is not None
        sign_in = examine_bot_token(_plain(settings.telegram_bot_token), has_mail=has_mail)
        checks.append(_known("signing in", sign_in))
    makers = {settings.generation_provider, *settings.fallback_names}
    if settings.kie_api_key is not None and not any(one.startswith("kie") for one in makers):
        maker = f"new sets are made by {settings.generation_provider}, not by kie.ai"
        advice = "DARKROOM_GENERATION_PROVIDER=kie, if it is to make what you sell"
        checks.append(_known("who makes photos", doubtful(maker, advice)))
    return checks


def _brand_finding(settings: Settings) -> Finding:
    try:
        brand = read_brand(settings)
    except SettingsError as error:
        return wrong(str(error), "DARKROOM_BRAND")
    return well(f"{brand.name}: pages, texts and examples are whole")


def _known(part: str, finding: Finding) -> Check:
    async def say() -> Finding:
        return finding

    return Check(part, say)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
