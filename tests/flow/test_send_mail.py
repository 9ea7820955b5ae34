"""Letters go out: at least once, to where they belong, and not for ever."""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from darkroom.flow.forget_me import forget_me
from darkroom.flow.send_mail import send_due_mail
from darkroom.flow.sign_in_by_link import ask_sign_in_link, find_person, sign_in_by_link
from darkroom.kit.outside import assert_no_transaction
from darkroom.ports.mail import Mail, MailUnavailableError
from tests.shop import Shop

EMAIL: Final = "ann@example.com"


@dataclass
class ScriptedMailer:
    """Carries letters, or not, as a test says."""

    refuses: bool = False
    tried: int = 0
    taken: list[Mail] = field(default_factory=list[Mail])
    waits_for: asyncio.Event | None = None

    async def send(self, mail: Mail) -> None:
        assert_no_transaction("scripted.mail")
        self.tried += 1
        if self.waits_for is not None:
            await self.waits_for.wait()
        if self.refuses:
            raise MailUnavailableError("not now")
        self.taken.append(mail)


@pytest.fixture
def post(shop: Shop) -> ScriptedMailer:
    mailer = ScriptedMailer()
    shop.darkroom = replace(shop.darkroom, mailer=mailer)
    return mailer


async def _ask(shop: Shop, locale: str = "en") -> None:
    await ask_sign_in_link(shop.darkroom, email=EMAIL, locale=locale)


async def _row(shop: Shop) -> dict[str, Any]:
    (row,) = await shop.rows("SELECT * FROM mail_outbox")
    return row


@pytest.mark.parametrize(
    ("locale", "subject", "words"),
    [
        ("ru", "Вход в фотостудию", ("30 мин.", "только один раз", "не просили")),
        ("en", "Your sign-in link", ("30 minutes", "once", "did not ask")),
    ],
)
async def test_the_letter_signs_its_reader_in(
    shop: Shop, post: ScriptedMailer, locale: str, subject: str, words: tuple[str, ...]
) -> None:
    await _ask(shop, locale)
    assert await send_due_mail(shop.darkroom) == 1
    assert await send_due_mail(shop.darkroom) == 0
    (mail,) = post.taken
    row = await _row(shop)
    assert (mail.message_id, mail.address, mail.subject, mail.locale) == (
        row["id"],
        EMAIL,
        subject,
        locale,
    )
    assert all(word in mail.text for word in words)
    assert (row["status"], row["attempts"], row["lease_until"]) == ("sent", 1, None)
    address = next(line for line in mail.text.splitlines() if line.startswith("http"))
    assert address.startswith(f"{shop.darkroom.base_url}/sign-in/")
    opened = await sign_in_by_link(shop.darkroom, address.rpartition("/")[2])
    assert opened.user_id == row["user_id"]


async def test_a_letter_that_is_not_taken_is_tried_again_and_then_goes(
    shop: Shop, post: ScriptedMailer
) -> None:
    post.refuses = True
    await _ask(shop)
    await shop.step("mail")
    assert post.tried == 1
    assert await send_due_mail(shop.darkroom) == 0, "not before its pause is over"
    await shop.advance(8)
    post.refuses = False
    await shop.step("mail")
    row = await _row(shop)
    assert (row["status"], row["attempts"], len(post.taken)) == ("sent", 2, 1)


async def test_a_letter_is_given_up_after_bounded_tries_and_a_person_is_told(
    shop: Shop, post: ScriptedMailer
) -> None:
    post.refuses = True
    await _ask(shop)
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    with capture_logs() as said:
        await shop.drain()
    structlog.configure(**before)
    row = await _row(shop)
    assert row["status"] == "failed"
    assert row["sent_at"] is None
    assert 5 <= post.tried <= shop.darkroom.limits.mail_tries_max
    (alarm,) = [line for line in said if line["log_level"] == "error"]
    assert (alarm["event"], alarm["mail_id"]) == ("letter given up", row["id"])
    assert not [line for line in said if EMAIL in str(line)], "an address in the log"
    # Final: nobody takes it up again.
    await shop.advance(86_400)
    assert await send_due_mail(shop.darkroom) == 0


async def test_a_letter_whose_link_is_over_is_not_sent(shop: Shop, post: ScriptedMailer) -> None:
    await _ask(shop)
    await shop.advance(1801)
    await shop.step("mail")
    assert ((await _row(shop))["status"], post.tried) == ("failed", 0)


async def test_a_letter_whose_link_was_used_did_arrive(shop: Shop, post: ScriptedMailer) -> None:
    """Sent by a process that died before it wrote so: no second letter with a link that is dead."""
    await _ask(shop)
    row = await _row(shop)
    await sign_in_by_link(shop.darkroom, shop.darkroom.tokens.make("sign-in", row["link_id"]))
    await shop.step("mail")
    assert ((await _row(shop))["status"], post.tried) == ("sent", 0)


async def test_two_workers_at_once_send_one_letter_once(shop: Shop, post: ScriptedMailer) -> None:
    await _ask(shop)
    await asyncio.gather(*(send_due_mail(shop.darkroom) for _ in range(5)))
    assert len(post.taken) == 1


async def test_a_dead_workers_letter_goes_out_when_its_lease_ends(
    shop: Shop, post: ScriptedMailer
) -> None:
    """And what the one who was believed dead did after all is a fact, and changes nothing more."""
    post.waits_for = asyncio.Event()
    await _ask(shop)
    slow = asyncio.create_task(send_due_mail(shop.darkroom))
    while not post.tried:
        await asyncio.sleep(0.01)
    await shop.advance(shop.darkroom.limits.lease_seconds + 1)
    post.waits_for, held = None, post.waits_for
    assert await send_due_mail(shop.darkroom) == 1
    row = await _row(shop)
    assert (row["status"], row["claim"]) == ("sent", 2)
    held.set()
    await slow
    assert await _row(shop) == row


async def test_a_slow_way_of_letters_keeps_no_transaction_and_no_leaver_waiting(
    shop: Shop, post: ScriptedMailer
) -> None:
    post.waits_for = asyncio.Event()
    await _ask(shop)
    user_id = await find_person(shop.darkroom, email=EMAIL)
    sending = asyncio.create_task(send_due_mail(shop.darkroom))
    while not post.tried:
        await asyncio.sleep(0.01)
    await forget_me(shop.darkroom, user_id=user_id)
    post.waits_for.set()
    await sending
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 0


async def test_without_a_mailer_letters_wait_and_wake_nobody(shop: Shop) -> None:
    await _ask(shop)
    off = replace(shop.darkroom, mailer=None)
    assert await send_due_mail(off) == 0
    assert (await _row(shop))["status"] == "pending"
    await shop.drain()
    assert (await _row(shop))["status"] == "sent"


async def test_old_letters_and_links_are_swept(shop: Shop) -> None:
    await _ask(shop)
    await shop.step("mail")
    await shop.advance(6 * 86_400)
    await _ask(shop)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 2
    await shop.advance(2 * 86_400)
    await shop.drain()
    for table in ("mail_outbox", "sign_in_links"):
        assert len(await shop.rows(b"SELECT * FROM " + table.encode())) == 1  # pyright: ignore[reportArgumentType]
