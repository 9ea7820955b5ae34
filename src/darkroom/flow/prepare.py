"""What every process does once before it works: the catalog is there, and the providers' limits are known."""

from darkroom.core.budget import set_window
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.stock_catalog import stock_catalog


async def prepare(darkroom: Darkroom, catalog_text: str) -> None:
    """Stock an empty catalog and write the configured windows. Safe at once and any number of times."""
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
