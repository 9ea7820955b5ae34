"""Who leaves is gone: selfies after their days, deleted ones at once, and a whole customer with every byte.

Looked for in the store's own folder, beside another customer whose files must all still be there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from uuid import uuid4

import pytest

from darkroom.adapters.storage import Storage
from darkroom.core import dead_letters, erasing, forgetting
from darkroom.core.audit import run_audit
from darkroom.core.photos import StoredPicture, keep_late_photo
from darkroom.core.requests import UserLeftError
from darkroom.core.tasks import TaskClaim
from darkroom.flow import add_selfie as adding
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.delete_selfies import delete_selfies
from darkroom.flow.empty_avatars import empty_avatars
from darkroom.flow.erase_pictures import erase_pictures
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.forget_me import forget_leavers, forget_me, forget_telegram_user
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.hand_out_photos import find_photo_file
from darkroom.flow.make_avatar import AvatarRequest, make_avatar
from darkroom.flow.pay_back import note_paid_by_hand
from darkroom.flow.read_avatars import read_selfie_image
from darkroom.flow.recognize_store import MARK_KEY
from darkroom.flow.remove import remove_avatar, remove_selfie
from darkroom.flow.replay_letters import read_dead_letters, replay_letters
from darkroom.flow.sign_in import know_person, sign_in, whose_session
from darkroom.flow.sign_in_by_link import ask_sign_in_link
from darkroom.flow.start_generation import start_generation
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.identity import Person
from darkroom.ports.payments import PaymentMoney, RefundCall, RefundForms, RefundRefused
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError
from tests.scripted import picture_of
from tests.shop import Customer, Shop

DAY: Final = 86_400
MESSAGES: Final = "SELECT kind, user_id, text_ru, text_en FROM customer_messages ORDER BY id"
SELFIES: Final = "SELECT * FROM reference_photos ORDER BY id"
USERS: Final = "SELECT * FROM users WHERE id = %s"


def files(folder: Path) -> list[str]:
    """The keys of everything that really lies in the store, but for its mark."""
    keys = (
        str(Path(*path.relative_to(folder).parts[1:]))
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0].startswith("objects-")
    )
    return sorted(key for key in keys if key != MARK_KEY)


def of_avatar(folder: Path, avatar_id: int) -> list[str]:
    """Those that lie under an avatar's number."""
    return [key for key in files(folder) if key.split("/")[1] == str(avatar_id)]


async def _delete(shop: Shop, customer: Customer, selfie_id: int) -> None:
    await remove_selfie(
        shop.darkroom,
        user_id=customer.user_id,
        avatar_id=customer.avatar_id,
        selfie_id=selfie_id,
    )


async def _send(shop: Shop, customer: Customer) -> int:
    """The customer's own selfie, once more."""
    return await add_selfie(
        shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(-customer.avatar_id)
    )


async def _bytes_of(shop: Shop, customer: Customer, selfie_id: int) -> bytes:
    _, data = await read_selfie_image(
        shop.darkroom,
        user_id=customer.user_id,
        avatar_id=customer.avatar_id,
        selfie_id=selfie_id,
    )
    return data


# --- selfies ----------------------------------------------------------------------------------------


async def test_selfies_go_after_their_days_and_their_customer_is_told(
    shop: Shop, tmp_path: Path
) -> None:
    """bugbook H16: the daily cleaning looked for a name that no object had, and deleted nothing."""
    customer = await shop.customer()
    await add_selfie(shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(-500))
    await shop.advance(30 * DAY - 60)
    young = await shop.customer()
    await shop.drain()
    assert len(files(tmp_path)) == 3
    await shop.advance(61)
    await shop.drain()
    assert of_avatar(tmp_path, customer.avatar_id) == []
    assert len(of_avatar(tmp_path, young.avatar_id)) == 1
    old = await shop.rows("SELECT * FROM reference_photos WHERE avatar_id = %s", customer.avatar_id)
    assert all(row["deleted_at"] and row["erasing_at"] and row["erased_at"] for row in old)
    # What was measured of the face is gone with it.
    assert all(
        (row["dhash"], row["verdict"], row["upload_sha256"]) == (None, {}, None) for row in old
    )
    (told,) = await shop.rows(MESSAGES)
    assert (told["kind"], told["user_id"]) == ("selfies_deleted", customer.user_id)
    assert "30 дн." in told["text_ru"]
    assert "2 фотографии" in told["text_ru"]
    await shop.drain()
    assert len(await shop.rows(MESSAGES)) == 1


