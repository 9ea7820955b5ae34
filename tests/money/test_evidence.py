"""Everything of one order in one file and one page: complete, without a secret, true to the stored bytes."""

import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from darkroom.core.evidence import TABLES, read_order_record
from darkroom.edges.books import write_evidence
from darkroom.edges.evidence_page import verdict
from darkroom.edges.evidence_sections import SECTIONS
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.gather_evidence import gather_evidence
from darkroom.flow.grant_photos import grant_photos
from darkroom.flow.pay_back import GoodwillRequest, note_paid_by_hand, pay_back
from darkroom.flow.receive import receive_generation_callback
from darkroom.flow.reconcile import GRACE_SECONDS, Look, reconcile
from darkroom.flow.sign_in import sign_in
from darkroom.ports.identity import Person
from darkroom.ports.payments import RefundCall, RefundRefused
from darkroom.ports.storage import StorageUnavailableError
from tests.money.test_sending import FIRST_SHARE, STARTER_MINOR, fail_one
from tests.shop import Shop

HOSTILE = '<script>alert("1")</script>\'"><img src=x onerror=alert(2)>'


async def an_order(shop: Shop, *, avatar_name: str = "Me") -> int:
    """Ordered, paid by notice, made but for one photo, whose share went back. The payment's id."""
    shop.provider.on_ask = fail_one
    customer = await shop.customer()
    await shop.rows(
        "UPDATE avatars SET name = %s WHERE id = %s RETURNING id", avatar_name, customer.avatar_id
    )
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    for step in ("notice", "submit"):
        await shop.step(step)
    provider_task_id, request = next(iter(shop.provider.created.items()))
    await receive_generation_callback(
        shop.darkroom,
        provider_name="scripted",
        token=request.token,
        provider_task_id=provider_task_id,
    )
    await shop.drain()
    return payment_id


async def gathered(shop: Shop, payment_id: int, folder: Path) -> tuple[dict[str, Any], str]:
    """The file and the page."""
    files = write_evidence(await gather_evidence(shop.darkroom, payment_id), folder)
    assert [path.name for path in files] == [
        f"evidence-{payment_id}.json",
        f"evidence-{payment_id}.html",
    ]
    return json.loads(files[0].read_text()), files[1].read_text()


def object_file(key: str, folder: Path) -> Path:
    """Where the store of this test keeps an object."""
    return folder / f"objects-{os.getpid()}" / key


async def test_an_order_is_told_to_its_last_kopek(shop: Shop, tmp_path: Path) -> None:
    """bugbook D19: the receipt named a reason and a count, and no ledger said which photo or which refund."""
    payment_id = await an_order(shop)
    content, page = await gathered(shop, payment_id, tmp_path / "out")
    book = content["book"]
    assert book["adds_up"] is True
    assert (
        book["paid_minor"],
        book["earned_minor"],
        book["refunded_minor"],
        book["owed_minor"],
    ) == (
        STARTER_MINOR,
        STARTER_MINOR - FIRST_SHARE,
        FIRST_SHARE,
        0,
    )
    assert sum(task["share_minor"] for task in content["tasks"]) == STARTER_MINOR
    (line,) = content["refund_lines"]
    assert (line["kind"], line["prompt_index"], line["amount_minor"]) == (
        "shortfall",
        0,
        FIRST_SHARE,
    )
    (refund,), (back,), (settled,) = (
        content[name] for name in ("refunds", "provider_refunds", "settlements")
    )
    assert settled["refund_id"] == refund["id"] == line["refund_id"]
    assert settled["provider_refund_row_id"] == back["id"]
    assert [call["answer"] for call in content["refund_attempts"]] == ["done"]
    assert len(content["photos"]) == 6
    assert {photo["stored_bytes"] for photo in content["photos"]} == {"same"}
    assert len(content["attempts"]) == 7
    assert len(content["dead_letters"]) == 1
    assert {message["kind"] for message in content["inbox_messages"]} == {"payment", "generation"}
    assert "71.29" in content["customer_messages"][0]["text_en"]
    assert "Of 499.00 RUB paid: 427.71 RUB earned with 6 photos, 71.29 RUB back" in page
    assert "it adds up" in page


async def test_it_holds_every_move_of_every_row_in_time_order(shop: Shop, tmp_path: Path) -> None:
    payment_id = await an_order(shop)
    await an_order(shop)  # somebody else's, of which nothing may be in it
    content, _ = await gathered(shop, payment_id, tmp_path)
    ours = {
        "payment": {payment_id},
        "job": {row["id"] for row in content["jobs"]},
        "task": {row["id"] for row in content["tasks"]},
        "refund": {row["id"] for row in content["refunds"]},
        "delivery": {row["id"] for row in content["chat_deliveries"]},
    }
    logged = await shop.rows("SELECT id, kind, row_id FROM move_log")
    wanted = {row["id"] for row in logged if row["row_id"] in ours[row["kind"]]}
    assert len(wanted) < len(logged)
    assert {move["id"] for move in content["moves"]} == wanted
    times = [move["moved_at"] for move in content["moves"]]
    assert times == sorted(times)


