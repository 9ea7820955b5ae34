"""Avatars: three a user, one a wish, somebody else's are not there, and none goes while it is paid for."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from darkroom.core.avatars import bury_avatar, insert_avatar
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.remove import remove_avatar
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, GenerationRequest, Refused
from tests.edges.serving import application_of, client_of
from tests.shop import Customer, Shop

ME = {"telegramUserId": 500}
BUSY = (409, "AVATAR_BUSY")


def _said(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


async def _make(
    client: httpx.AsyncClient, name: str = "Me", key: str | None = None
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/api/avatars", json={"name": name}, params=ME, headers=headers)


async def test_an_avatar_is_made_listed_renamed_and_deleted(shop: Shop) -> None:
    async with client_of(application_of(shop)) as client:
        made = await _make(client, "  Я и кот 🐈 ")
        avatar = made.json()["data"]
        assert made.status_code == 201
        assert avatar == {
            "avatarId": avatar["avatarId"],
            "name": "Я и кот 🐈",
            "selfies": 0,
            "thumbnailUrl": None,
            "warnings": {},
            "lastJob": None,
            "createdAt": avatar["createdAt"],
        }
        path = f"/api/avatars/{avatar['avatarId']}"
        renamed = await client.patch(path, json={"name": "Кот"}, params=ME)
        assert renamed.json()["data"] == {**avatar, "name": "Кот"}
        listed = (await client.get("/api/avatars", params=ME)).json()["data"]
        assert listed == {
            "avatars": [{**avatar, "name": "Кот"}],
            "avatarsMax": 3,
            "selfiesMax": 8,
        }
        for _ in range(2):
            gone = await client.delete(path, params=ME)
            assert (gone.status_code, gone.json()["data"]["deleted"]) == (200, True)
        assert (await client.get("/api/avatars", params=ME)).json()["data"]["avatars"] == []
        assert _said(await client.patch(path, json={"name": "x"}, params=ME))[0] == 404
    # A tombstone: the row stays.
    assert await shop.value("SELECT count(*) FROM avatars") == 1


async def test_ten_wishes_at_once_make_three_avatars(shop: Shop) -> None:
    """bugbook A29: two tabs got past the limit, it was counted first and inserted later."""
    async with client_of(application_of(shop)) as client:
        answers = await asyncio.gather(*(_make(client, f"Tab {tab}") for tab in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 7
        assert {_said(answer) for answer in answers if answer.is_error} == {(409, "AVATAR_LIMIT")}
        assert await shop.value("SELECT count(*) FROM avatars") == 3
        # A deleted one makes room.
        avatar_id = await shop.value("SELECT min(id) FROM avatars")
        await client.delete(f"/api/avatars/{avatar_id}", params=ME)
        assert (await _make(client)).status_code == 201


async def test_twin_without_the_lock_a_fourth_avatar_is_made(shop: Shop) -> None:
    """The guard removed: both count two, both insert."""
    customer = await shop.customer()
    user_id = customer.user_id

    async def make() -> None:
        async with shop.database.transaction() as tx:
            await insert_avatar(tx, user_id=user_id, name="x", request_id=uuid4(), most=3)
            await counted.wait()

    counted = asyncio.Barrier(3)
    await asyncio.gather(*(make() for _ in range(3)))
    made = await shop.value("SELECT count(*) FROM avatars WHERE user_id = %s", user_id)
    assert made == 4, "the twin must fail"


async def test_the_same_key_is_the_same_avatar(shop: Shop) -> None:
    """bugbook A29: the column for the key existed and was never written."""
    async with client_of(application_of(shop)) as client:
        answers = await asyncio.gather(*(_make(client, key="tap") for _ in range(6)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["data"]["avatarId"] for answer in answers}) == 1
        assert _said(await _make(client, "Other", key="tap")) == (409, "IDEMPOTENCY_KEY_REUSED")
        assert _said(await _make(client, key="a\x7f" * 200)) == (400, "INVALID_KEY")
        avatar_id = answers[0].json()["data"]["avatarId"]
        await client.delete(f"/api/avatars/{avatar_id}", params=ME)
        assert _said(await _make(client, key="tap")) == (404, "AVATAR_NOT_FOUND")
    assert await shop.value("SELECT count(*) FROM avatars") == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"name": null}',
        b'{"name": 5}',
        b'{"name": ""}',
        b'{"name": "  "}',
        b'{"name": "a\\u0000b"}',
        b'{"name": "\\ud800"}',
        b'{"name": ["x"]}',
        b'{"name": "' + b"x" * 101 + b'"}',
    ],
)
async def test_a_name_that_cannot_be_kept_is_refused(shop: Shop, raw: bytes) -> None:
    customer = await shop.customer(500)
    headers = {"Content-Type": "application/json"}
    async with client_of(application_of(shop)) as client:
        made = await client.post("/api/avatars", content=raw, params=ME, headers=headers)
        renamed = await client.patch(
            f"/api/avatars/{customer.avatar_id}", content=raw, params=ME, headers=headers
        )
    for answer in (made, renamed):
        assert answer.status_code == 400
        assert answer.json()["error"]["code"].startswith("INVALID_")
    assert await shop.rows("SELECT name FROM avatars") == [{"name": "Me"}]


async def test_somebody_elses_avatar_is_not_there(shop: Shop) -> None:
    """bugbook G4, bugbook G18, bugbook G26, bugbook A21: ids of others were served, unknown ones made avatars.

    Somebody else's and nobody's are told in the same words, so that asking tells nothing.
    """
    mine, theirs = await shop.customer(500), await shop.customer(501)
    selfie_id = await shop.value(
        "SELECT id FROM reference_photos WHERE avatar_id = %s", theirs.avatar_id
    )
    files = {"files": ("a.jpg", b"bytes", "image/jpeg")}
    async with client_of(application_of(shop)) as client:
        for avatar_id in (theirs.avatar_id, 999_999):
            path = f"/api/avatars/{avatar_id}"
            for answer in (
                await client.patch(path, json={"name": "Mine now"}, params=ME),
                await client.delete(path, params=ME),
                await client.get(f"{path}/references", params=ME),
                await client.post(f"{path}/references", files=files, params=ME),
            ):
                assert _said(answer) == (404, "AVATAR_NOT_FOUND")
            for answer in (
                await client.delete(f"{path}/references/{selfie_id}", params=ME),
                await client.get(f"{path}/references/{selfie_id}/image", params=ME),
            ):
                assert _said(answer) == (404, "REFERENCE_NOT_FOUND")
        # Their selfie under my avatar's path is not there either.
        crossed = f"/api/avatars/{mine.avatar_id}/references/{selfie_id}"
        assert _said(await client.delete(crossed, params=ME))[0] == 404
        for method in ("GET", "POST"):
            assert (await client.request(method, "/api/avatars")).status_code == 401
    assert await shop.value("SELECT count(*) FROM avatars WHERE deleted_at IS NULL") == 2
    assert await shop.value("SELECT count(*) FROM reference_photos WHERE deleted_at IS NULL") == 2


async def _running_set(shop: Shop, customer: Customer) -> None:
    await shop.paid(customer)
    await shop.start(customer)


async def _unsettled_refund(shop: Shop, customer: Customer) -> None:
    async def refuse(_request: GenerationRequest) -> Refused:
        return Refused("policy", "never", Again.NEVER)

    shop.provider.on_create = refuse
    await _running_set(shop, customer)
    for step in ("submit", "finish"):
        await shop.step(step)
    assert await shop.value("SELECT status FROM refunds") == "requested"


async def _paid_order(shop: Shop, customer: Customer) -> None:
    await shop.paid(customer, order_style="signature")


async def _waiting_order(shop: Shop, customer: Customer) -> None:
    await shop.ordered(customer, order_style="signature")


@pytest.mark.parametrize("bought", [_running_set, _unsettled_refund, _paid_order, _waiting_order])
async def test_an_avatar_that_is_paid_for_stays(
    shop: Shop, bought: Callable[[Shop, Customer], Any]
) -> None:
    customer = await shop.customer(500)
    await bought(shop, customer)
    async with client_of(application_of(shop)) as client:
        answer = await client.delete(f"/api/avatars/{customer.avatar_id}", params=ME)
    assert _said(answer) == BUSY
    assert await shop.value("SELECT count(*) FROM avatars WHERE deleted_at IS NULL") == 1


async def test_a_delivered_avatar_may_go_and_its_books_stay(shop: Shop) -> None:
    """bugbook H12: what was made of an avatar kept it from being deleted."""
    customer = await shop.customer(500)
    await _running_set(shop, customer)
    await shop.drain()
    async with client_of(application_of(shop)) as client:
        listed = (await client.get("/api/avatars", params=ME)).json()["data"]["avatars"][0]
        assert listed["lastJob"]["status"] == "completed"
        assert listed["lastJob"]["completedPhotos"] == 7
        assert listed["selfies"] == 1
        assert (await client.get(listed["thumbnailUrl"], params=ME)).status_code == 200
        await client.delete(f"/api/avatars/{customer.avatar_id}", params=ME)
        body = {**ME, "avatarId": customer.avatar_id, "styleId": "signature"}
        assert _said(await client.post("/api/generate", json=body))[0] == 404
        order = {**ME, "tierId": "starter", "avatarId": customer.avatar_id, "styleId": "creative"}
        assert _said(await client.post("/api/payments", json=order))[0] == 404
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7


async def test_late_money_for_a_deleted_avatar_can_be_spent_on_another(shop: Shop) -> None:
    customer = await shop.customer(500)
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id, "canceled", "e1")
    await shop.drain()
    await remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=customer.avatar_id)
    await shop.notify(payment_id, "paid", "e2")
    await shop.drain()
    other = await shop.customer(500)
    assert other.user_id == customer.user_id
    assert (await shop.start(other)).payment_id == payment_id
    await shop.drain()


async def _delete_while_starting(
    shop: Shop, customer: Customer, delete: Callable[[], Any]
) -> object:
    """A deletion that begins when the start has done everything but commit."""
    deleting: asyncio.Task[object] | None = None

    async def at(name: str) -> None:
        nonlocal deleting
        if name == "start.before_commit":
            deletion = deleting = asyncio.ensure_future(delete())
            await asyncio.wait({deletion}, timeout=0.3)

    with checkpoints_handled_by(at):
        await shop.start(customer)
    assert deleting is not None
    try:
        return await deleting
    except RequestRefusedError as refusal:
        return refusal.code


async def test_of_a_start_and_a_deletion_at_once_the_second_sees_the_first(shop: Shop) -> None:
    customer = await shop.customer()
    await shop.paid(customer)
    ids = {"user_id": customer.user_id, "avatar_id": customer.avatar_id}
    assert (
        await _delete_while_starting(shop, customer, lambda: remove_avatar(shop.darkroom, **ids))
        == "AVATAR_BUSY"
    )
    await shop.drain()


async def test_twin_without_the_lock_a_starting_set_loses_its_avatar(shop: Shop) -> None:
    """The guard removed: the deletion does not see the job that is about to be committed."""
    customer = await shop.customer()
    await shop.paid(customer)

    async def unlocked() -> str:
        async with shop.database.transaction() as tx:
            return await bury_avatar(tx, user_id=customer.user_id, avatar_id=customer.avatar_id)

    found = await _delete_while_starting(shop, customer, unlocked)
    assert found == "deleted", "the twin must fail"
    await shop.drain()


async def test_an_order_placed_while_its_avatar_goes_is_refused(shop: Shop) -> None:
    """Looked at before the lock, decided behind it."""
    customer = await shop.customer()
    ids = {"user_id": customer.user_id, "avatar_id": customer.avatar_id}
    async with shop.database.transaction() as tx:
        await tx.execute("SELECT FROM users WHERE id = %s FOR UPDATE", [customer.user_id])
        ordering = asyncio.ensure_future(shop.ordered(customer, order_style="signature"))
        await asyncio.wait({ordering}, timeout=0.3)
        assert await bury_avatar(tx, **ids) == "deleted"
    with pytest.raises(RequestRefusedError) as refusal:
        await ordering
    assert refusal.value.code == "AVATAR_NOT_FOUND"
    assert await shop.value("SELECT count(*) FROM payments") == 0


async def test_an_avatar_shows_the_set_that_is_made_now(shop: Shop) -> None:
    """bugbook A22: only a new avatar's status was moved; one with photos looked idle during its next set."""
    customer = await shop.customer(500)
    await _running_set(shop, customer)
    await shop.drain()
    await shop.paid(customer)
    second = await shop.start(customer)
    async with client_of(application_of(shop)) as client:
        shown = (await client.get("/api/avatars", params=ME)).json()["data"]["avatars"][0]
        assert shown["lastJob"] == {
            "jobId": second.id,
            "status": "pending",
            "totalPhotos": 7,
            "completedPhotos": 0,
        }
        await shop.drain()
        shown = (await client.get("/api/avatars", params=ME)).json()["data"]["avatars"][0]
    assert (shown["lastJob"]["jobId"], shown["lastJob"]["status"]) == (second.id, "completed")


async def test_a_second_set_begins_by_itself_and_takes_nothing_from_the_first(shop: Shop) -> None:
    """bugbook A19, bugbook C12, bugbook C14: a question stood between the money and the photos.

    "Delete the old ones?" No: paid, nothing made; yes: the old ones gone before there were new ones. And
    both sets of an avatar were counted as one.
    """
    customer = await shop.customer(500)
    await _running_set(shop, customer)
    await shop.drain()
    gallery = f"/api/avatars/{customer.avatar_id}/photos"
    async with client_of(application_of(shop)) as client:

        async def shown(path: str) -> list[int]:
            data = (await client.get(path, params=ME)).json()["data"]
            return sorted(photo["photoId"] for photo in data["photos"])

        first, second = "/api/jobs/1", "/api/jobs/2"
        old = await shown(gallery)
        await shop.notify(await shop.ordered(customer, order_style="signature"))
        await take_due_notices(shop.darkroom)
        assert await shop.value("SELECT max(id) FROM generation_jobs") == 2
        assert (len(old), await shown(gallery), await shown(second)) == (7, old, [])
        await shop.drain()
        new = await shown(second)
        assert (len(new), await shown(first)) == (7, old)
        assert await shown(gallery) == old + new