async def test_a_selfie_that_lives_again_counts_from_its_second_upload(shop: Shop) -> None:
    customer = await shop.customer()
    selfie_id = await shop.value("SELECT id FROM reference_photos")
    await shop.advance(29 * DAY)
    await _delete(shop, customer, selfie_id)
    assert await _send(shop, customer) == selfie_id
    await shop.advance(29 * DAY)
    await shop.drain()
    assert await _bytes_of(shop, customer, selfie_id)
    await shop.advance(2 * DAY)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM reference_photos WHERE erased_at IS NULL") == 0
    # And after that the same file is another selfie, with the same days before it, and told of again.
    assert await _send(shop, customer) != selfie_id
    await shop.advance(31 * DAY)
    await shop.drain()
    assert [row["kind"] for row in await shop.rows(MESSAGES)] == ["selfies_deleted"] * 2


async def test_a_selfie_stays_while_a_set_is_made_from_it_or_a_paid_order_waits(
    shop: Shop, tmp_path: Path
) -> None:
    making, waiting = await shop.customer(), await shop.customer()
    await shop.advance(40 * DAY)
    await shop.paid(making)
    await shop.start(making)
    await shop.paid(waiting, order_style="signature")
    assert await delete_selfies(shop.darkroom) == 0
    assert len(files(tmp_path)) == 2
    # The order starts, both sets are made, and then the selfies go.
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM generated_photos") == 14
    assert [key for key in files(tmp_path) if key.startswith("references/")] == []
    assert await shop.value("SELECT count(*) FROM customer_messages") == 2


async def test_a_deleted_selfie_and_a_deleted_avatars_selfies_are_erased_and_not_told(
    shop: Shop, tmp_path: Path
) -> None:
    one, other, stays = [await shop.customer() for _ in range(3)]
    await _delete(shop, one, 1)
    await remove_avatar(shop.darkroom, user_id=other.user_id, avatar_id=other.avatar_id)
    await shop.drain()
    assert files(tmp_path) == of_avatar(tmp_path, stays.avatar_id)
    assert len(files(tmp_path)) == 1
    assert await shop.rows(MESSAGES) == []


async def test_a_busy_customer_does_not_stop_those_behind(shop: Shop) -> None:
    busy, _ = await shop.customer(), await shop.customer()
    await shop.advance(40 * DAY)
    async with shop.database.transaction() as tx:
        await tx.execute("SELECT FROM users WHERE id = %s FOR UPDATE", [busy.user_id])
        assert await delete_selfies(shop.darkroom) == 1
    assert await delete_selfies(shop.darkroom) == 1


async def test_a_store_that_does_not_answer_is_asked_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await shop.customer()
    await _delete(shop, customer, 1)

    async def silent(*_args: object) -> None:
        raise StorageUnavailableError("delete")

    with monkeypatch.context() as broken:
        broken.setattr(Storage, "delete", silent)
        await shop.drain()
    assert (await shop.rows(SELFIES))[0]["erased_at"] is None
    assert len(files(tmp_path)) == 1
    await shop.drain()
    assert (await shop.rows(SELFIES))[0]["erased_at"] is not None
    assert files(tmp_path) == []


# --- the same file again, while its bytes are being deleted --------------------------------------------


async def _send_around_an_eraser(shop: Shop, customer: Customer, at: str, *, erase: bool) -> int:
    """The deleted selfie is sent again; at the named moment the eraser does all of its work."""
    came = False

    async def handle(name: str) -> None:
        nonlocal came
        if name == at and not came:
            came = True
            while await delete_selfies(shop.darkroom) + await erase_pictures(shop.darkroom):
                pass

    async def send(name: str) -> None:
        nonlocal came
        if name == at and not came:
            came = True
            sent.append(await _send(shop, customer))

    sent: list[int] = []
    await _delete(shop, customer, await shop.value("SELECT max(id) FROM reference_photos"))
    if erase:
        with checkpoints_handled_by(handle):
            sent.append(await _send(shop, customer))
    else:
        with checkpoints_handled_by(send):
            while await delete_selfies(shop.darkroom) + await erase_pictures(shop.darkroom):
                pass
    assert came
    return sent[0]


AROUND: Final = [
    # The uploader has put, or is about to; the eraser comes by.
    ("selfie.before_put", True),
    ("selfie.stored", True),
    # The eraser has begun, or has deleted; the uploader comes by.
    ("erase.before_delete", False),
    ("erase.deleted", False),
]


