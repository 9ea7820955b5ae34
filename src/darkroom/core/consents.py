"""What a buyer agreed to when they ordered: stored with the order, never changed."""

from darkroom.db.database import Connection


async def insert_consent(
    tx: Connection, *, payment_id: int, terms_sha256: str, locale: str
) -> None:
    """Beside a new payment, in its transaction: an order has its consent, or there is no order."""
    await tx.execute(
        "INSERT INTO consents (payment_id, terms_sha256, locale) VALUES (%s, %s, %s)",
        [payment_id, terms_sha256, locale],
    )
