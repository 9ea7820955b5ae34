"""A customer is told what really happened, in the transaction in which it happened: message rows, once each."""

from collections.abc import Sequence

from darkroom.core.customer_messages import NewMessage, insert_message, read_refunds_to_tell
from darkroom.db.database import Connection
from darkroom.flow.customer_texts import (
    made_again_text,
    money_back_delayed_text,
    money_back_text,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.ports.money import Money


async def tell_about_refunds(darkroom: Darkroom, tx: Connection, refund_ids: Sequence[int]) -> None:
    """Say of each refund what became of it: it is back, or it was refused and a person is on it.

    Nothing is said of one that is still on its way: it has not happened (bugbook D6).
    """
    if not refund_ids:
        return
    for refund in await read_refunds_to_tell(tx, refund_ids):
        money = Money(refund.amount_minor, refund.currency)
        if refund.status == "succeeded":
            text = money_back_text(
                money,
                reason=refund.reason,
                photo_count=refund.photo_count,
                payment_id=refund.payment_id,
                by_hand=refund.by_hand,
                nothing_delivered=refund.photos_failed > 0 and refund.photos_delivered == 0,
            )
        elif refund.status == "failed":
            text = money_back_delayed_text(money, payment_id=refund.payment_id)
        else:
            continue
        await insert_message(
            tx,
            NewMessage(
                user_id=refund.user_id,
                kind="money_back" if refund.status == "succeeded" else "money_back_delayed",
                subject_id=refund.id,
                payment_id=refund.payment_id,
                text_ru=text.ru,
                text_en=text.en,
            ),
            to_chat=darkroom.chat_enabled,
        )


async def tell_it_is_made_again(
    darkroom: Darkroom, tx: Connection, *, user_id: int, payment_id: int, photo_count: int
) -> None:
    """Say that missing photos are made again for free, because no part of the price can go back."""
    text = made_again_text(payment_id=payment_id, photo_count=photo_count)
    await insert_message(
        tx,
        NewMessage(
            user_id=user_id,
            kind="made_again",
            subject_id=payment_id,
            payment_id=payment_id,
            text_ru=text.ru,
            text_en=text.en,
        ),
        to_chat=darkroom.chat_enabled,
    )