async def test_it_is_one_snapshot_that_changes_nothing(shop: Shop) -> None:
    payment_id = await an_order(shop)
    async with shop.database.transaction() as tx:
        record = await read_order_record(tx, payment_id)
        row = await (
            await tx.execute(
                "SELECT current_setting('transaction_isolation'), "
                "current_setting('transaction_read_only')"
            )
        ).fetchone()
    assert row == ("repeatable read", "on")
    assert record is not None
    assert record.adds_up


async def test_bytes_that_changed_or_are_gone_are_said_to_be(shop: Shop, tmp_path: Path) -> None:
    payment_id = await an_order(shop)
    keys = [
        row["object_key"]
        for row in await shop.rows("SELECT object_key FROM generated_photos ORDER BY task_id")
    ]
    tampered = object_file(keys[0], tmp_path)
    tampered.write_bytes(tampered.read_bytes()[:-1] + b"x")
    object_file(keys[1], tmp_path).unlink()
    content, page = await gathered(shop, payment_id, tmp_path / "out")
    said = {photo["object_key"]: photo["stored_bytes"] for photo in content["photos"]}
    assert [said.pop(key) for key in keys[:2]] == ["differs", "missing"]
    assert set(said.values()) == {"same"}
    assert "4 of 6 pictures are what they were" in page


@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_store_that_does_not_answer_is_no_verdict(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """Not at all, or not to the end: nothing is known of the bytes, and nothing is said of them."""
    payment_id = await an_order(shop)

    async def break_off() -> AsyncGenerator[bytes]:
        yield b"the first piece"
        raise StorageUnavailableError("503")

    async def read(_key: str) -> AsyncGenerator[bytes]:
        if pieces == 0:
            raise StorageUnavailableError("503")
        return break_off()

    monkeypatch.setattr(shop.darkroom.store, "read", read)
    evidence = await gather_evidence(shop.darkroom, payment_id)
    assert set(evidence.stored.values()) == {"not answered"}


async def test_a_late_photo_is_evidence_too(shop: Shop, tmp_path: Path) -> None:
    payment_id = await an_order(shop)
    photo = (await shop.rows("SELECT * FROM generated_photos LIMIT 1"))[0]
    await shop.rows(
        "INSERT INTO late_photos (task_id, attempt_id, object_key, sha256, size_bytes, content_type) "
        "SELECT t.id, t.attempt_id, %s, %s, 1, 'image/jpeg' FROM kie_tasks t WHERE status = 'failed' "
        "RETURNING id",
        photo["object_key"] + ".late",
        "0" * 64,
    )
    content, page = await gathered(shop, payment_id, tmp_path / "out")
    assert [late["stored_bytes"] for late in content["late_photos"]] == ["missing"]
    assert "Photo 1 came after its money had gone back" in page


async def test_no_secret_is_in_either(shop: Shop, tmp_path: Path) -> None:
    """Tokens of attempts (they open our callbacks), pages of the bank, sessions."""
    payment_id = await an_order(shop)
    telegram = await shop.value("SELECT telegram_user_id FROM users ORDER BY id LIMIT 1")
    session = await sign_in(shop.darkroom, Person(telegram_user_id=telegram, locale="en"))
    content, page = await gathered(shop, payment_id, tmp_path)
    secrets = [str(request.token) for request in shop.provider.created.values()]
    secrets += [
        row["value"]
        for row in await shop.rows(
            "SELECT checkout_url AS value FROM payments UNION SELECT token_sha256 FROM sessions "
            "UNION SELECT token::TEXT FROM task_attempts UNION SELECT result_url FROM task_attempts "
            "UNION SELECT request_id::TEXT FROM payments"
        )
        if row["value"] is not None
    ]
    secrets.append(session.token)
    assert len(secrets) > 15
    for text in (json.dumps(content), page):
        assert [secret for secret in secrets if secret in text] == []
    # The callback itself is evidence, and stands there without what it was opened by.
    assert [message["payload"].get("token") for message in content["inbox_messages"]] == [
        None
    ] * len(content["inbox_messages"])


class _Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _parsed(page: str) -> _Page:
    parsed = _Page()
    parsed.feed(page)
    return parsed


async def test_what_a_customer_typed_is_text_and_the_page_needs_nobody(
    shop: Shop, tmp_path: Path
) -> None:
    payment_id = await an_order(shop, avatar_name=HOSTILE)
    content, page = await gathered(shop, payment_id, tmp_path)
    assert content["payment"]["avatar_name"] == HOSTILE
    parsed = _parsed(page)
    assert HOSTILE in parsed.text
    assert {tag for tag, _ in parsed.tags} & {"script", "img", "link", "iframe", "object"} == set()
    assert not [attrs for _, attrs in parsed.tags if set(attrs) & {"src", "href", "onerror"}]
    assert re.search(r"https?://|url\(|@import", page) is None


async def test_the_page_names_the_file_it_belongs_to(shop: Shop, tmp_path: Path) -> None:
    payment_id = await an_order(shop)
    _, page = await gathered(shop, payment_id, tmp_path)
    file = tmp_path / f"evidence-{payment_id}.json"
    assert f"{file.name}, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in page
    # A customer's data: nobody but the owner of the files reads them, and no half of one is left.
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("evidence-*")} == {0o600}
    assert list(tmp_path.glob(".evidence*")) == []


