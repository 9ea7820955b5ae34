"""What every process does once before it works: it knows its store, its catalog and its providers' limits."""

from darkroom.core.budget import set_window
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.recognize_store import recognize_store
from darkroom.flow.stock_catalog import stock_catalog


async def prepare(darkroom: Darkroom, catalog_text: str) -> None:
    """Recognize the store, stock an empty catalog, write the configured windows. Safe at once, and again.

    Raises:
        ForeignStoreError: the object store is another database's.
    """
    await recognize_store(darkroom)
    await stock_catalog(darkroom.database, catalog_text, only_if_empty=True)
    async with darkroom.database.transaction() as tx:
        accounts = {one.account: one for one in darkroom.generation.values()}
        for account, provider in sorted(accounts.items()):
            await set_window(
                tx,
                account,
                requests=provider.window_requests,
                seconds=provider.window_seconds,
                day_credits_max=provider.day_credits_max,
            )
