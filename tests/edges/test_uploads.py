"""Selfies come in: each file judged for itself, once, by its bytes, and never more than there is room for."""

import asyncio
import io
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from darkroom.adapters.intake import ProcessIntake
from darkroom.core.people import create_avatar, ensure_user
from darkroom.core.selfies import NewSelfie, keep_selfie
from darkroom.db.database import Database
from darkroom.edges import avatars
from darkroom.edges.upload import FILE_BYTES_MAX
from darkroom.flow.remove import remove_selfie
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import GenerationRequest
from darkroom.ports.intake import Selfie, WarningCode
from darkroom.ports.storage import ObjectMissingError, StorageUnavailableError
from tests.edges.serving import application_of, client_of
from tests.scripted import ScriptedIntake, scripted_selfie
from tests.selfie_files import good_files, portrait, refused_files, saved, with_everything
from tests.shop import Customer, Shop, open_shop
from tests.studio import portraits

ME = {"telegramUserId": 500}
Named = tuple[str, bytes]


@pytest.fixture
async def real(database: Database, tmp_path: Path, intake: ProcessIntake) -> AsyncGenerator[Shop]:
    """A shop that really opens the files."""
    async with open_shop(database, tmp_path, intake=intake) as shop:
        yield shop


async def _customer(shop: Shop, *, locale: str = "ru") -> Customer:
    """Somebody with an empty avatar."""
    async with shop.database.connection() as tx:
        user_id = await ensure_user(tx, 500, locale=locale)
        avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
        await tx.execute("UPDATE users SET locale = %s", [locale])
    return Customer(user_id, avatar_id, 500)


def _path(customer: Customer) -> str:
    return f"/api/avatars/{customer.avatar_id}/references"


async def _send(client: httpx.AsyncClient, customer: Customer, *files: Named) -> httpx.Response:
    parts = [("files", (name, data, "image/jpeg")) for name, data in files]
    return await client.post(_path(customer), files=parts, params=ME)


def _results(answer: httpx.Response) -> list[dict[str, Any]]:
    body = answer.json()
    return body["data"]["files"] if answer.is_success else body["error"]["details"]["files"]


def _file(number: int) -> bytes:
    return f"scripted file {number}".encode()


async def test_one_bad_file_refuses_only_itself(real: Shop) -> None:
    """bugbook A31: a save that failed for some photos was logged, and the customer paid for fewer."""
    customer = await _customer(real)
    async with client_of(application_of(real)) as client:
        answer = await _send(
            client,
            customer,
            ("me.heic", good_files()["heic"]),
            ("cat.pdf", b"%PDF-1.7"),
            ("dim.jpg", portraits.darkened(portraits.astronaut(), 0.25)),
        )
        listed = (await client.get(_path(customer), params=ME)).json()["data"]
        avatar = (await client.get("/api/avatars", params=ME)).json()["data"]["avatars"][0]
    assert answer.status_code == 200
    good, bad, dim = _results(answer)
    assert good == {
        "fileName": "me.heic",
        "accepted": True,
        "referenceId": good["referenceId"],
        "warnings": [],
    }
    assert bad == {
        "fileName": "cat.pdf",
        "accepted": False,
        "code": "UNSUPPORTED_FORMAT",
        "message": "Такой формат не поддерживается: отправьте JPEG, PNG, WebP или HEIC",
        "warnings": [],
    }
    assert dim["accepted"]
    assert [warning["code"] for warning in dim["warnings"]] == ["TOO_DARK"]
    assert [one["referenceId"] for one in listed["references"]] == [
        good["referenceId"],
        dim["referenceId"],
    ]
    assert listed["references"][1]["warnings"] == dim["warnings"]
    assert (avatar["selfies"], avatar["warnings"]) == (2, {"TOO_DARK": 1})