@pytest.mark.parametrize(("at", "erase"), AROUND)
async def test_bytes_sent_again_while_they_are_erased_are_kept(
    shop: Shop, tmp_path: Path, at: str, *, erase: bool
) -> None:
    """Erasing that began never ends otherwise, and its key is nobody else's: the new selfie has another."""
    customer = await shop.customer()
    selfie_id = await _send_around_an_eraser(shop, customer, at, erase=erase)
    assert selfie_id == 2
    await shop.drain()
    assert await _bytes_of(shop, customer, selfie_id) == picture_of(-customer.avatar_id)
    first, second = await shop.rows(SELFIES)
    assert first["erased_at"] is not None
    assert second["object_key"] == first["object_key"].replace(".jpg", "-1.jpg")
    assert files(tmp_path) == [second["object_key"]]
    # And once more, now that one generation is behind it.
    await _delete(shop, customer, selfie_id)
    await shop.drain()
    assert files(tmp_path) == []
    assert await _send(shop, customer) == 3
    assert files(tmp_path) == [second["object_key"].replace("-1.jpg", "-2.jpg")]


@pytest.mark.parametrize(("at", "erase"), [AROUND[1], AROUND[2]])
async def test_twin_with_one_key_for_the_same_bytes_a_live_selfie_loses_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, at: str, *, erase: bool
) -> None:
    """The guards removed: no generation in the key, and no index that refuses the same key twice."""
    customer = await shop.customer()

    async def always_the_first(*_args: object, **_kwargs: object) -> int:
        return 0

    monkeypatch.setattr(adding, "find_generation", always_the_first)
    async with shop.database.connection() as tx:
        await tx.execute("DROP INDEX idx_reference_photos_key")
    selfie_id = await _send_around_an_eraser(shop, customer, at, erase=erase)
    await shop.drain()
    live = await shop.value("SELECT count(*) FROM reference_photos WHERE deleted_at IS NULL")
    assert (selfie_id, live) == (2, 1)
    with pytest.raises(ObjectMissingError):
        await shop.darkroom.store.get((await shop.rows(SELFIES))[1]["object_key"])


async def test_a_row_whose_erasing_began_never_lives_again(shop: Shop) -> None:
    """Whoever forgets to ask is refused by the table itself."""
    customer = await shop.customer()
    await _delete(shop, customer, 1)
    await delete_selfies(shop.darkroom)
    with pytest.raises(Exception, match="reference_photos_erased_in_order"):
        await shop.rows("UPDATE reference_photos SET deleted_at = NULL RETURNING id")


# --- replays ------------------------------------------------------------------------------------------


async def _free_set_with_a_dead_letter(shop: Shop) -> Customer:
    """No money of it goes back, so that its letter can be replayed."""

    async def fail_one(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("400", "no", Again.NEVER) if request.prompt_index == 0 else None

    customer = await shop.customer()
    shop.provider.on_ask = fail_one
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=uuid4()
    )
    await shop.start(customer)
    await shop.drain()
    shop.provider.on_ask = None
    assert [letter.replayable for letter in await read_dead_letters(shop.darkroom)] == [True]
    return customer


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_photo_whose_selfies_are_gone_is_not_tried_again(
    shop: Shop, *, leaves: bool
) -> None:
    customer = await _free_set_with_a_dead_letter(shop)
    if leaves:
        await forget_me(shop.darkroom, user_id=customer.user_id)
    else:
        await shop.advance(31 * DAY)
        await shop.drain()
    (letter,) = await read_dead_letters(shop.darkroom)
    assert not letter.replayable
    for letter_id in (letter.id, None):
        replays = await replay_letters(shop.darkroom, letter_id, provider=None)
        assert replays.replayed == 0
    assert await shop.value("SELECT status FROM generation_jobs") == "partial"


async def test_a_replayed_set_keeps_its_selfies_until_it_ends(shop: Shop, tmp_path: Path) -> None:
    await _free_set_with_a_dead_letter(shop)
    await shop.advance(31 * DAY)
    assert (await replay_letters(shop.darkroom, None, provider=None)).replayed == 1
    assert await delete_selfies(shop.darkroom) == 0
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert [key for key in files(tmp_path) if key.startswith("references/")] == []


# --- an avatar goes ---------------------------------------------------------------------------------


