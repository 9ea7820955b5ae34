"""Telegram's init data: the published vectors, and everything that must not pass."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.ports.identity import NotSignedError, Person

TOKEN = "123456:test-token-of-nobody"
NOW = 1_800_000_000
USER = '{"id":424242,"first_name":"Ann","language_code":"ru"}'


def _checker(token: str = TOKEN, now: float = NOW) -> TelegramInitData:
    return TelegramInitData(token, clock=lambda: datetime.fromtimestamp(now, UTC))


def signed(token: str = TOKEN, **changes: str) -> str:
    """Init data as Telegram signs it."""
    content = {"auth_date": str(NOW - 30), "query_id": "AAH", "user": USER, **changes}
    text = "\n".join(f"{name}={content[name]}" for name in sorted(content))
    secret = hmac.new(b"WebAppData", token.encode(), hashlib.sha256).digest()
    return urlencode(
        {**content, "hash": hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()}
    )


def test_the_published_vector_of_2022() -> None:
    data = (
        "query_id=AAHdF6IQAAAAAN0XohDhrOrc&user=%7B%22id%22%3A279058397%2C%22first_name%22%3A%22Vladislav"
        "%22%2C%22last_name%22%3A%22Kibenko%22%2C%22username%22%3A%22vdkfrost%22%2C%22language_code%22%3A"
        "%22ru%22%2C%22is_premium%22%3Atrue%7D&auth_date=1662771648"
        "&hash=c501b71e775f74ce10e377dea85a7ea24ecd640b223ea86dfe453e0eaed2e2b2"
    )
    checker = _checker("5768337691:AAH5YkoiEuPk8-FZa32hStHTqXiLPtAEhx8", 1662771700)
    assert checker.check(data) == Person(279058397, "ru")


def test_the_published_vector_with_a_signature_field() -> None:
    """The hash covers `signature`, too: some libraries drop it and refuse real data."""
    data = (
        "user=%7B%22id%22%3A279058397%2C%22first_name%22%3A%22Vladislav%20%2B%20-%20%3F%20%5C%2F%22%2C"
        "%22last_name%22%3A%22Kibenko%22%2C%22username%22%3A%22vdkfrost%22%2C%22language_code%22%3A%22ru"
        "%22%2C%22is_premium%22%3Atrue%2C%22allows_write_to_pm%22%3Atrue%2C%22photo_url%22%3A%22https%3A"
        "%5C%2F%5C%2Ft.me%5C%2Fi%5C%2Fuserpic%5C%2F320%5C%2F4FPEE4tmP3ATHa57u6MqTDih13LTOiMoKoLDRG4PnSA"
        ".svg%22%7D&chat_instance=8134722200314281151&chat_type=private&auth_date=1733509682"
        "&signature=TYJxVcisqbWjtodPepiJ6ghziUL94-KNpG8Pau-X7oNNLNBM72APCpi_RKiUlBvcqo5L-LAxIc3dnTzcZX_PDg"
        "&hash=a433d8f9847bd6addcc563bff7cc82c89e97ea0d90c11fe5729cae6796a36d73"
    )
    checker = _checker("7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4", 1733509700)
    assert checker.check(data).telegram_user_id == 279058397


def test_signed_blank_fields_and_other_languages_pass() -> None:
    assert _checker().check(signed(start_param="")) == Person(424242, "ru")
    english = json.dumps({"id": 7, "language_code": "de"})
    assert _checker().check(signed(user=english)) == Person(7, "en")


@pytest.mark.parametrize(
    "data",
    [
        "",
        "x" * 9000,
        "hash=",
        "no-equals",
        signed().replace("424242", "424243"),
        signed() + "&user=%7B%22id%22%3A1%7D",
        signed(token="123456:another"),
        signed().replace("hash=", "hash=é"),
        signed().rsplit("&hash=", 1)[0],
        signed().rsplit("hash=", 1)[0] + "hash=" + signed().rsplit("hash=", 1)[1].upper(),
        signed(auth_date=str(NOW - 86_401)),
        signed(auth_date=str(NOW + 61)),
        signed(auth_date="1"),
        signed(auth_date="x"),
        signed(auth_date=""),
        signed(auth_date="-5"),
        signed(user=""),
        signed(user="[]"),
        signed(user="{"),
        signed(user='{"id":"424242"}'),
        signed(user='{"id":true}'),
        signed(user='{"id":-1}'),
        signed(user='{"id":0}'),
        signed(user=f'{{"id":{2**53}}}'),
        signed(user="[" * 3000),
        "user=%ff%fe&auth_date=1&hash=1",
        "&".join(f"f{number}=1" for number in range(100)),
    ],
)
def test_everything_else_is_refused(data: str) -> None:
    """bugbook G5: replayable for ever, and compared in variable time."""
    with pytest.raises(NotSignedError):
        _checker().check(data)


def test_a_day_is_a_day() -> None:
    edge = signed(auth_date=str(NOW - 86_400))
    assert _checker().check(edge).telegram_user_id == 424242
    with pytest.raises(NotSignedError, match="stale"):
        _checker(now=NOW + 1).check(edge)
