"""Letters are carried: at least once, with no transaction open, until they are taken or not worth it any more.

The token of a link is made here, in the moment of sending, and stands nowhere else.
"""

from darkroom.core.mail_outbox import (
    MailClaim,
    claim_mail,
    fail_mail,
    mark_mail_sent,
    postpone_mail,
)
from darkroom.flow.customer_texts import SIGN_IN_SUBJECT, sign_in_text
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.rounds import work_on_each
from darkroom.flow.sign_in_by_link import link_address
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.mail import Mail, Mailer, MailUnavailableError

log = get_logger("flow")


async def send_due_mail(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many letters were claimed; 0 where nobody carries any.

    A crash before the call costs nothing; one after it sends the letter once more, under the same number.
    """
    mailer = darkroom.mailer
    if mailer is None:
        return 0
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        letters = await claim_mail(tx, limit=limits.batch, lease_seconds=limits.lease_seconds)
    if not letters:
        return 0
    await checkpoint("mail.claimed")

    async def send(letter: MailClaim) -> None:
        await _send(darkroom, mailer, letter)

    await work_on_each("mail", darkroom.leases, "mail", letters, send)
    return len(letters)


async def _send(darkroom: Darkroom, mailer: Mailer, letter: MailClaim) -> None:
    if letter.link_used:
        # Sent, by somebody who did not live to write it down: its reader has signed in.
        await _note_sent(darkroom, letter)
        return
    if letter.link_good_seconds <= 0:
        await _give_up(darkroom, letter, "its link is over")
        return
    try:
        await mailer.send(_mail_of(darkroom, letter))
    except MailUnavailableError as error:
        log.warning("letter not taken", mail_id=letter.id, attempts=letter.attempts)
        if letter.attempts >= darkroom.limits.mail_tries_max:
            await _give_up(darkroom, letter, str(error))
        else:
            await _postpone(darkroom, letter, str(error))
        return
    await checkpoint("mail.after_call")
    await _note_sent(darkroom, letter)


def _mail_of(darkroom: Darkroom, letter: MailClaim) -> Mail:
    address = link_address(darkroom, letter.link_id)
    text = sign_in_text(address, round(darkroom.limits.sign_in_link_seconds / 60))
    is_russian = letter.locale == "ru"
    return Mail(
        message_id=letter.id,
        address=letter.address,
        subject=SIGN_IN_SUBJECT.ru if is_russian else SIGN_IN_SUBJECT.en,
        text=text.ru if is_russian else text.en,
        locale=letter.locale,
    )


async def _note_sent(darkroom: Darkroom, letter: MailClaim) -> None:
    async with darkroom.database.connection() as tx:
        await mark_mail_sent(tx, letter)


async def _postpone(darkroom: Darkroom, letter: MailClaim, error: str) -> None:
    pause = backoff_seconds(
        letter.attempts - 1,
        base_seconds=darkroom.limits.mail_retry_base_seconds,
        cap_seconds=darkroom.limits.mail_retry_cap_seconds,
    )
    async with darkroom.database.connection() as tx:
        await postpone_mail(tx, letter, error=error, pause_seconds=pause)


async def _give_up(darkroom: Darkroom, letter: MailClaim, why: str) -> None:
    async with darkroom.database.connection() as tx:
        failed = await fail_mail(tx, letter, error=why)
    if failed:
        log.error("letter given up", mail_id=letter.id, attempts=letter.attempts, why=why)
