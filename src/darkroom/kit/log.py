"""Structured logging: one line an event, JSON unless a person is looking."""

import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import structlog

SECRET_FIELDS: Final = frozenset(
    {"authorization", "token", "secret", "password", "signature", "init_data", "dsn", "cookie"}
)
"""Fields whose values never reach a log line, whoever passes them."""


class _StandardError(io.TextIOBase):
    """Standard error as it is when a line is written: whoever configured the log may have had another one."""

    def write(self, text: str) -> int:
        """As of a file."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """As of a file."""
        sys.stderr.flush()


def _hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name in event.keys() & SECRET_FIELDS:
        event[name] = "[hidden]"
    return event


def configure_logging(
    shape: Literal["auto", "json", "console"] = "auto", *, level: int = logging.INFO
) -> None:
    """Send every event to standard error; `auto` is for people on a terminal, JSON elsewhere."""
    console = shape == "console" or (shape == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=False,
    )


def get_logger(room: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry the room they come from."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room)
    return logger