async def _with_a_late_photo(shop: Shop) -> Customer:
    """A set of which one photo failed and came late, so its bytes are there beside six others."""
    customer = await _free_set_with_a_dead_letter(shop)
    key = f"generated/{customer.avatar_id}/late.jpg"
    await shop.darkroom.store.put_once(key, b"late", "image/jpeg")
    await shop.rows(
        "INSERT INTO late_photos (task_id, attempt_id, object_key, sha256, size_bytes, content_type) "
        "SELECT id, attempt_id, %s, repeat('0', 64), 4, 'image/jpeg' FROM kie_tasks "
        "WHERE status = 'failed' RETURNING id",
        key,
    )
    return customer


async def _delete_avatar(shop: Shop, customer: Customer) -> None:
    await remove_avatar(shop.darkroom, user_id=customer.user_id, avatar_id=customer.avatar_id)


async def test_an_avatar_is_deleted_with_all_its_photos(shop: Shop, tmp_path: Path) -> None:
    """bugbook H15: the page said "with all photos", and only the selfies went. Faces stayed for ever."""
    customer, other = await _with_a_late_photo(shop), await shop.customer()
    await shop.rows("UPDATE generated_photos SET favorite_at = darkroom_now() RETURNING id")
    beside = of_avatar(tmp_path, other.avatar_id)
    assert len(of_avatar(tmp_path, customer.avatar_id)) == 1 + 6 + 6 + 1
    await _delete_avatar(shop, customer)
    await shop.drain()
    # What a worker had in its hands may still get its row.
    assert len(of_avatar(tmp_path, customer.avatar_id)) == 6 + 6 + 1
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await shop.drain()
    assert of_avatar(tmp_path, customer.avatar_id) == []
    assert of_avatar(tmp_path, other.avatar_id) == beside
    assert await shop.rows(
        "SELECT name, emptied_at IS NOT NULL AS emptied FROM avatars ORDER BY id"
    ) == [{"name": "-", "emptied": True}, {"name": "Me", "emptied": False}]
    assert (
        await shop.value(
            "SELECT count(*) FROM generated_photos "
            "WHERE deleted_at IS NOT NULL AND erased_at IS NOT NULL AND favorite_at IS NULL"
        )
        == 6
    ), "the books and the counts stay"
    assert await shop.value("SELECT count(result_url) FROM kie_tasks") == 0
    assert await shop.value("SELECT count(result_url) FROM task_attempts") == 0
    assert await empty_avatars(shop.darkroom) == 0


async def test_a_photo_that_comes_after_its_avatar_was_gone_through_goes_at_once(
    shop: Shop, tmp_path: Path
) -> None:
    """Its worker stood still for an hour: nobody would have looked for it any more."""
    customer = await _free_set_with_a_dead_letter(shop)
    (late,) = await shop.rows("SELECT id, attempt_id FROM kie_tasks WHERE status = 'failed'")
    await _delete_avatar(shop, customer)
    await shop.advance(3600)
    await shop.drain()
    key = f"generated/{customer.avatar_id}/late.jpg"
    await shop.darkroom.store.put_once(key, b"late", "image/jpeg")
    picture = StoredPicture(key, "0" * 64, 4, "image/jpeg", 1, 1, None)
    async with shop.database.connection() as tx:
        task = cast("TaskClaim", SimpleNamespace(**late))
        assert await keep_late_photo(tx, task, picture)
    await shop.drain()
    assert of_avatar(tmp_path, customer.avatar_id) == []


async def test_an_avatar_of_which_a_set_is_made_after_all_is_emptied_when_it_ends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the version before replayed a photo of it."""
    customer = await _free_set_with_a_dead_letter(shop)
    await _delete_avatar(shop, customer)
    with monkeypatch.context() as before:
        before.setattr(dead_letters, "REPLAYABLE", "TRUE")
        assert (await replay_letters(shop.darkroom, None, provider=None)).replayed == 1
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    assert await empty_avatars(shop.darkroom) == 0
    await shop.drain()
    assert await shop.value("SELECT emptied_at IS NOT NULL FROM avatars")
    assert await shop.value("SELECT count(*) FROM generated_photos WHERE erased_at IS NULL") == 0


async def test_a_photo_of_a_deleted_avatar_is_not_tried_again(shop: Shop, tmp_path: Path) -> None:
    """Its bytes would come after all others had gone, for nobody."""
    customer = await _free_set_with_a_dead_letter(shop)
    await _delete_avatar(shop, customer)
    assert (await replay_letters(shop.darkroom, None, provider=None)).replayed == 0
    (letter,) = await read_dead_letters(shop.darkroom)
    assert not letter.replayable
    assert (await replay_letters(shop.darkroom, letter.id, provider=None)).replayed == 0
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await shop.drain()
    assert of_avatar(tmp_path, customer.avatar_id) == []


async def test_an_avatar_of_a_busy_customer_is_emptied_later(shop: Shop) -> None:
    busy, other = await shop.customer(), await shop.customer()
    for customer in (busy, other):
        await _delete_avatar(shop, customer)
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    async with shop.database.transaction() as tx:
        await tx.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", [busy.user_id])
        assert await empty_avatars(shop.darkroom) == 1
    assert await empty_avatars(shop.darkroom) == 1


async def test_twin_an_avatar_that_keeps_a_photo_is_found(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_EMPTIES", ())
    customer, _ = await shop.sold()
    await shop.drain()
    await _delete_avatar(shop, customer)
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await empty_avatars(shop.darkroom)
    findings = (await run_audit(shop.database)).findings
    assert [finding.name for finding in findings] == ["deleted_and_still_there"]
    shop.audit_at_end = False


# --- a customer leaves ----------------------------------------------------------------------------------


async def _forgotten(shop: Shop, user_id: int) -> dict[str, Any]:
    """Everything that is left to do is done; the user's row."""
    await shop.drain()
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await shop.drain()
    return (await shop.rows(USERS, user_id))[0]


