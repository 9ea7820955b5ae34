"""Money back at the customer's door: asked for once, shown as it is, and told afterwards in both languages."""

import asyncio

import httpx

from tests.edges.serving import application_of, client_of
from tests.shop import Customer, Shop


async def _ask(client: httpx.AsyncClient, customer: Customer, payment_id: int) -> httpx.Response:
    return await client.post(
        f"/api/payments/{payment_id}/refund",
        params={"telegramUserId": customer.telegram_user_id},
    )


async def test_unused_money_is_asked_back_shown_on_its_way_and_then_back(shop: Shop) -> None:
    """bugbook D6: what is on its way is not called back, and what is back is told."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    me = {"telegramUserId": customer.telegram_user_id}
    async with client_of(application_of(shop)) as client:
        answers = await asyncio.gather(*(_ask(client, customer, payment_id) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {200}
        shown = answers[0].json()["data"]
        assert (shown["status"], shown["refundedMinor"], shown["refundingMinor"]) == (
            "refunding",
            0,
            49_900,
        )
        assert (await client.get("/api/messages", params=me)).json()["data"]["messages"] == []
        await shop.drain()
        shown = (await client.get(f"/api/payments/{payment_id}", params=me)).json()["data"]
        assert (shown["status"], shown["refundedMinor"], shown["refundingMinor"]) == (
            "refunded",
            49_900,
            0,
        )
        told = (await client.get("/api/messages", params=me)).json()["data"]
    (message,) = told["messages"]
    assert (message["kind"], message["paymentId"]) == ("money_back", payment_id)
    assert message["textRu"].startswith(f"Мы вернули 499 ₽ по заказу № {payment_id}")
    assert message["textEn"].startswith(f"We returned 499 RUB of order {payment_id}")
    assert told["nextBefore"] is None
    assert len(shop.bank.refund_calls) == 1


async def test_money_that_has_its_set_and_money_that_never_came_are_refused(shop: Shop) -> None:
    """bugbook D15: a customer refunded himself after delivery, and nobody asked who he was."""
    customer, job = await shop.sold()
    pending = await shop.ordered(customer)
    stranger = await shop.customer()
    async with client_of(application_of(shop)) as client:
        used = await _ask(client, customer, job.payment_id)
        unpaid = await _ask(client, customer, pending)
        foreign = await _ask(client, stranger, job.payment_id)
        nobody = await client.post(f"/api/payments/{job.payment_id}/refund")
    assert used.status_code == 402
    assert used.json()["error"]["details"] == {"code": "PAYMENT_CONSUMED", "jobId": job.id}
    assert (unpaid.status_code, unpaid.json()["error"]["code"]) == (409, "NOT_PAID")
    assert foreign.status_code == 404
    assert nobody.status_code == 401
    assert await shop.value("SELECT count(*) FROM refunds") == 0


async def test_messages_come_in_pages_and_only_ones_own(shop: Shop) -> None:
    customer, other = await shop.customer(), await shop.customer()
    for who in (customer, customer, customer, other):
        payment_id = await shop.paid(who)
        async with client_of(application_of(shop)) as client:
            await _ask(client, who, payment_id)
    await shop.drain()
    seen: list[int] = []
    async with client_of(application_of(shop)) as client:
        before: int | None = None
        for _ in range(5):
            page = {"telegramUserId": customer.telegram_user_id, "limit": 2}
            if before is not None:
                page["before"] = before
            data = (await client.get("/api/messages", params=page)).json()["data"]
            seen += [message["messageId"] for message in data["messages"]]
            before = data["nextBefore"]
            if before is None:
                break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 3