async def test_when_no_file_is_good_the_request_is_refused_and_leaves_nothing(real: Shop) -> None:
    """bugbook A20: a rejected request left a stray avatar and saved photos behind."""
    customer = await _customer(real, locale="en")
    async with client_of(application_of(real)) as client:
        alike = await _send(client, customer, ("a", b""), ("b", b""))
        mixed = await _send(client, customer, ("a", b""), ("b", refused_files()["bomb"][0]))
    assert (alike.status_code, mixed.status_code) == (422, 422)
    assert alike.json()["error"]["code"] == "EMPTY"
    assert alike.json()["error"]["message"] == "The file is empty"
    assert mixed.json()["error"]["code"] == "NO_PHOTO_ACCEPTED"
    assert [result["code"] for result in _results(mixed)] == ["EMPTY", "BOMB"]
    assert await real.value("SELECT count(*) FROM reference_photos") == 0
    assert await real.value("SELECT count(*) FROM avatars") == 1


async def test_what_is_stored_tells_nothing_but_the_picture(real: Shop) -> None:
    customer = await _customer(real)
    async with client_of(application_of(real)) as client:
        (kept,) = _results(await _send(client, customer, ("a.jpg", with_everything())))
        path = f"{_path(customer)}/{kept['referenceId']}"
        image = await client.get(f"{path}/image", params=ME)
        # A face must not outlive its days in a browser: it asks each time.
        assert image.headers["Cache-Control"] == "private, no-cache"
        known = {"If-None-Match": image.headers["ETag"]}
        assert (await client.get(f"{path}/image", params=ME, headers=known)).status_code == 304
        await client.delete(path, params=ME)
        assert (await client.get(f"{path}/image", params=ME, headers=known)).status_code == 404
    assert image.headers["content-type"] == "image/jpeg"
    assert b"SECRET" not in image.content
    assert Image.open(io.BytesIO(image.content)).size == (512, 600)
    assert not Image.open(io.BytesIO(image.content)).getexif()


async def test_a_file_sent_again_and_at_once_is_the_same_selfie(real: Shop) -> None:
    """bugbook A30: every replay added rows, and every set was made from more copies."""
    customer = await _customer(real)
    file = ("me.jpg", good_files()["jpeg"])
    async with client_of(application_of(real)) as client:
        answers = await asyncio.gather(*(_send(client, customer, file) for _ in range(4)))
        answers.append(await _send(client, customer, file, file))
        # The same pixels under another comment: other bytes come in, the same go out.
        commented = saved(Image.open(io.BytesIO(file[1])), "PNG")
        first = await _send(client, customer, ("a.png", commented))
        again = await _send(client, customer, ("b.png", commented))
    ids = {result["referenceId"] for answer in answers for result in _results(answer)}
    assert len(ids) == 1
    assert _results(first) == [{**_results(again)[0], "fileName": "a.png"}]
    assert await real.value("SELECT count(*) FROM reference_photos") == len(
        ids | {_results(first)[0]["referenceId"]}
    )


async def test_a_look_alike_is_kept_with_a_warning(real: Shop) -> None:
    customer = await _customer(real)
    resaved = saved(portrait().resize((700, 820)), "WEBP", quality=60)
    async with client_of(application_of(real)) as client:
        await _send(client, customer, ("a.jpg", good_files()["jpeg"]))
        (alike,) = _results(await _send(client, customer, ("b.webp", resaved)))
        (other,) = _results(await _send(client, customer, ("c.png", portraits.astronaut())))
        (replayed,) = _results(await _send(client, customer, ("b.webp", resaved)))
    assert [warning["code"] for warning in alike["warnings"]] == ["NEAR_DUPLICATE"]
    assert other["warnings"] == []
    assert replayed == alike


async def test_every_warning_has_words_in_both_languages(shop: Shop) -> None:
    scripted = shop.darkroom.intake
    assert isinstance(scripted, ScriptedIntake)
    scripted.answers[_file(0)] = replace(
        scripted_selfie(_file(0)), warnings=tuple(WarningCode), severe=(WarningCode.TOO_DARK,)
    )
    for locale, letters in (("ru", "\u0430-\u044f"), ("en", "a-z")):
        customer = await _customer(shop, locale=locale)
        async with client_of(application_of(shop)) as client:
            (kept,) = _results(await _send(client, customer, ("a", _file(0))))
        assert len(kept["warnings"]) == len(WarningCode)
        for warning in kept["warnings"]:
            assert re.search(f"[{letters}]{{3}}", warning["message"])
            assert warning["severe"] == (warning["code"] == "TOO_DARK")