async def test_who_leaves_is_gone_and_the_books_stay(shop: Shop, tmp_path: Path) -> None:
    """bugbook H15, bugbook H16: photos of who had left lay in the bucket and at the CDN, for good."""
    leaver, stays = await shop.customer(), await shop.customer()
    for one in (leaver, stays):
        await shop.paid(one)
        await shop.start(one)
    await shop.drain()
    unused = await shop.ordered(leaver)
    shop.bank.pays(unused)
    await shop.notify(unused)
    await take_due_notices(shop.darkroom)
    # A crash between a put and its row: nobody knows of this one.
    await shop.darkroom.store.put_once(
        f"references/{leaver.avatar_id}/lost.jpg", b"x", "image/jpeg"
    )
    before = {one.avatar_id: of_avatar(tmp_path, one.avatar_id) for one in (leaver, stays)}
    assert [len(keys) for keys in before.values()] == [16, 15]
    session = await sign_in(shop.darkroom, Person(leaver.telegram_user_id, "ru"))

    await forget_me(shop.darkroom, user_id=leaver.user_id)
    assert await whose_session(shop.darkroom, session.token) is None
    assert await shop.value("SELECT status FROM payments WHERE id = %s", unused) == "refunding"
    with pytest.raises(Exception, match="PHOTO_NOT_FOUND"):
        await find_photo_file(shop.darkroom, user_id=leaver.user_id, photo_id=1, variant="full")
    row = await _forgotten(shop, leaver.user_id)

    assert row["forgotten_at"] is not None
    assert (row["telegram_user_id"], row["forgotten_telegram_user_id"]) == (None, None)
    assert of_avatar(tmp_path, leaver.avatar_id) == []
    assert files(tmp_path) == before[stays.avatar_id]
    assert await shop.value("SELECT status FROM payments WHERE id = %s", unused) == "refunded"
    await _nothing_personal(shop, leaver.user_id)
    report = await run_audit(shop.database)
    assert (report.clean, report.payments, report.completed_tasks, report.photos) == (
        True,
        3,
        14,
        14,
    )
    # The same person is a new customer.
    again = await know_person(shop.darkroom, Person(leaver.telegram_user_id, "ru"))
    assert again not in (leaver.user_id, stays.user_id)


PERSONAL: Final = """
SELECT (SELECT array_agg(DISTINCT a.name) FROM avatars a WHERE a.user_id = u.id) AS names,
       (SELECT count(*) FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id WHERE a.user_id = u.id
        AND (r.erased_at IS NULL OR r.object_key <> 'erased/' || r.id OR r.dhash IS NOT NULL
             OR r.upload_sha256 IS NOT NULL OR r.verdict <> '{}'
             OR r.sha256 <> encode(sha256(r.id::TEXT::BYTEA), 'hex'))) AS selfies,
       (SELECT count(*) FROM generated_photos g JOIN avatars a ON a.id = g.avatar_id WHERE a.user_id = u.id
        AND (g.deleted_at IS NULL OR g.erased_at IS NULL)) AS photos,
       (SELECT count(*) FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id
        JOIN task_attempts x ON x.task_id = t.id
        WHERE j.user_id = u.id AND num_nonnulls(t.result_url, x.result_url) > 0) AS links,
       (SELECT count(*) FROM payments p WHERE p.user_id = u.id AND p.checkout_url IS NOT NULL) AS checkouts,
       (SELECT count(*) FROM payments p WHERE p.user_id = u.id AND p.receipt_email IS NOT NULL) AS receipts,
       num_nonnulls(u.telegram_user_id, u.forgotten_telegram_user_id) AS telegram_ids,
       num_nonnulls(u.email) AS emails,
       (SELECT count(*) FROM sign_in_links l WHERE l.user_id = u.id) AS sign_in_links,
       (SELECT count(*) FROM mail_outbox m WHERE m.user_id = u.id) AS letters,
       (SELECT count(*) FROM sessions s WHERE s.user_id = u.id) AS sessions,
       (SELECT count(*) FROM upload_requests q WHERE q.user_id = u.id) AS uploads,
       (SELECT count(*) FROM idempotency_keys k WHERE k.user_id = u.id) AS keys,
       (SELECT count(*) FROM telegram_message_queue m WHERE m.user_id = u.id AND m.chat_id <> 0) AS chats
FROM users u WHERE u.id = %s
"""


