"""Letters as files: a folder that another program delivers from, or that a person looks into."""

import asyncio
import os
import time
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path
from typing import Final
from uuid import uuid4

from darkroom.adapters.storage_folder import DurableFolder
from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.outside import outside_call
from darkroom.ports.checkup import Finding, well, wrong
from darkroom.ports.mail import Mail, MailUnavailableError

PART_SECONDS: Final = 3600
"""What is no letter after an hour was left by a writer who died: it takes milliseconds."""
CALL_SECONDS: Final = 5
"""A few kilobytes and two syncs take milliseconds; a disk that needs longer is not there. Less than a lease."""


class FolderMailer:
    """Writes each letter into a file of its own, `{number}.eml`, as RFC 5322 has it.

    A file appears whole or not at all; the same letter again is the same file, written anew. Only the
    program's own user may read it: a letter opens somebody's photos.

    Args:
        sender: `shop@example.com` or `Shop <shop@example.com>`.
    """

    def __init__(self, folder: Path, *, sender: str, clock: Clock = system_clock) -> None:
        self.folder = folder
        self._clock = clock
        name, address = parseaddr(sender)
        self._sender = Address(display_name=name, addr_spec=address)

    async def send(self, mail: Mail) -> None:
        """Put the letter into the folder, durably.

        A crash in the middle leaves a `.part` that nobody reads; it goes with the first letter an hour later.

        Raises:
            MailUnavailableError: the folder cannot be written to.
        """
        try:
            async with outside_call("mail.folder", timeout_seconds=CALL_SECONDS):
                await asyncio.to_thread(self._write, f"{mail.message_id}.eml", self._letter(mail))
        except (OSError, TimeoutError) as error:
            raise MailUnavailableError(f"the folder refuses: {type(error).__name__}") from error

    def _letter(self, mail: Mail) -> bytes:
        letter = EmailMessage(policy=SMTP)
        letter["From"] = self._sender
        letter["To"] = Address(addr_spec=mail.address)
        letter["Subject"] = mail.subject
        letter["Date"] = self._clock()
        letter["Message-ID"] = f"<darkroom-{mail.message_id}@{self._sender.domain}>"
        # Nobody's absence notes are wanted.
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(mail.text)
        # After the content, which takes every header about content with it.
        letter["Content-Language"] = mail.locale
        return letter.as_bytes()

    def _write(self, name: str, data: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_parts()
        part = self.folder / f".{name}.{uuid4().hex}.part"
        try:
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / name)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        DurableFolder(self.folder).keep(self.folder / name)

    def _remove_parts(self) -> None:
        """They name customers who may have left since."""
        for part in self.folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_ctime > PART_SECONDS:
                    part.unlink()

    def prove(self) -> None:
        """Write a file and take it away again. Raises OSError where that cannot be done."""
        name = f".proof-{uuid4().hex}"
        self._write(name, b"proof")
        (self.folder / name).unlink()


async def examine_mail_folder(mailer: FolderMailer) -> Finding:
    """Can letters be put there? For `darkroom doctor`; leaves nothing behind."""
    try:
        await asyncio.to_thread(mailer.prove)
    except OSError as error:
        return wrong(
            f"{mailer.folder} refuses letters ({type(error).__name__})", "DARKROOM_MAIL_FOLDER"
        )
    return well(f"letters go to {mailer.folder}")