async def test_money_that_came_twice_is_told_of_on_both_sides(shop: Shop, tmp_path: Path) -> None:
    """The second payment for one order: its notice names the order, and is evidence of both."""
    payment_id = await an_order(shop)
    known = shop.bank.facts[payment_id]
    shop.bank.facts[payment_id] = replace(known, provider_payment_id="pay-again")
    await shop.notify(payment_id, event="twice")
    shop.bank.facts[payment_id] = known
    await shop.step("notice")
    second_id = await shop.value("SELECT id FROM payments WHERE duplicate_of = %s", payment_id)
    for this, other in ((payment_id, second_id), (second_id, payment_id)):
        content, _ = await gathered(shop, this, tmp_path)
        assert [row["id"] for row in content["related_payments"]] == [other]
        assert "twice" in {message["external_id"] for message in content["inbox_messages"]}
    await shop.drain()


async def test_a_dispute_that_people_had_a_hand_in(shop: Shop, tmp_path: Path) -> None:
    """A refund that was refused and paid by hand, goodwill with a note, and a difference that is open."""
    payment_id = await an_order(shop)

    async def refuse(_call: RefundCall) -> RefundRefused:
        return RefundRefused("account_closed", "the card's account is closed")

    shop.bank.on_refund = refuse
    refund = await pay_back(
        shop.darkroom, GoodwillRequest(payment_id, 1_000, "a rude answer", uuid4())
    )
    await shop.drain()
    await note_paid_by_hand(shop.darkroom, refund.id, note="transfer 4711")
    shop.bank.gives_back(payment_id, 5)
    await shop.advance(GRACE_SECONDS + 1)
    await reconcile(shop.darkroom, "bank", Look())
    content, page = await gathered(shop, payment_id, tmp_path)
    assert [row["kind"] for row in content["differences"]] == ["refund_not_ours_yet"]
    text = _parsed(page).text
    for said in ("operator: a rude answer", "10.00 RUB was paid by hand", "transfer 4711"):
        assert said in text
    assert "account is closed" in text


async def _grant(shop: Shop) -> int:
    customer = await shop.customer()
    await grant_photos(
        shop.darkroom, user_id=customer.user_id, tier_id="starter", request_id=uuid4()
    )
    return await shop.value("SELECT max(id) FROM payments")


async def _ordered(shop: Shop) -> int:
    return await shop.ordered(await shop.customer())


async def _unused(shop: Shop) -> int:
    return await shop.paid(await shop.customer())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_grant, "A free set: no money came and none is owed."),
        (_ordered, "No money came for this order (pending)."),
        (_unused, "Of 499.00 RUB paid: 499.00 RUB still owed."),
    ],
)
async def test_the_verdict_of_other_orders(
    shop: Shop, tmp_path: Path, make: Callable[[Shop], Any], said: str
) -> None:
    payment_id = await make(shop)
    assert verdict(await gather_evidence(shop.darkroom, payment_id)) == said
    _, page = await gathered(shop, payment_id, tmp_path)
    assert said in page


@pytest.mark.parametrize("payment_id", [1, 0, -1, 2**63, 10**30])
async def test_an_unknown_payment_is_refused(shop: Shop, payment_id: int) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        await gather_evidence(shop.darkroom, payment_id)
    assert refused.value.code == "PAYMENT_NOT_FOUND"


async def test_money_that_does_not_add_up_is_said_first(shop: Shop, tmp_path: Path) -> None:
    payment_id = await an_order(shop)
    async with shop.database.transaction() as tx:
        await tx.execute("SET LOCAL session_replication_role = replica")
        await tx.execute("UPDATE refunds SET settled_minor = 1, amount_minor = 1")
    content, page = await gathered(shop, payment_id, tmp_path)
    assert content["book"]["adds_up"] is False
    assert "it does not add up" in page
    shop.audit_at_end = False


def test_every_table_has_its_place_on_the_page() -> None:
    assert {section.table for section in SECTIONS} == set(TABLES)
