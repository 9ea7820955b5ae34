"""What was logged while something ran: tests are silent otherwise."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from structlog.testing import capture_logs


async def logged(work: Callable[[], Awaitable[object]]) -> list[MutableMapping[str, Any]]:
    """Every line from INFO on."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as lines:
        await work()
    structlog.configure(**before)
    return lines
