"""Leaving by HTTP: at every status of an order, any number of times, at once; and what everybody may read."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from darkroom.core.forgetting import begin_forgetting
from darkroom.flow.forget_me import forget_me
from darkroom.flow.sign_in import sign_in
from darkroom.flow.take_notices import take_due_notices
from darkroom.ports.generation import Again, GenerationRequest, Refused
from darkroom.ports.identity import Person
from tests.edges.serving import application_of, client_of
from tests.flow.test_leaving import files
from tests.shop import Customer, Shop

ORDER: Final = """
SELECT p.status, j.status AS job FROM payments p LEFT JOIN generation_jobs j ON j.payment_id = p.id
"""


async def _signed_in(shop: Shop, customer: Customer) -> dict[str, str]:
    session = await sign_in(shop.darkroom, Person(customer.telegram_user_id, "en"))
    return {"Authorization": f"Bearer {session.token}"}


async def _leave(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    answer = await client.delete("/api/me", headers=headers)
    if answer.is_success:
        assert answer.json() == {"success": True, "data": {"forgetting": True}}
    return answer.status_code


async def _nothing_ordered(shop: Shop, customer: Customer) -> None:
    del shop, customer


async def _pending(shop: Shop, customer: Customer) -> None:
    await shop.ordered(customer, order_style="signature")


async def _canceled(shop: Shop, customer: Customer) -> None:
    await shop.notify(await shop.ordered(customer, order_style="signature"), "canceled")
    await take_due_notices(shop.darkroom)


async def _succeeded(shop: Shop, customer: Customer) -> None:
    await shop.paid(customer)


async def _succeeded_with_an_order(shop: Shop, customer: Customer) -> None:
    await shop.paid(customer, order_style="signature")


async def _job_pending(shop: Shop, customer: Customer) -> None:
    await shop.paid(customer)
    await shop.start(customer)


async def _job_processing(shop: Shop, customer: Customer) -> None:
    await _job_pending(shop, customer)
    await shop.step("submit")


async def _completed(shop: Shop, customer: Customer) -> None:
    await _job_pending(shop, customer)
    await shop.drain()


async def _refund_requested(shop: Shop, customer: Customer) -> None:
    async def refuse(_request: GenerationRequest) -> Refused:
        return Refused("policy", "never", Again.NEVER)

    shop.provider.on_create = refuse
    await _job_pending(shop, customer)
    for step in ("submit", "finish"):
        await shop.step(step)
    assert await shop.value("SELECT status FROM refunds") == "requested"


Reach = Callable[[Shop, Customer], Awaitable[None]]
REACHED: Final[dict[Reach, tuple[str, str | None] | None]] = {
    _nothing_ordered: None,
    _pending: ("canceled", None),
    _canceled: ("canceled", None),
    _succeeded: ("refunded", None),
    _succeeded_with_an_order: ("refunded", None),
    _job_pending: ("succeeded", "completed"),
    _job_processing: ("succeeded", "completed"),
    _completed: ("succeeded", "completed"),
    _refund_requested: ("refunded", "failed"),
}
"""How far an order is when its customer leaves, and what becomes of it."""


@pytest.mark.parametrize("pattern", ["once", "twice", "five at once"])
@pytest.mark.parametrize("reach", REACHED)
async def test_leaving_at_every_status_of_an_order(
    shop: Shop,
    tmp_path: Path,
    reach: Reach,
    pattern: str,
) -> None:
    """Paid sets are made, all else goes back, everything is erased; however often it is asked for."""
    customer = await shop.customer()
    await reach(shop, customer)
    other = await shop.customer()
    devices = [await _signed_in(shop, customer) for _ in range(5)]
    async with client_of(application_of(shop, demo=False)) as client:
        if pattern == "five at once":
            answers = await asyncio.gather(*(_leave(client, device) for device in devices))
        else:
            answers = [await _leave(client, devices[0])]
        if pattern == "twice":
            # The first answer was lost, and whoever asks again is signed out: by then it has happened.
            assert await _leave(client, devices[0]) == 401
            await forget_me(shop.darkroom, user_id=customer.user_id)
        assert 202 in answers
        assert set(answers) <= {202, 401}
        for device in devices:
            assert (await client.get("/api/avatars", headers=device)).status_code == 401
    shop.bank.closes_what_waits()
    await shop.drain()
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await shop.drain()
    order = await shop.rows(ORDER)
    end = REACHED[reach]
    assert [(row["status"], row["job"]) for row in order] == ([] if end is None else [end])
    assert await shop.value("SELECT count(*) FROM refunds") == int(
        end is not None and "refunded" in end
    )
    users = await shop.rows("SELECT id, forgotten_at IS NOT NULL AS gone FROM users ORDER BY id")
    assert users == [{"id": customer.user_id, "gone": True}, {"id": other.user_id, "gone": False}]
    assert [key.split("/")[1] for key in files(tmp_path)] == [str(other.avatar_id)]


async def test_who_leaves_is_signed_out_and_their_links_open_nothing(shop: Shop) -> None:
    """bugbook H15: links that were given out die with their customer, long before the bytes are gone."""
    customer, job = await shop.sold()
    await shop.drain()
    headers = await _signed_in(shop, customer)
    async with client_of(application_of(shop, demo=False)) as client:
        view = (await client.get(f"/api/jobs/{job.id}", headers=headers)).json()["data"]
        links = [view["photosZipUrl"]]
        links += [photo[name] for photo in view["photos"] for name in ("imageUrl", "thumbnailUrl")]
        assert {(await client.get(link)).status_code for link in links} == {200}
        left = await client.delete("/api/me", headers=headers)
        assert "darkroom_session=; Max-Age=0" in left.headers["set-cookie"]
        assert {(await client.get(link)).status_code for link in links} == {404}
        assert (await client.delete("/api/me")).status_code == 401
    assert await shop.value("SELECT count(*) FROM users WHERE forgotten_at IS NOT NULL") == 0


async def test_the_same_person_is_a_new_customer(shop: Shop) -> None:
    """Signed init data after leaving makes another user, to whom nothing of the old one is shown."""
    customer = await shop.customer(500)
    me = {"telegramUserId": 500}
    async with client_of(application_of(shop)) as client:
        assert (await client.delete("/api/me", params=me)).status_code == 202
        shown = (await client.get("/api/avatars", params=me)).json()["data"]["avatars"]
        assert shown == []
        again = await shop.customer(500)
        assert again.user_id != customer.user_id
        await shop.paid(again)
        await shop.start(again)
        await shop.drain()
        await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
        await shop.drain()
        photos = await client.get(f"/api/avatars/{again.avatar_id}/photos", params=me)
        assert len(photos.json()["data"]["photos"]) == 7
    assert await shop.value("SELECT count(*) FROM users WHERE forgotten_at IS NOT NULL") == 1


async def test_a_request_that_was_under_way_is_told_to_sign_in(shop: Shop) -> None:
    """It knew who it was for before they left; behind the lock it learns that they did."""
    customer = await shop.customer()
    headers = await _signed_in(shop, customer)
    async with client_of(application_of(shop, demo=False)) as client:
        async with shop.database.transaction() as tx:
            await tx.execute("SELECT FROM users WHERE id = %s FOR UPDATE", [customer.user_id])
            body = {"name": "Again"}
            asked = asyncio.ensure_future(client.post("/api/avatars", json=body, headers=headers))
            await asyncio.wait({asked}, timeout=0.3)
            await begin_forgetting(tx, customer.user_id)
        answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert await shop.value("SELECT count(*) FROM avatars") == 1


async def test_a_selfie_says_when_it_will_be_deleted(shop: Shop) -> None:
    customer = await shop.customer(500)
    path, me = f"/api/avatars/{customer.avatar_id}/references", {"telegramUserId": 500}
    async with client_of(application_of(shop)) as client:
        (selfie,) = (await client.get(path, params=me)).json()["data"]["references"]
        created, deletes = (
            datetime.fromisoformat(selfie[name]) for name in ("createdAt", "deletesAt")
        )
        assert deletes - created == timedelta(days=30)
        await shop.advance(30 * 86_400 + 1)
        await shop.drain()
        assert (await client.get(path, params=me)).json()["data"]["references"] == []


async def test_the_policy_is_for_everybody_to_read(shop: Shop) -> None:
    """What is sold today, in numbers and in both languages; no sign-in, and no 401 before it."""
    async with client_of(application_of(shop, demo=False)) as client:
        first = (await client.get("/api/policy")).json()["data"]
        text_ru, text_en = first.pop("textRu"), first.pop("textEn")
        assert first == {
            "selfieDays": 30,
            "wholePriceBelowPercent": 70,
            "jobDeadlineSeconds": 3600,
            "unusedRemindDays": 3,
            "unusedRefundDays": 14,
            "lateMoney": "start",
            "withoutPartial": "whole",
            "redoPhotos": 1,
        }
        for number in ("30", "70 %", "60", "3", "14"):
            assert number in text_ru
            assert number in text_en
        async with shop.database.connection() as tx:
            await tx.execute(
                "INSERT INTO refund_policies (whole_price_below_percent, job_deadline_seconds, "
                "unused_remind_days, unused_refund_days, late_money, without_partial, redo_photos) "
                "VALUES (50, 90, 1, 2, 'refund', 'grant', 0)"
            )
        second = (await client.get("/api/policy")).json()["data"]
    assert (second["wholePriceBelowPercent"], second["lateMoney"]) == (50, "refund")
    assert "2 мин." in second["textRu"]
    assert "недостающее делаем ещё раз бесплатно" in second["textRu"]
    assert "made again for free" in second["textEn"]
    assert "closed already goes back" in second["textEn"]
    assert "Одну фотографию готового заказа можно бесплатно переснять" in text_ru
    assert "one photo of it made again" in text_en
    assert second["redoPhotos"] == 0
    assert "не переснимаем" in second["textRu"]
    assert "not made again for free" in second["textEn"]
