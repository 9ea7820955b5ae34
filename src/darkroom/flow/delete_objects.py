"""Objects of one round are deleted one by one: one that the store will not delete keeps no other from going."""

from typing import Final

from prometheus_client import Counter

from darkroom.kit.log import get_logger
from darkroom.ports.storage import ObjectStore, StorageUnavailableError

log = get_logger("flow")

OBJECTS_NOT_DELETED: Final = Counter(
    "darkroom_objects_not_deleted_total",
    "Objects that the store did not delete, by step.",
    ["step"],
)
IN_A_ROW: Final = 5
"""So many failures after each other are the store's, not the objects': each may take half a minute."""


class Deleting:
    """Deletes for one round of one step, and says when it is no use to go on.

    Give it the keys in any order, not in theirs: objects that cannot be deleted lie beside each other (a folder
    that another user owns, a locked prefix), and would stand before the others in each round.
    """

    def __init__(self, store: ObjectStore, step: str) -> None:
        self._store, self._step = store, step
        self._failed_in_a_row = 0
        self.failed = 0

    @property
    def is_over(self) -> bool:
        """Whether the store does not delete now."""
        return self._failed_in_a_row >= IN_A_ROW

    async def delete(self, key: str) -> bool:
        """False: it is still there, or may be; deleting it again is harmless."""
        try:
            await self._store.delete(key)
        except StorageUnavailableError as error:
            self.failed += 1
            self._failed_in_a_row += 1
            OBJECTS_NOT_DELETED.labels(self._step).inc()
            log.warning("object not deleted", step=self._step, object_key=key, error=str(error))
            return False
        self._failed_in_a_row = 0
        return True
