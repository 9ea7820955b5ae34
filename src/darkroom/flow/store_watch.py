"""What a process knows of its store: asked by whoever puts, deletes, or calls a photo missing."""

import asyncio
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

LOOK_AGAIN_SECONDS: Final = 90
"""How long a look is good. The chore looks every minute; this is for when it hangs behind others, and for
hosting without a worker, where nothing runs between two calls."""
TRY_AGAIN_SECONDS: Final = 10
"""How long after a store that did not answer it is asked again: nobody waits for it in each round."""


class StoreIs(Enum):
    """What the store is to this database."""

    OURS = "ours"
    UNKNOWN = "unknown"
    """No store was noted yet; it bears no mark, or one of this database's."""
    UNMARKED = "unmarked"
    """It bears no mark, and a store was noted."""
    ANOTHER = "another"
    """It bears this database's mark, but is not the store that was noted."""
    STRANGE = "strange"
    """It bears another database's mark, or one that nobody can read."""
    COPIED = "copied"
    """It is the one that was noted, by the database that this one is a copy of."""

    @property
    def is_foreign(self) -> bool:
        """Whether this database's photos do not belong into it."""
        return self not in (StoreIs.OURS, StoreIs.UNKNOWN)


@dataclass(slots=True)
class StoreWatch:
    """What the last look at the store said. One object for a process; a look is shared by all who ask.

    Attributes:
        found: None: it was not looked at, or did not answer, and is believed: photos are put, none is deleted.
        good_until: by this machine's clock, which also goes on while hosting has the process frozen.
    """

    found: StoreIs | None = None
    good_until: float = 0
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def learn(self, found: StoreIs | None) -> None:
        """Take in what a look said; None: the store did not answer. What was foreign then stays so."""
        if found is not None or not self.is_foreign:
            self.found = found
        pause = TRY_AGAIN_SECONDS if found is None else LOOK_AGAIN_SECONDS
        self.good_until = time.time() + pause

    @property
    def is_foreign(self) -> bool:
        """Whether the store was seen to be another one, and nobody has seen the right one since."""
        return self.found is not None and self.found.is_foreign

    @property
    def is_due(self) -> bool:
        """Whether the last look is too old to go by. A clock that was set back makes it so, too."""
        return not 0 <= self.good_until - time.time() <= LOOK_AGAIN_SECONDS
