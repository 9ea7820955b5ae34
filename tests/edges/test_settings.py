"""Settings that are secrets: nothing that shows the settings shows them."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from darkroom.config import IsolatedSettings, Settings, SettingsError, read_settings

WORDS = ("SECRET", "TOKEN", "API_KEY", "SIGNING_KEY", "DATABASE_URL")
"""What the name of a setting says when its value is a secret."""
HIDDEN = "very-secret-value-of-32-characters"


def _secret_names() -> set[str]:
    return {
        str(field.alias)
        for field in Settings.model_fields.values()
        if "SecretStr" in str(field.annotation)
    }


def test_what_is_called_a_secret_is_kept_as_one() -> None:
    names = {str(field.alias) for field in Settings.model_fields.values()}
    assert _secret_names() == {name for name in names if any(word in name for word in WORDS)}


def test_no_secret_is_shown_with_the_settings() -> None:
    """bugbook G8: the page of settings showed the keys that were stored."""
    given: dict[str, Any] = dict.fromkeys(
        _secret_names() - {"DARKROOM_SANDBOX_SECRET", "KIE_API_KEY"}, HIDDEN
    )
    settings = IsolatedSettings.model_validate(given | {"DARKROOM_PUBLIC_URL": "https://shop.test"})
    held = [value for value in dict(settings).values() if isinstance(value, SecretStr)]
    assert len(held) == len(given)
    for shown in (repr(settings), str(settings), str(dict(settings)), settings.model_dump_json()):
        assert HIDDEN not in shown
        assert "**********" in shown


@pytest.mark.parametrize(
    "other",
    [
        {"DARKROOM_PORT": "x"},
        {"DARKROOM_MODE": "demo"},
        {"DARKROOM_GENERATION_PROVIDER": "else"},
        {"DARKROOM_LINK_SECRET": "short-and-secret"},
    ],
)
def test_a_start_that_is_refused_names_the_setting_and_no_value(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    """bugbook G8: one clear line for the operator, who will paste it somewhere."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    for name in _secret_names():
        monkeypatch.setenv(name, HIDDEN)
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert HIDDEN not in str(refusal.value)
    assert "short-and-secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


QUEUE = {
    "QSTASH_TOKEN": "token",
    "QSTASH_CURRENT_SIGNING_KEY": "current",
    "QSTASH_NEXT_SIGNING_KEY": "next",
    "DARKROOM_PUBLIC_URL": "https://shop.test",
}


@pytest.mark.parametrize("missing", sorted(QUEUE.keys() - {"QSTASH_TOKEN"}))
def test_a_queue_that_could_not_reach_us_or_be_verified_is_refused_by_name(missing: str) -> None:
    assert IsolatedSettings.model_validate(QUEUE).qstash_url == "https://qstash.upstash.io"
    given = {name: value for name, value in QUEUE.items() if name != missing}
    with pytest.raises(ValidationError, match=f"QStash is half configured: {missing} is not set"):
        IsolatedSettings.model_validate(given)


def test_the_queues_settings_are_stripped() -> None:
    """bugbook H18: a stray newline in a secret."""
    settings = IsolatedSettings.model_validate(
        {name: f" {text}\r\n" for name, text in QUEUE.items()}
    )
    assert settings.qstash_token == SecretStr("token")
    assert settings.qstash_next_signing_key == SecretStr("next")


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"QSTASH_URL": "https://qstash.upstash.io"}, "QSTASH_TOKEN is set"),
        ({"DARKROOM_PUBLIC_URL": "https://shop.test"}, "DARKROOM_PUBLIC_URL is set"),
    ],
)
def test_demo_mode_talks_to_a_queue_of_this_machine_only(
    changes: dict[str, str], refusal: str | None
) -> None:
    given = {
        **QUEUE,
        "DARKROOM_MODE": "demo",
        "DARKROOM_PUBLIC_URL": "http://127.0.0.1:8000",
        "QSTASH_URL": "http://127.0.0.1:8080",
        **changes,
    }
    if refusal is None:
        assert IsolatedSettings.model_validate(given).base_url == "http://127.0.0.1:8000"
        return
    with pytest.raises(ValidationError, match=refusal):
        IsolatedSettings.model_validate(given)