async def test_twelve_uploads_at_once_keep_eight(shop: Shop) -> None:
    """bugbook B21: 14 references were kept, and the provider takes 8."""
    customer = await _customer(shop)
    async with client_of(application_of(shop)) as client:
        answers = await asyncio.gather(
            *(_send(client, customer, (f"{number}", _file(number))) for number in range(12))
        )
        assert sorted(answer.status_code for answer in answers) == [200] * 8 + [422] * 4
        refused = {answer.json()["error"]["code"] for answer in answers if answer.is_error}
        assert refused == {"SELFIE_LIMIT"}
        # A deleted one makes room; a replay needs none.
        kept = [_results(answer)[0] for answer in answers if answer.is_success]
        assert (await _send(client, customer, ("x", _file(int(kept[0]["fileName"]))))).is_success
        await client.delete(f"{_path(customer)}/{kept[0]['referenceId']}", params=ME)
        answer = await _send(client, customer, ("new", _file(50)), ("newer", _file(51)))
    assert [result.get("code") for result in _results(answer)] == [None, "SELFIE_LIMIT"]
    live = "SELECT count(*) FROM reference_photos WHERE deleted_at IS NULL"
    assert await shop.value(live) == 8


async def test_twin_without_the_lock_a_ninth_selfie_is_kept(shop: Shop) -> None:
    """The guard removed: both count seven, both insert."""
    customer = await _customer(shop)
    counted = asyncio.Barrier(2)

    async def keep(number: int, *, together: bool) -> None:
        selfie = scripted_selfie(_file(number))
        async with shop.database.transaction() as tx:
            await keep_selfie(
                tx, avatar_id=customer.avatar_id, selfie=_row(selfie, number), most=8, like_bits=6
            )
            if together:
                await counted.wait()

    for number in range(7):
        await keep(number, together=False)
    await asyncio.gather(*(keep(number, together=True) for number in (7, 8)))
    kept = await shop.value("SELECT count(*) FROM reference_photos")
    assert kept == 9, "the twin must fail"


def _row(selfie: Selfie, number: int) -> NewSelfie:
    sha256 = f"{number:064x}"
    return NewSelfie(
        object_key=f"references/x/{sha256}.jpg",
        sha256=sha256,
        upload_sha256=sha256,
        size_bytes=1,
        content_type="image/jpeg",
        width=selfie.width,
        height=selfie.height,
        dhash=selfie.dhash,
        verdict={"warnings": [], "severe": []},
    )


async def test_a_running_set_keeps_the_selfies_it_began_with(shop: Shop) -> None:
    """And no longer: when it has ended, what its customer deleted is gone from the bucket, too."""
    given: list[str] = []

    async def create(request: GenerationRequest) -> None:
        (reference,) = request.references
        assert await shop.darkroom.store.get(reference.object_key)
        given.append(reference.object_key)

    shop.provider.on_create = create
    customer = await shop.customer(500)
    await shop.paid(customer)
    await shop.start(customer)
    selfie_id = await shop.value("SELECT id FROM reference_photos")
    async with client_of(application_of(shop)) as client:
        for _ in range(2):
            gone = await client.delete(f"{_path(customer)}/{selfie_id}", params=ME)
            assert gone.json()["data"] == {"referenceId": selfie_id, "deleted": True}
        assert (await client.get(_path(customer), params=ME)).json()["data"]["references"] == []
        image = await client.get(f"{_path(customer)}/{selfie_id}/image", params=ME)
        assert image.status_code == 404
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert (len(given), len(set(given))) == (7, 1)
    with pytest.raises(ObjectMissingError):
        await shop.darkroom.store.get(given[0])


