"""Whether the queue signed what came in, and how loud we say that it did not."""

from typing import Annotated, Final, Protocol

from fastapi import Depends, Request
from prometheus_client import Counter, Gauge

from darkroom.kit.log import get_logger

log = get_logger("edges")

SIGNATURE_HEADER: Final = "upstash-signature"
REFUSALS_ALARM: Final = 8
"""In a row. One message comes four times with QStash's own retries: two of them that failed to the end, and
none between that was believed."""

REFUSALS = Counter("darkroom_queue_refusals_total", "Deliveries whose signature was refused.")
REFUSALS_IN_A_ROW = Gauge(
    "darkroom_queue_refusals_in_a_row", "Refused since the last delivery that was believed."
)


class QueueReceiver(Protocol):
    """Tells whether the queue signed a delivery."""

    def is_genuine(self, *, signature: str | None, body: bytes, url: str) -> bool:
        """True when it did, for this body and this address."""
        ...


class QueueDoor:
    """Lets genuine deliveries in. Closed to everybody without a receiver.

    Many refusals in a row are an alarm, once: nobody else would notice that the keys were rotated twice, or
    that our address is not the one that is published to. Whoever sends no signature at all is not counted:
    strangers try every door.
    """

    def __init__(self, receiver: QueueReceiver | None) -> None:
        self._receiver = receiver
        self._refused_in_a_row = 0

    async def lets_in(self, request: Request, url: str) -> bool:
        """True for what the queue signed for exactly this body and this address.

        The address comes from settings, not from the Host header: a proxy may have changed that one.
        """
        if self._receiver is None:
            return False
        signature = request.headers.get(SIGNATURE_HEADER)
        if self._receiver.is_genuine(signature=signature, body=await request.body(), url=url):
            self._believe()
            return True
        if signature:
            self._refuse(url)
        return False

    def _believe(self) -> None:
        if self._refused_in_a_row >= REFUSALS_ALARM:
            log.info("queue deliveries are believed again", refused=self._refused_in_a_row)
        self._refused_in_a_row = 0
        REFUSALS_IN_A_ROW.set(0)

    def _refuse(self, url: str) -> None:
        self._refused_in_a_row += 1
        REFUSALS.inc()
        REFUSALS_IN_A_ROW.set(self._refused_in_a_row)
        log.warning("queue delivery refused", url=url, in_a_row=self._refused_in_a_row)
        if self._refused_in_a_row == REFUSALS_ALARM:
            log.error("queue deliveries refused in a row", url=url, in_a_row=REFUSALS_ALARM)


async def _door_of(request: Request) -> QueueDoor:
    door: QueueDoor = request.app.state.queue_door
    return door


Queue = Annotated[QueueDoor, Depends(_door_of)]
"""The door of the outside queue."""
