"""Settings that are secrets: nothing that shows the settings shows them."""

from typing import Any

import pytest
from pydantic import SecretStr

from darkroom.config import IsolatedSettings, Settings, SettingsError, read_settings

WORDS = ("SECRET", "TOKEN", "API_KEY", "SIGNING_KEY", "HMAC_KEY", "DATABASE_URL")
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


def _minimal_kie() -> dict[str, Any]:
    return {
        "KIE_API_KEY": "k",
        "DARKROOM_PUBLIC_URL": "https://we.example",
        "DARKROOM_STORAGE_URL": "s3://bucket",
        "DARKROOM_GENERATION_PROVIDER": "kie",
    }


TEXTS = {
    "DARKROOM_DATA_DIR": "here",
    "DARKROOM_HOST": "localhost",
    "KIE_BASE_URL": "https://kie.example",
    "KIE_MODEL": "nano-banana-2",
    "KIE_WEBHOOK_HMAC_KEY": "hmac",
    "DARKROOM_LOG": "json",
    "DARKROOM_GENERATION_FALLBACK": "studio",
    "KIE_DAILY_CREDITS_MAX": "100",
    "KIE_CREDITS_LOW": "10",
    "KIE_PRICE_CREDITS": "18",
    "DARKROOM_PORT": "80",
}


@pytest.mark.parametrize("name", sorted({*TEXTS, *_minimal_kie()}))
def test_a_pasted_newline_breaks_no_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """bugbook B23: a key with a newline at its end was an invalid header, hours later."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    given = {**TEXTS, **_minimal_kie()}
    for one, value in given.items():
        monkeypatch.setenv(one, value)
    clean = read_settings()
    monkeypatch.setenv(name, f" \t{given[name]}\r\n")
    assert read_settings() == clean


def test_every_setting_of_text_is_stripped() -> None:
    """A new one must be, too: what is plain text or a path has a validator in front."""
    bare = [
        field.alias
        for field in Settings.model_fields.values()
        if not field.metadata and any(part in str(field.annotation) for part in ("str", "Path"))
    ]
    assert not bare


def test_an_empty_word_is_a_mistake_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIE_MODEL", " \n")
    with pytest.raises(SettingsError, match="KIE_MODEL"):
        read_settings()


@pytest.mark.parametrize(
    ("fallback", "names"),
    [
        ("", ()),
        (" \n", ()),
        ("studio", ("studio",)),
        (" kie:nano-banana-2 , studio,\n", ("kie:nano-banana-2", "studio")),
        ("kie:google/nano-banana-edit", ("kie:google/nano-banana-edit",)),
    ],
)
def test_the_fallback_is_a_list(fallback: str, names: tuple[str, ...]) -> None:
    settings = IsolatedSettings.model_validate(
        {**_minimal_kie(), "DARKROOM_GENERATION_FALLBACK": fallback}
    )
    assert settings.fallback_names == names


@pytest.mark.parametrize(
    "fallback",
    ["kie", "kie:", "else", "studio:x", "studio,studio", "kie:nano-banana-pro", "kie:x,kie:x"],
)
def test_a_fallback_that_cannot_be_meant_stops_the_start(fallback: str) -> None:
    with pytest.raises(ValueError, match="FALLBACK"):
        IsolatedSettings.model_validate(
            {**_minimal_kie(), "DARKROOM_GENERATION_FALLBACK": fallback}
        )


def test_a_fallback_to_kie_without_its_key_stops_the_start() -> None:
    with pytest.raises(ValueError, match="KIE_API_KEY"):
        IsolatedSettings.model_validate({"DARKROOM_GENERATION_FALLBACK": "kie"})
