"""Settings that are secrets: nothing that shows the settings shows them."""

from typing import Any

import pytest
from pydantic import SecretStr

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
    settings = IsolatedSettings.model_validate(given)
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