async def _nothing_personal(shop: Shop, user_id: int) -> None:
    (found,) = await shop.rows(PERSONAL, user_id)
    assert found.pop("names") == ["-"]
    assert set(found.values()) == {0}, found


async def test_what_is_wiped_was_there(shop: Shop) -> None:
    """The look above sees each kind of personal data before it is wiped, and none after."""
    shop.darkroom = replace(shop.darkroom, chat_enabled=True)
    leaver = await shop.customer()
    await sign_in(shop.darkroom, Person(leaver.telegram_user_id, "ru"))
    await shop.rows(
        "UPDATE users SET email = 'me@example.com' WHERE id = %s RETURNING id", leaver.user_id
    )
    await ask_sign_in_link(shop.darkroom, email="me@example.com", locale="ru")
    payment_id = await shop.paid(leaver, receipt_email="me@example.com")
    await start_generation(
        shop.darkroom, shop.request(leaver, payment_id=payment_id, key="my own words")
    )
    await shop.drain()
    (before,) = await shop.rows(PERSONAL, leaver.user_id)
    assert before.pop("names") == ["Me"]
    assert min(before.values()) > 0, before
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    await _forgotten(shop, leaver.user_id)
    await _nothing_personal(shop, leaver.user_id)
    shop.audit_at_end = False  # deliveries that nobody takes out yet: `stuck` after a day, as ever


async def test_a_set_that_is_being_made_is_made_to_its_end_and_then_erased(
    shop: Shop, tmp_path: Path
) -> None:
    leaver, job = await shop.sold()
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    assert await forget_leavers(shop.darkroom) == 0
    assert len(files(tmp_path)) == 1
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    assert (await shop.job(job.id))["status"] == "completed"
    assert files(tmp_path) == []


async def test_nothing_begins_in_the_name_of_who_left(shop: Shop) -> None:
    leaver = await shop.customer()
    await shop.paid(leaver)
    await grant_photos(shop.darkroom, user_id=leaver.user_id, tier_id="starter", request_id=uuid4())
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    wish = AvatarRequest(leaver.user_id, "Again", None, uuid4())
    doors: list[Callable[[], Awaitable[object]]] = [
        lambda: shop.ordered(leaver),
        lambda: make_avatar(shop.darkroom, wish),
        lambda: _send(shop, leaver),
        lambda: remove_avatar(shop.darkroom, user_id=leaver.user_id, avatar_id=leaver.avatar_id),
        lambda: grant_photos(
            shop.darkroom, user_id=leaver.user_id, tier_id="starter", request_id=uuid4()
        ),
    ]
    for door in doors:
        with pytest.raises(UserLeftError):
            await door()
    # A free set is no money: it stays, and starts nothing.
    with pytest.raises(RequestRefusedError):
        await shop.start(leaver)
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None


@pytest.mark.parametrize("finished", [False, True])
async def test_late_money_goes_back_and_starts_nothing(shop: Shop, *, finished: bool) -> None:
    """The customer paid after all, whenever: a fact, and owed back."""
    leaver = await shop.customer()
    payment_id = await shop.ordered(leaver, order_style="signature")
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    if finished:
        await shop.notify(payment_id, "canceled", "e1")
        assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    else:
        # A pending payment may still need the payer's id; no picture waits for it.
        await shop.step("forget")
        row = (await shop.rows(USERS, leaver.user_id))[0]
        assert row["wiped_at"] is not None
        assert row["forgotten_telegram_user_id"] == leaver.telegram_user_id
    shop.bank.pays(payment_id)
    await shop.notify(payment_id, "paid", "e2")
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    (payment,) = await shop.rows("SELECT * FROM payments")
    assert (payment["status"], payment["generation_consumed"]) == ("refunded", False)
    assert await shop.value("SELECT reason FROM refunds") == "late"
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0


