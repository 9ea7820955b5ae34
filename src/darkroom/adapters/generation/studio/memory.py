"""What was made of a photo, kept by the hash of its bytes while there is room for it."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from darkroom.adapters.generation.studio.errors import StudioError

Kept = TypeVar("Kept")


class Memory(Generic[Kept]):
    """The results used last, refusals too: the same bytes are refused again without a look."""

    def __init__(self, room: int, weight: Callable[[Kept], int]) -> None:
        """`weight` says how much of the `room` a result takes, a refusal takes 1; one is kept in any case."""
        self._room = room
        self._weight = weight
        self._taken = 0
        self._kept: OrderedDict[str, tuple[Kept | StudioError, int]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, digest: str, make: Callable[[], Kept]) -> Kept:
        """What was kept, or made now.

        Raises:
            StudioError: `make` raised it, now or then.
        """
        with self._lock:
            known = self._kept.get(digest)
            if known is not None:
                self._kept.move_to_end(digest)
        result = self._made(digest, make) if known is None else known[0]
        if isinstance(result, StudioError):
            raise StudioError(result.refusal, result.message)
        return result

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._taken = 0

    def _made(self, digest: str, make: Callable[[], Kept]) -> Kept | StudioError:
        weight = 1
        try:
            result: Kept | StudioError = make()
            weight = self._weight(result)
        except StudioError as error:
            result = error
        with self._lock:
            self._taken += weight - self._kept.pop(digest, (None, 0))[1]
            self._kept[digest] = (result, weight)
            while self._taken > self._room and len(self._kept) > 1:
                self._taken -= self._kept.popitem(last=False)[1][1]
        return result
