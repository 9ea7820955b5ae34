"""What we ask of whoever carries letters.

Of the four kinds of outside calls this is "send to chat": sent twice, a letter comes twice, and that is all.
So it is sent at least once: after a crash or an answer that was lost it is sent again, under the same number.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Mail:
    """One letter, as plain text.

    Attributes:
        message_id: our row's number. The same letter has the same one at each try, and carries it.
        address: one address, as `kit.email_address` lets it be.
        locale: the language of subject and text.
    """

    message_id: int
    address: str
    subject: str
    text: str
    locale: str


class MailUnavailableError(Exception):
    """Not carried, as far as we know. The same letter may be sent again. Never holds an address."""


class Mailer(Protocol):
    """A way for letters."""

    async def send(self, mail: Mail) -> None:
        """Hand the letter over for good. Safe to repeat.

        Raises:
            MailUnavailableError: it was not taken, or nobody knows.
        """
        ...