async def test_the_payers_id_is_there_until_the_money_is_back(shop: Shop) -> None:
    """Stars go back to a Telegram id and nowhere else."""
    payers: list[int | None] = []

    async def read(money: PaymentMoney) -> None:
        payers.append(money.payer_telegram_id)

    async def refund(call: RefundCall) -> None:
        payers.append(call.payer_telegram_id)

    shop.bank.on_read, shop.bank.on_refund = read, refund
    leaver = await shop.customer()
    await shop.paid(leaver)
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    # The same person comes back before the money does.
    again = await know_person(shop.darkroom, Person(leaver.telegram_user_id, "ru"))
    assert again != leaver.user_id
    assert (await _forgotten(shop, leaver.user_id))["forgotten_telegram_user_id"] is None
    assert set(payers) == {leaver.telegram_user_id}


async def test_the_receipts_address_is_there_until_the_money_is_back(shop: Shop) -> None:
    """A refund has a receipt, too, and its customer has left by then."""
    leaver = await shop.customer()
    await shop.paid(leaver, receipt_email="me@example.com")
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    await forget_leavers(shop.darkroom)
    assert await shop.value("SELECT receipt_email FROM payments") == "me@example.com"
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    assert [call.receipt_email for call in shop.bank.refund_calls] == ["me@example.com"]
    assert await shop.value("SELECT receipt_email FROM payments") is None


async def test_a_refused_refund_keeps_the_id_and_no_picture(shop: Shop, tmp_path: Path) -> None:
    async def refuse(_call: RefundCall) -> RefundRefused:
        return RefundRefused("closed", "the account is closed")

    shop.bank.on_refund = refuse
    leaver, _ = await shop.sold()
    await shop.paid(leaver)
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    row = await _forgotten(shop, leaver.user_id)
    assert files(tmp_path) == []
    assert (row["wiped_at"] is None, row["forgotten_at"]) == (False, None)
    assert row["forgotten_telegram_user_id"] == leaver.telegram_user_id
    await note_paid_by_hand(shop.darkroom, 1, note="by a transfer")
    row = await _forgotten(shop, leaver.user_id)
    assert row["forgotten_at"] is not None
    assert row["forgotten_telegram_user_id"] is None


