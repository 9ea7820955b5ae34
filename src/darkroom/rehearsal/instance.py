"""The program as the rehearsal's host starts it: the real one, with the waits of a quiet day shortened."""

import logging
from typing import Final

from darkroom.app import OnDemand
from darkroom.config import read_settings
from darkroom.kit.log import configure_logging
from darkroom.limits import Limits

LIMITS: Final = Limits(
    unknown_grace_seconds=12,
    poll_first_seconds=1,
    poll_cap_seconds=5,
    retry_cap_seconds=5,
    paused_seconds=3,
    payment_ask_first_seconds=5,
    payment_ask_cap_seconds=15,
    refund_ask_first_seconds=2,
    refund_ask_cap_seconds=10,
)
"""Leases are those of production. What waits for others waits less: somebody is watching."""


def _build() -> OnDemand:
    configure_logging("json", level=logging.INFO)
    return OnDemand(read_settings(), LIMITS)


app: Final = _build()