async def test_a_deleted_selfie_sent_again_lives_again(shop: Shop) -> None:
    customer = await _customer(shop)
    async with client_of(application_of(shop)) as client:
        (first,) = _results(await _send(client, customer, ("a", _file(1))))
        await remove_selfie(
            shop.darkroom,
            user_id=customer.user_id,
            avatar_id=customer.avatar_id,
            selfie_id=first["referenceId"],
        )
        (again,) = _results(await _send(client, customer, ("a", _file(1))))
    assert again["referenceId"] == first["referenceId"]
    assert await shop.value("SELECT count(*) FROM reference_photos WHERE deleted_at IS NULL") == 1


async def test_a_crash_after_the_bytes_leaves_only_an_unused_object(shop: Shop) -> None:
    customer = await _customer(shop)

    async def no_storage(name: str) -> None:
        if name == "selfie.stored":
            raise StorageUnavailableError("the answer was lost")

    async with client_of(application_of(shop)) as client:
        with checkpoints_handled_by(no_storage):
            answer = await _send(client, customer, ("a", _file(1)), ("b", _file(2)))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert await shop.value("SELECT count(*) FROM reference_photos") == 0
        assert (await _send(client, customer, ("a", _file(1)), ("b", _file(2)))).is_success


async def test_an_avatar_deleted_while_its_files_are_looked_at_takes_none(shop: Shop) -> None:
    customer = await _customer(shop)

    async def delete_it(name: str) -> None:
        if name == "selfie.stored":
            await shop.database.fetch_value(
                "UPDATE avatars SET deleted_at = darkroom_now() RETURNING id"
            )

    async with client_of(application_of(shop)) as client:
        with checkpoints_handled_by(delete_it):
            answer = await _send(client, customer, ("a", _file(1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "AVATAR_NOT_FOUND")
    assert await shop.value("SELECT count(*) FROM reference_photos") == 0


# The body itself.


async def test_a_file_over_thirty_megabytes_refuses_only_itself(shop: Shop) -> None:
    """bugbook H13: several photos in one request met a limit of 4.5 MB."""
    customer = await _customer(shop)
    async with client_of(application_of(shop)) as client:
        answer = await _send(
            client,
            customer,
            ("exactly.jpg", bytes(FILE_BYTES_MAX)),
            ("over.jpg", bytes(FILE_BYTES_MAX + 1)),
            ("small.jpg", _file(1)),
        )
    assert [result.get("code") for result in _results(answer)] == [None, "TOO_LARGE", None]
    assert await shop.value("SELECT max(size_bytes) FROM reference_photos") == FILE_BYTES_MAX


async def test_nine_files_are_too_many(shop: Shop) -> None:
    customer = await _customer(shop)
    async with client_of(application_of(shop)) as client:
        answer = await _send(client, customer, *((f"{n}", _file(n)) for n in range(9)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "TOO_MANY_FILES")
    assert await shop.value("SELECT count(*) FROM reference_photos") == 0


MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}
START = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f.jpg"\r\n\r\n'


class _Body:
    """A chunked body; remembers how much of it was taken. Endless unless given its pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.taken = 0

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        for piece in self.pieces:
            self.taken += len(piece)
            yield piece
        while not self.pieces:
            self.taken += 65_536
            yield START + bytes(65_536 - len(START)) if self.taken == 65_536 else bytes(65_536)


async def test_an_endless_body_is_cut_off(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = await _customer(shop)
    # A smaller allowance: the real one is a quarter of a gigabyte.
    small = replace(avatars.UPLOADS, bytes_max=3_000_000)
    monkeypatch.setattr(avatars, "UPLOADS", small)
    endless, elsewhere = _Body(), _Body()
    async with client_of(application_of(shop)) as client:
        answer = await client.post(_path(customer), content=endless, params=ME, headers=MULTIPART)
        other = await client.post("/api/payments", content=elsewhere, params=ME, headers=MULTIPART)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "TOO_LARGE")
    assert endless.taken <= 3_000_000 + 2 * 65_536
    assert other.status_code in {400, 413}
    assert elsewhere.taken <= 1_048_576 + 2 * 65_536
    assert await shop.value("SELECT count(*) FROM reference_photos") == 0


async def test_the_allowance_is_for_uploads_alone(shop: Shop) -> None:
    customer = await _customer(shop)
    body = b'{"name": "' + b"x" * 1_100_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    async with client_of(application_of(shop)) as client:
        for method, path in (
            ("POST", "/api/avatars"),
            ("PATCH", f"/api/avatars/{customer.avatar_id}"),
        ):
            answer = await client.request(method, path, content=body, params=ME, headers=headers)
            assert answer.status_code == 413


async def test_nobody_and_nobodys_avatar_are_answered_before_the_body_is_read(shop: Shop) -> None:
    await _customer(shop)
    stranger = await shop.customer(501)
    async with client_of(application_of(shop)) as client:
        for path, params, status in (
            (_path(stranger), {}, 401),
            (_path(stranger), ME, 404),
            ("/api/avatars/x/references", ME, 400),
        ):
            body = _Body()
            answer = await client.post(path, content=body, params=params, headers=MULTIPART)
            assert answer.status_code == status
            assert body.taken <= 65_536


async def test_an_id_in_a_form_is_nobody(shop: Shop) -> None:
    customer = await _customer(shop)
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            _path(customer), files={"f": ("a", _file(1))}, data={"telegramUserId": "500"}
        )
        with_fields = await client.post(
            _path(customer), files={"any": ("a", _file(1))}, data={"note": "hello"}, params=ME
        )
    assert answer.status_code == 401
    assert len(_results(with_fields)) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{}", "application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"", None, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (START, "multipart/form-data", 400, "INVALID_MULTIPART"),
        (START, "multipart/form-data; boundary=" + "x" * 5000, 400, "INVALID_MULTIPART"),
        (b"", MULTIPART["Content-Type"], 400, "INVALID_MULTIPART"),
        (b"nonsense", MULTIPART["Content-Type"], 400, "INVALID_MULTIPART"),
        (START, MULTIPART["Content-Type"], 400, "INVALID_MULTIPART"),
        (START + b"half a file", MULTIPART["Content-Type"], 400, "INVALID_MULTIPART"),
        (b"--B\r\nX" + b"x" * 100_000, MULTIPART["Content-Type"], 400, "INVALID_MULTIPART"),
        (b"--B--\r\n", MULTIPART["Content-Type"], 400, "NO_FILES"),
        (
            b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--B--\r\n',
            MULTIPART["Content-Type"],
            400,
            "NO_FILES",
        ),
        (
            b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 40 + b"--B--\r\n",
            MULTIPART["Content-Type"],
            400,
            "INVALID_MULTIPART",
        ),
    ],
)
async def test_a_damaged_form_is_an_envelope_with_a_code(
    shop: Shop, body: bytes, content_type: str | None, status: int, code: str
) -> None:
    customer = await _customer(shop)
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with client_of(application_of(shop)) as client:
        answer = await client.post(_path(customer), content=body, params=ME, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await shop.value("SELECT count(*) FROM reference_photos") == 0


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"me.jpg", "me.jpg"),
        ("я.heic".encode(), "я.heic"),
        (b"../../etc/passwd", "passwd"),
        (b"C:\\photos\\me.jpg", "me.jpg"),
        (b"a\0b\x1bc.jpg", "abc.jpg"),
        (b"\xed\xa0\x80.jpg", "\ufffd\ufffd\ufffd.jpg"),
        (b"x" * 300, "x" * 100),
        (b"", ""),
    ],
)
async def test_a_file_name_is_only_ever_shown(shop: Shop, sent: bytes, shown: str) -> None:
    customer = await _customer(shop)
    head = b'--B\r\nContent-Disposition: form-data; name="f"; filename="' + sent + b'"\r\n\r\n'
    body = _Body(head, b"the ", b"file", b"\r\n--B", b"--\r\n")
    async with client_of(application_of(shop)) as client:
        answer = await client.post(_path(customer), content=body, params=ME, headers=MULTIPART)
    assert [result["fileName"] for result in _results(answer)] == [shown]
    assert (
        await shop.darkroom.store.get(await shop.value("SELECT object_key FROM reference_photos"))
        == b"the file"
    )
