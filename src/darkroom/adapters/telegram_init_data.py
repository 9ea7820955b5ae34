"""Telegram's signed init data, in its HMAC form (external-apis 3.1).

Our own validator: the libraries' helpers skip freshness, drop blank fields that were signed, or let the
last of two equal keys win.
"""

import hashlib
import hmac
import json
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl

from darkroom.kit.clock import Clock, system_clock
from darkroom.ports.identity import NotSignedError, Person

MAX_AGE_SECONDS: Final = 86_400
"""Init data never expires by itself and the Mini App does not renew it: a day, as the older system took."""
SKEW_SECONDS: Final = 60
"""How far a client's Telegram server may be ahead of our clock."""
TEXT_MAX: Final = 8192
"""Real init data has about 700 characters; a photo_url and long names fit ten times over."""
FIELDS_MAX: Final = 32
USER_ID_MAX: Final = 2**52
"""Telegram promises at most 52 significant bits."""


class TelegramInitData:
    """Validates init data of one bot."""

    def __init__(self, bot_token: str, *, clock: Clock = system_clock) -> None:
        self._secret = hmac.new(b"WebAppData", bot_token.encode(), hashlib.sha256).digest()
        self._clock = clock

    def check(self, init_data: str) -> Person:
        """The person, if Telegram signed every field and did so within a day.

        Raises:
            NotSignedError: anything else; nothing of the content may be used.
        """
        fields = _parse(init_data)
        given = fields.pop("hash", "")
        text = "\n".join(f"{name}={fields[name]}" for name in sorted(fields))
        expected = hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise NotSignedError("wrong hash")
        self._check_age(fields.get("auth_date", ""))
        return _person(fields.get("user", ""))

    def _check_age(self, auth_date: str) -> None:
        if not (auth_date.isascii() and auth_date.isdigit() and len(auth_date) <= 12):  # noqa: PLR2004 - digits of a unix time
            raise NotSignedError("no auth_date")
        age_seconds = self._clock().timestamp() - int(auth_date)
        if age_seconds > MAX_AGE_SECONDS:
            raise NotSignedError("stale")
        if age_seconds < -SKEW_SECONDS:
            raise NotSignedError("from the future")


def _parse(init_data: str) -> dict[str, str]:
    if not 0 < len(init_data) <= TEXT_MAX:
        raise NotSignedError("no init data, or too much")
    try:
        pairs = parse_qsl(
            init_data,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError as error:
        raise NotSignedError("not a query string") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotSignedError("a field comes twice")
    try:
        "".join(value for _, value in pairs).encode()
    except UnicodeEncodeError as error:
        raise NotSignedError("not text") from error
    return fields


def _person(user: str) -> Person:
    try:
        content: Any = json.loads(user)
    except (ValueError, RecursionError) as error:
        raise NotSignedError("no user") from error
    if not isinstance(content, dict):
        raise NotSignedError("no user")
    known = cast("dict[str, object]", content)
    user_id = known.get("id")
    if isinstance(user_id, bool) or not isinstance(user_id, int) or not 0 < user_id < USER_ID_MAX:
        raise NotSignedError("no user id")
    language = known.get("language_code")
    russian = isinstance(language, str) and language.lower().startswith("ru")
    locale: Literal["ru", "en"] = "ru" if russian else "en"
    return Person(user_id, locale)