async def test_photos_that_were_to_be_made_again_for_free_become_their_price(shop: Shop) -> None:
    """The set that is made when its customer leaves comes to an end that owes another one: it is not begun."""

    async def fail_one(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("400", "no", Again.NEVER) if request.prompt_index == 0 else None

    shop.bank.refund_forms = RefundForms.WHOLE
    async with shop.database.connection() as tx:
        await tx.execute("UPDATE refund_policies SET without_partial = 'grant'")
    shop.provider.on_ask = fail_one
    early, _ = await shop.sold()
    for step in ("submit", "poll", "collect", "finish"):
        await shop.step(step)
    assert await shop.value("SELECT count(*) FROM payments WHERE compensates IS NOT NULL") == 1
    late, _ = await shop.sold()
    for one in (early, late):
        await forget_me(shop.darkroom, user_id=one.user_id)
    for one in (early, late):
        assert (await _forgotten(shop, one.user_id))["forgotten_at"] is not None
    rows = await shop.rows("SELECT provider, status, generation_consumed FROM payments ORDER BY id")
    assert {row["status"] for row in rows} == {"refunded"}
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 2
    assert await shop.value("SELECT sum(settled_minor) FROM refunds") == 2 * 49_900


async def test_a_late_photo_is_erased_too(shop: Shop, tmp_path: Path) -> None:
    """A worker had it in its hands when its set ended: whether before or after its customer was wiped."""

    async def fail_two(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("400", "no", Again.NEVER) if request.prompt_index < 2 else None

    shop.provider.on_ask = fail_two
    leaver, job = await shop.sold()
    await shop.drain()

    async def come_late(task: int) -> None:
        key = f"generated/{leaver.avatar_id}/signature/{job.id}/{task}-late.jpg"
        await shop.darkroom.store.put_once(key, b"late", "image/jpeg")
        await shop.rows(
            "INSERT INTO late_photos (task_id, attempt_id, object_key, sha256, size_bytes, content_type) "
            "SELECT id, attempt_id, %s, repeat('0', 64), 4, 'image/jpeg' FROM kie_tasks "
            "WHERE prompt_index = %s RETURNING id",
            key,
            task,
        )

    await come_late(0)
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    await shop.step("forget")
    assert (await shop.rows(USERS, leaver.user_id))[0]["wiped_at"] is not None
    await come_late(1)
    assert len(files(tmp_path)) == 13
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    assert files(tmp_path) == []
    assert await shop.value("SELECT count(*) FROM late_photos WHERE erased_at IS NOT NULL") == 2


async def test_leaving_and_starting_at_once_the_second_sees_the_first(shop: Shop) -> None:
    leaver = await shop.customer()
    payment_id = await shop.paid(leaver)
    leaving: asyncio.Task[None] | None = None

    async def at(name: str) -> None:
        nonlocal leaving
        if name == "start.before_commit":
            leaving = asyncio.ensure_future(forget_me(shop.darkroom, user_id=leaver.user_id))
            await asyncio.wait({leaving}, timeout=0.3)

    with checkpoints_handled_by(at):
        await shop.start(leaver)
    assert leaving is not None
    await leaving
    # The start had the money first: no refund, and the set is made, then erased.
    assert await shop.value("SELECT count(*) FROM refunds") == 0
    await _forgotten(shop, leaver.user_id)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"

    other = await shop.customer()
    await shop.paid(other)
    await forget_me(shop.darkroom, user_id=other.user_id)
    with pytest.raises(RequestRefusedError):
        await shop.start(other)
    assert payment_id != await shop.value("SELECT payment_id FROM refunds")
    await _forgotten(shop, other.user_id)


async def test_an_upload_that_meets_its_customers_leaving_keeps_nothing(
    shop: Shop, tmp_path: Path
) -> None:
    leaver = await shop.customer()

    async def at(name: str) -> None:
        if name == "selfie.stored":
            await forget_me(shop.darkroom, user_id=leaver.user_id)

    with checkpoints_handled_by(at), pytest.raises(UserLeftError):
        await add_selfie(shop.darkroom, avatar_id=leaver.avatar_id, data=picture_of(-700))
    assert len(files(tmp_path)) == 2
    await _forgotten(shop, leaver.user_id)
    assert files(tmp_path) == []


async def test_an_operator_forgets_by_the_telegram_id(shop: Shop) -> None:
    leaver = await shop.customer()
    for expected in (leaver.user_id, None, None):
        assert await forget_telegram_user(shop.darkroom, leaver.telegram_user_id) == expected
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    assert await forget_telegram_user(shop.darkroom, leaver.telegram_user_id) is None


async def test_leaving_many_times_and_at_once_is_leaving_once(shop: Shop) -> None:
    leaver = await shop.customer()
    await shop.paid(leaver)
    await asyncio.gather(*(forget_me(shop.darkroom, user_id=leaver.user_id) for _ in range(5)))
    row = await _forgotten(shop, leaver.user_id)
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    assert await _forgotten(shop, leaver.user_id) == row
    assert await shop.value("SELECT count(*) FROM refunds") == 1


async def test_an_ended_store_leaves_nobody_half_forgotten(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store does not answer, the row says so: nobody is called forgotten who is not."""
    leaver = await shop.customer()
    await forget_me(shop.darkroom, user_id=leaver.user_id)

    async def silent(*_args: object) -> None:
        raise StorageUnavailableError("no answer")

    for name in ("delete", "list_keys"):
        with monkeypatch.context() as broken:
            broken.setattr(Storage, name, silent)
            assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is None
    assert (await _forgotten(shop, leaver.user_id))["forgotten_at"] is not None
    assert files(tmp_path) == []


async def test_twin_one_who_is_forgotten_before_the_bytes_are_gone_is_found(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: the last step does not wait for the eraser, and the audit says so."""
    leaver = await shop.customer()
    careless = forgetting.TO_FINISH.replace("r.erased_at IS NULL", "FALSE", 1)
    assert careless != forgetting.TO_FINISH
    monkeypatch.setattr(forgetting, "TO_FINISH", careless)
    await forget_me(shop.darkroom, user_id=leaver.user_id)
    await shop.step("forget")
    await shop.advance(shop.darkroom.limits.put_grace_seconds + 1)
    await shop.step("forget")
    report = await run_audit(shop.database)
    assert [finding.name for finding in report.findings] == ["forgotten_and_still_there"]
    shop.audit_at_end = False
