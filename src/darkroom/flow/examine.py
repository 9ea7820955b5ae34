"""The parts that are examined through their ports, for `darkroom doctor`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from darkroom.db.database import Database, DatabaseRefusedError, DatabaseUnavailableError
from darkroom.flow.recognize_store import look_at_store
from darkroom.flow.store_watch import StoreIs
from darkroom.ports.checkup import Finding, doubtful, well, wrong
from darkroom.ports.generation import (
    CreditMeter,
    GenerationProvider,
    ProviderUnavailableError,
)
from darkroom.ports.intake import Intake, RefusalCode
from darkroom.ports.payments import (
    PaymentProvider,
    PaymentProviderUnavailableError,
    PaymentRefusedError,
)
from darkroom.ports.storage import (
    NoLinksError,
    ObjectStore,
    StorageBrokenError,
    StorageUnavailableError,
    StoreDoubt,
)

LOOK_BACK: Final = timedelta(hours=1)
_BOT_TOKEN: Final = re.compile(r"[0-9]{5,20}:[A-Za-z0-9_-]{30,}")
SECRET_MIN: Final = 16
"""Characters of a secret that nobody guesses by trying it over HTTP."""


_DOUBTS: Final = {
    StoreDoubt.KEEPS_VERSIONS: doubtful(
        "the bucket keeps versions: each erased selfie is still in it",
        "switch versions off, or add a lifecycle rule for the whole bucket: NoncurrentVersionExpiration "
        "NoncurrentDays 1 and Expiration ExpiredObjectDeleteMarker true",
    ),
    StoreDoubt.OPEN_TO_OTHERS: doubtful(
        "other users of this machine can read the folder with selfies and photos",
        "chmod 700 the folder objects/ in DARKROOM_DATA_DIR, as its owner",
    ),
}


async def examine_payments(provider: PaymentProvider) -> Finding:
    """Read an hour of the provider's own list: the key is taken, and the books are readable."""
    now = datetime.now(UTC)
    try:
        page = await provider.read_ledger(now - LOOK_BACK, now, None)
    except PaymentRefusedError as error:
        return wrong(f"refuses us: {error}", "the key or secret of this provider")
    except PaymentProviderUnavailableError as error:
        return wrong(f"does not answer: {error}", "its address, and is it reachable from here?")
    return well(f"reads its books: {len(page.lines)} lines in the last hour")


async def examine_intake(intake: Intake, portrait: bytes) -> Finding:
    """Open a bundled portrait as a customer's file: processes start, models load, a face is found."""
    selfie = await intake.look(lambda: portrait)
    if isinstance(selfie, RefusalCode):
        return wrong(f"refuses a good portrait: {selfie.value}", "reinstall: a model is damaged")
    return well(f"opened a portrait of {selfie.width} x {selfie.height}")


async def examine_store(store: ObjectStore) -> Finding:
    """Put, put again with other bytes, read and delete an object of our own."""
    try:
        doubts = await store.prove()
    except StorageBrokenError as error:
        return wrong(str(error), "DARKROOM_STORAGE_URL and the S3_* settings")
    except StorageUnavailableError as error:
        return wrong(f"does not answer: {error}", "S3_ENDPOINT, and is it reachable from here?")
    for doubt, finding in _DOUBTS.items():
        if doubt in doubts:
            return finding
    try:
        store.readable_link("prove/me")
    except NoLinksError:
        return well("a folder keeps what is put there, once")
    return well("keeps what is put there, once, and gives addresses")


async def examine_mark(database: Database, store: ObjectStore) -> Finding:
    """Is the store the one that the database's photos are in?"""
    try:
        look = await look_at_store(database, store)
    except (StorageUnavailableError, DatabaseUnavailableError, DatabaseRefusedError):
        return doubtful("not looked at", "mend the database and the object store first")
    match look.found:
        case StoreIs.OURS:
            return well("the object store is the one that this database's photos are in")
        case StoreIs.UNKNOWN:
            return well("the object store is new: the first start marks it")
        case _:
            what, _, way = look.refusal.partition("; ")
            return wrong(what, way)


async def examine_provider(provider: GenerationProvider) -> Finding:
    """Ask for the balance, where there is one: the key is taken, and photos can be bought."""
    if not isinstance(provider, CreditMeter):
        return well("makes photos on this machine")
    try:
        left = await provider.read_credits()
    except ProviderUnavailableError as error:
        return wrong(f"gives no balance: {error}", "its key and its address")
    price = provider.price_credits or 1
    if left < price:
        return wrong(f"{left:g} credits left: not one photo", "pay in; orders wait meanwhile")
    if left < provider.credits_low:
        return doubtful(f"{left:g} credits left, {left // price:g} photos", "pay in")
    return well(f"the key is taken, {left:g} credits left, {left // price:g} photos")


def examine_secret(name: str, secret: str | None, *, unset: str) -> Finding:
    """Is a secret there and long enough? `unset` says what its absence means."""
    if secret is None:
        return doubtful(unset, f"set {name}")
    if len(secret) < SECRET_MIN:
        return doubtful(f"{name} has {len(secret)} characters", "openssl rand -hex 16")
    return well(f"{name} is set")


def examine_bot_token(token: str | None, *, has_mail: bool) -> Finding:
    """Does it look like a token of BotFather's? Init data is checked with it; nobody is asked.

    Args:
        token: as it is set.
        has_mail: people without Telegram can have a link by e-mail.
    """
    if token is None and has_mail:
        return well(
            "by a link in an e-mail; inside Telegram nobody can, without TELEGRAM_BOT_TOKEN"
        )
    if token is None:
        return wrong("nobody can sign in", "set TELEGRAM_BOT_TOKEN, or DARKROOM_MAIL_FOLDER")
    if _BOT_TOKEN.fullmatch(token) is None:
        return wrong("TELEGRAM_BOT_TOKEN is not a bot's token", "copy it from BotFather again")
    return well(f"init data of bot {token.partition(':')[0]} is accepted")
