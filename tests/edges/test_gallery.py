"""The doors of a customer's pages: what is sold, their sets and payments, and what they do with a photo."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from darkroom.core.jobs import StartedJob
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.pay_back import GoodwillRequest, pay_back
from darkroom.flow.read_sets import read_catalog, read_refunds_of, read_sets
from darkroom.flow.remove import remove_avatar
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.edges.serving import application_of, client_of
from tests.shop import Customer, Shop


def _me(customer: Customer) -> dict[str, Any]:
    return {"telegramUserId": customer.telegram_user_id}


def _data(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


async def test_what_is_sold_is_for_everybody_to_read(shop: Shop) -> None:
    await shop.rows("UPDATE tiers SET is_active = FALSE WHERE id = 'premium' RETURNING id")
    await shop.rows("UPDATE styles SET is_active = FALSE WHERE id = 'creative' RETURNING id")
    async with client_of(application_of(shop, demo=False)) as client:
        catalog = _data(await client.get("/api/catalog"))
    assert [tier["tierId"] for tier in catalog["tiers"]] == ["starter", "standard"]
    assert catalog["tiers"][0]["pricesMinor"] == {"RUB": 49900, "XTR": 99}
    assert [(style["styleId"], style["promptCount"]) for style in catalog["styles"]] == [
        ("signature", 23),
        ("professional", 7),
        ("lifestyle", 9),
    ]
    assert catalog["styles"][0]["titleRu"] == "Авторская серия"
    assert len((await read_catalog(shop.darkroom)).tiers) == 2


async def test_sets_and_payments_come_page_by_page_to_their_owner(shop: Shop) -> None:
    customer, stranger = await shop.customer(), await shop.customer()
    jobs: list[StartedJob] = []
    for style in ("signature", "creative", "signature"):
        await shop.paid(customer)
        jobs.append(await shop.start(customer, style=style))
    unused = await shop.ordered(customer)
    await shop.drain()
    async with client_of(application_of(shop)) as client:
        me = _me(customer)
        page = _data(await client.get("/api/jobs", params={**me, "limit": 2}))
        assert [one["jobId"] for one in page["jobs"]] == [jobs[2].id, jobs[1].id]
        newest = page["jobs"][0]
        assert (newest["avatarName"], newest["status"], newest["completedPhotos"]) == (
            "Me",
            "completed",
            7,
        )
        covers = await shop.value(
            "SELECT min(id) FROM generated_photos WHERE job_id = %s", jobs[2].id
        )
        assert (newest["coverPhotoId"], newest["redoesPhotoId"]) == (covers, None)
        rest = _data(await client.get("/api/jobs", params={**me, "before": page["nextBefore"]}))
        assert [one["jobId"] for one in rest["jobs"]] == [jobs[0].id]
        assert rest["nextBefore"] is None
        redo = _data(await client.post(f"/api/photos/{covers}/redo", params=me), 201)
        newest = _data(await client.get("/api/jobs", params=me))["jobs"][0]
        assert (newest["jobId"], newest["redoesPhotoId"]) == (redo["jobId"], covers)
        page = _data(await client.get("/api/payments", params={**me, "limit": 3}))
        assert [one["paymentId"] for one in page["payments"]] == [
            redo["paymentId"],
            unused,
            jobs[2].payment_id,
        ]
        assert [one["redoesPhotoId"] for one in page["payments"]] == [covers, None, None]
        rest = _data(await client.get("/api/payments", params={**me, "before": page["nextBefore"]}))
        assert [one["jobId"] for one in rest["payments"]] == [jobs[1].id, jobs[0].id]
        for path in ("jobs", "payments"):
            assert _data(await client.get(f"/api/{path}", params=_me(stranger)))[path] == []
            for bad in ({"limit": 0}, {"limit": 101}, {"before": "x"}):
                answer = await client.get(f"/api/{path}", params={**me, **bad})
                assert answer.status_code == 400
    await shop.drain()


async def test_sets_of_a_deleted_avatar_are_among_the_payments_alone(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    await shop.rows(
        "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = 1 RETURNING id"
    )
    who = {"user_id": customer.user_id}
    (one,) = await read_sets(shop.darkroom, **who, before_id=None, limit=5)
    assert (one.cover_photo_id, one.style_title_en) == (2, "Signature")
    await remove_avatar(shop.darkroom, **who, avatar_id=customer.avatar_id)
    assert await read_sets(shop.darkroom, **who, before_id=None, limit=5) == []
    async with client_of(application_of(shop)) as client:
        page = _data(await client.get("/api/payments", params=_me(customer)))
    assert [one["jobId"] for one in page["payments"]] == [job.id]


async def test_a_payer_sees_what_goes_back_when_and_which_way(shop: Shop) -> None:
    async def fail_two(request: GenerationRequest) -> FailedThere | None:
        failed = request.prompt_index < 2
        return FailedThere("400", "no", Again.NEVER) if failed else None

    shop.provider.on_ask = fail_two
    customer, job = await shop.sold()
    stranger = await shop.customer()
    who = {"user_id": customer.user_id, "payment_id": job.payment_id}
    assert await read_refunds_of(shop.darkroom, **who) == []
    for name in ("submit", "poll", "collect", "finish"):
        await shop.step(name)
    await shop.advance(60)
    for name in ("submit", "poll", "collect", "finish"):
        await shop.step(name)
    (refund,) = await read_refunds_of(shop.darkroom, **who)
    assert (refund.status, refund.reason, refund.photo_count) == ("requested", "shortfall", 2)
    assert (refund.settled_minor, refund.settled_at, refund.by_hand) == (0, None, False)
    await shop.drain()
    await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, 100, "sorry", uuid4()))
    back, more = await read_refunds_of(shop.darkroom, **who)
    assert (back.status, back.settled_minor) == ("succeeded", back.amount_minor)
    assert back.settled_at is not None
    assert (more.status, more.photo_count, more.amount_minor) == ("requested", 0, 100)
    await shop.drain()
    with pytest.raises(RequestRefusedError, match="PAYMENT_NOT_FOUND"):
        await read_refunds_of(shop.darkroom, user_id=stranger.user_id, payment_id=job.payment_id)


async def test_marks_come_and_go_and_twice_is_once(shop: Shop) -> None:
    customer, job = await shop.sold()
    stranger = await shop.customer()
    await shop.drain()
    me = _me(customer)
    async with client_of(application_of(shop)) as client:
        for method, expected in (("PUT", True), ("DELETE", False)):
            for _ in range(2):
                answer = await client.request(method, "/api/photos/3/favorite", params=me)
                assert _data(answer)["isFavorite"] is expected
                shown = _data(await client.get(f"/api/jobs/{job.id}", params=me))["photos"]
                assert [photo["isFavorite"] for photo in shown].count(True) == int(expected)
            answer = await client.request(method, "/api/photos/3/favorite", params=_me(stranger))
            assert answer.status_code == 404


async def test_a_double_click_makes_a_photo_again_once(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    me = _me(customer)
    async with client_of(application_of(shop)) as client:
        key = {"Idempotency-Key": "tap"}
        answers = await asyncio.gather(
            *(client.post("/api/photos/1/redo", params=me, headers=key) for _ in range(4))
        )
        assert len({_data(answer, 201)["jobId"] for answer in answers}) == 1
        (started,) = {_data(answer, 201)["jobId"] for answer in answers}
        shown = _data(await client.get(f"/api/jobs/{job.id}", params=me))["photos"]
        redos = {photo["photoId"]: (photo["redoJobId"], photo["redoStatus"]) for photo in shown}
        assert redos.pop(1) == (started, "pending")
        assert set(redos.values()) == {(None, None)}
        answer = await client.post("/api/photos/1/redo", params=me)
        assert answer.status_code == 409
        assert answer.json()["error"]["details"] == {"code": "ALREADY_REDONE", "jobId": started}
        answer = await client.post("/api/photos/2/redo", params=me, headers=key)
        assert answer.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"
        answer = await client.post("/api/photos/2/redo", params=me)
        assert answer.json()["error"]["details"] == {"code": "REDO_USED_UP", "left": 0}
    await shop.drain()


async def test_links_are_made_seen_and_ended(shop: Shop) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    me = _me(customer)
    async with client_of(application_of(shop)) as client:
        path, key = f"/api/jobs/{job.id}/shares", {"Idempotency-Key": "tap"}
        made = [
            _data(await client.post(path, json={**me, "days": 3}, headers=key), 201)
            for _ in range(2)
        ]
        assert made[0] == made[1]
        one = _data(await client.post(path, json={**me, "photoId": 2}), 201)
        assert one["photoId"] == 2
        listed = _data(await client.get("/api/shares", params=me))
        assert listed == {"shares": [one, made[0]], "sharesMax": 50}
        for bad in ({"days": 0}, {"days": 31}, {"days": "3"}, {"photoId": "x"}, {"days": True}):
            answer = await client.post(path, json={**me, **bad})
            assert answer.status_code == 400, bad
        for _ in range(2):
            answer = await client.delete(f"/api/shares/{one['shareId']}", params=me)
            assert _data(answer) == {"shareId": one["shareId"], "ended": True}
        assert _data(await client.get("/api/shares", params=me))["shares"] == [made[0]]
