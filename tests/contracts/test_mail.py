"""Letters as files: what any mail program reads, whole or not at all, and for nobody else's eyes."""

import asyncio
import email
import os
import stat
import time
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Final

import pytest

from darkroom.adapters import mail_folder
from darkroom.adapters.mail_folder import FolderMailer, examine_mail_folder
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.checkup import Grade
from darkroom.ports.mail import Mail, MailUnavailableError

NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LINK: Final = "https://shop.example/sign-in/" + "7." + "a" * 43
LETTER: Final = Mail(7, "ann@example.com", "Вход", f"Ссылка:\n\n{LINK}\n", "ru")


def _mailer(folder: Path, sender: str = "Фото <shop@shop.example>") -> FolderMailer:
    return FolderMailer(folder, sender=sender, clock=lambda: NOW)


def _read(folder: Path) -> EmailMessage:
    (file,) = folder.iterdir()
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)
    return message


async def test_a_letter_is_a_file_that_mail_programs_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "outbox"
    await _mailer(folder).send(LETTER)
    assert [file.name for file in folder.iterdir()] == ["7.eml"]
    letter = _read(folder)
    assert str(letter["From"]) == "Фото <shop@shop.example>"
    assert str(letter["To"]) == "ann@example.com"
    assert str(letter["Subject"]) == "Вход"
    assert letter["Date"].datetime == NOW
    assert letter["Message-ID"] == "<darkroom-7@shop.example>"
    assert letter["Content-Language"] == "ru"
    assert LINK in letter.get_content()
    raw = (folder / "7.eml").read_bytes()
    assert b"\r\n" in raw
    assert b"\n" not in raw.replace(b"\r\n", b""), "RFC 5322 ends lines with CR and LF"
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998


async def test_only_the_programs_own_user_may_read_letters(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    before = os.umask(0)
    try:
        await _mailer(folder).send(LETTER)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "7.eml").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_the_same_letter_again_and_at_once_is_the_same_file(tmp_path: Path) -> None:
    mailer = _mailer(tmp_path)
    await asyncio.gather(*(mailer.send(LETTER) for _ in range(8)))
    assert [file.name for file in tmp_path.iterdir()] == ["7.eml"]
    assert LINK in _read(tmp_path).get_content()


async def test_a_letter_that_breaks_in_the_middle_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(mail_folder.os, "fsync", full)
        with pytest.raises(MailUnavailableError) as error:
            await _mailer(tmp_path).send(LETTER)
    assert "ann" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    await _mailer(tmp_path).send(LETTER)
    assert len(list(tmp_path.iterdir())) == 1


async def test_what_a_dead_writer_left_goes_with_a_later_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a customer, who may have left since, and nobody would ever look at it again."""
    left = tmp_path / ".6.eml.0123.part"
    left.write_bytes(b"To: ann@example.com")
    await _mailer(tmp_path).send(LETTER)
    assert left.exists(), "its writer may be alive"
    now = time.time()
    monkeypatch.setattr(mail_folder.time, "time", lambda: now + 3601)
    await _mailer(tmp_path).send(LETTER)
    assert [file.name for file in tmp_path.iterdir()] == ["7.eml"]


async def test_a_folder_that_is_none_refuses_and_the_doctor_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    mailer = _mailer(tmp_path / "file" / "outbox")
    with pytest.raises(MailUnavailableError):
        await mailer.send(LETTER)
    finding = await examine_mail_folder(mailer)
    assert (finding.grade, finding.advice) == (Grade.WRONG, "DARKROOM_MAIL_FOLDER")
    well = await examine_mail_folder(_mailer(tmp_path / "outbox"))
    assert well.grade is Grade.WELL
    assert list((tmp_path / "outbox").iterdir()) == []


async def test_no_letter_is_sent_while_a_transaction_is_open(tmp_path: Path) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await _mailer(tmp_path).send(LETTER)
    assert list(tmp_path.iterdir()) == []
