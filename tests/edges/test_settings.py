"""Settings that are secrets: nothing that shows the settings shows them."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from darkroom.adapters.generation import kie
from darkroom.adapters.storage_s3 import S3Place, open_bucket
from darkroom.config import IsolatedSettings, Settings, SettingsError, read_settings
from darkroom.settings_rules import KIE_MODELS
from darkroom.wiring import mailer_of, store_place

WORDS = ("SECRET", "TOKEN", "API_KEY", "SIGNING_KEY", "HMAC_KEY", "DATABASE_URL")
"""What the name of a setting says when its value is a secret."""
HIDDEN = "very-secret-value-of-32-characters"
HIDDEN_DSN = f"postgresql://shop:{HIDDEN}@db.test/shop"

BUCKET = {
    "DARKROOM_STORAGE_URL": "s3://photos/shop/one",
    "S3_ENDPOINT": "https://account.r2.cloudflarestorage.com",
    "S3_ACCESS_KEY_ID": "key-1",
    "S3_SECRET_ACCESS_KEY": "secret-1",
}


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
    given["DATABASE_URL"] = HIDDEN_DSN
    bucket = {**BUCKET, "S3_SECRET_ACCESS_KEY": HIDDEN, "DARKROOM_PUBLIC_URL": "https://shop.test"}
    settings = IsolatedSettings.model_validate(bucket | given)
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
        # The library printed these, again and again, whenever it tried to connect.
        {"DATABASE_URL": f"postgresql+asyncpg://shop:{HIDDEN}@db.test/shop"},
        {"DATABASE_URL": f'"{HIDDEN_DSN}"'},
        {"DATABASE_URL": HIDDEN},
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
    monkeypatch.setenv("DATABASE_URL", HIDDEN_DSN)
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert HIDDEN not in str(refusal.value)
    assert "short-and-secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert all(name in str(refusal.value) for name in other if name == "DATABASE_URL")
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


def test_a_bucket_is_what_its_settings_say_without_the_space_around_them() -> None:
    settings = IsolatedSettings.model_validate(
        {name: f" {value}\n" for name, value in {**BUCKET, "S3_REGION": ""}.items()}
    )
    place = store_place(settings)
    assert place == S3Place(
        "photos", "shop/one", BUCKET["S3_ENDPOINT"], "auto", "key-1", "secret-1"
    )
    assert place is not None
    assert "secret-1" not in repr(place)
    assert "secret-1" not in repr(open_bucket(place)) + str(open_bucket(place))
    assert store_place(IsolatedSettings.model_validate({})) is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"S3_ACCESS_KEY_ID": " "}, "S3_ACCESS_KEY_ID is not set"),
        ({"S3_SECRET_ACCESS_KEY": ""}, "S3_SECRET_ACCESS_KEY is not set"),
        ({"S3_ENDPOINT": ""}, "S3_ENDPOINT is not set"),
        ({"DARKROOM_STORAGE_URL": ""}, "DARKROOM_STORAGE_URL is not"),
        ({"DARKROOM_STORAGE_URL": "gs://photos"}, "DARKROOM_STORAGE_URL must be s3://"),
        ({"DARKROOM_STORAGE_URL": "s3://"}, "DARKROOM_STORAGE_URL must be s3://"),
        ({"DARKROOM_STORAGE_URL": "s3://photos/a//b"}, "without //, . and .. in the prefix"),
        ({"DARKROOM_STORAGE_URL": "s3://photos/a/../b"}, "without //, . and .. in the prefix"),
        ({"DARKROOM_STORAGE_URL": "s3://photos/./"}, "without //, . and .. in the prefix"),
        ({"DARKROOM_STORAGE_URL": "s3://photos/a\tb"}, "without //, . and .. in the prefix"),
        ({"S3_ENDPOINT": "http://account.r2.cloudflarestorage.com"}, "S3_ENDPOINT must begin"),
        ({"S3_ENDPOINT": "account.r2.cloudflarestorage.com"}, "S3_ENDPOINT"),
        ({"S3_ENDPOINT": BUCKET["S3_ENDPOINT"] + "/photos"}, "the bucket is not part of it"),
        ({"S3_ENDPOINT": "https://me:secret-1@r2.example"}, "a host alone"),
        ({"DARKROOM_MODE": "demo"}, "S3_ENDPOINT is not on loopback"),
        ({"DARKROOM_MODE": "demo", "S3_ENDPOINT": "", "S3_REGION": "eu-west-1"}, "demo mode"),
    ],
)
def test_half_a_bucket_stops_the_start_with_one_line_that_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], named: str
) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    for name, value in {**BUCKET, **changed}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=re.escape(named)) as refusal:
        read_settings()
    assert "secret-1" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_needs_no_endpoint_and_what_is_near_is_let_in() -> None:
    for changed in (
        {"S3_ENDPOINT": "", "S3_REGION": "eu-west-1"},
        {"DARKROOM_MODE": "demo", "S3_ENDPOINT": "http://127.0.0.1:8333"},
        {"S3_ENDPOINT": "http://localhost:8333/"},
    ):
        assert store_place(IsolatedSettings.model_validate({**BUCKET, **changed})) is not None


def _minimal_kie() -> dict[str, Any]:
    return {
        "KIE_API_KEY": "k",
        "DARKROOM_PUBLIC_URL": "https://we.example",
        **BUCKET,
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
    [
        "kie",
        "kie:",
        "else",
        "studio:x",
        "studio,studio",
        "kie:nano-banana-pro",
        "kie:x,kie:x",
        "kie:nano-banana-2,kie:nano-banana-2",
    ],
)
def test_a_fallback_that_cannot_be_meant_stops_the_start(fallback: str) -> None:
    with pytest.raises(ValueError, match="FALLBACK"):
        IsolatedSettings.model_validate(
            {**_minimal_kie(), "DARKROOM_GENERATION_FALLBACK": fallback}
        )


def test_a_fallback_to_kie_without_its_key_stops_the_start() -> None:
    with pytest.raises(ValueError, match="KIE_API_KEY"):
        IsolatedSettings.model_validate({"DARKROOM_GENERATION_FALLBACK": "kie"})


ADDRESSES = ("DARKROOM_PUBLIC_URL", "DARKROOM_SANDBOX_URL", "KIE_BASE_URL", "QSTASH_URL")


def _refusal(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> str:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "address",
    [
        "shop.example",
        "shop.example:443",
        "//shop.example",
        "https://",
        "https:shop.example",
        "ftp://shop.example",
        "http://shop.example",
        "http://127.0.0.1.shop.example",
        "http://localhost@shop.example",
        "https://me:hunter2@shop.example",
        "https://shop.example?",
        "https://shop.example/?a=1",
        "https://shop.example/#top",
        "https://shop.example:port",
        "https://shop.example:99999",
        "https://[shop.example",
        "https://shop .example",
        "https://shop\n.example",
        "https://shop.example\\@other.example",
    ],
)
def test_an_address_that_is_none_stops_the_start_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    """`api.kie.ai` without a scheme burned each photo's paid tries, hours after the start."""
    said = _refusal(monkeypatch, {name: address})
    assert said.startswith(f"{name}: ")
    assert "hunter2" not in said


@pytest.mark.parametrize("name", sorted({*ADDRESSES} - {"DARKROOM_SANDBOX_URL"}))
def test_only_the_banks_address_has_a_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert _refusal(monkeypatch, {name: "https://a.example/v1"}).startswith(f"{name}: ")
    bank = IsolatedSettings.model_validate(
        {"DARKROOM_SANDBOX_URL": "https://a.example/bank/", "DARKROOM_SANDBOX_SECRET": "s"}
    )
    assert bank.sandbox_url == "https://a.example/bank"


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "address", ["https://shop.example", "https://a.example:8443", "http://localhost:1"]
)
def test_an_address_may_end_in_a_slash(name: str, address: str) -> None:
    secret = {"DARKROOM_SANDBOX_SECRET": "s"} if name == "DARKROOM_SANDBOX_URL" else {}
    plain, slashed = (
        IsolatedSettings.model_validate({name: given, **secret})
        for given in (address, address + "/")
    )
    assert plain == slashed
    assert address in dict(plain).values()


def test_the_settings_know_the_models_that_the_adapter_knows() -> None:
    assert set(KIE_MODELS) == set(kie._MODELS)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    assert len(KIE_MODELS) == len(set(KIE_MODELS))


@pytest.mark.parametrize(
    "given",
    [
        {"KIE_MODEL": "nano-banana"},
        {"KIE_MODEL": "google/nano-banana"},
        {"DARKROOM_GENERATION_FALLBACK": "kie:nonsense"},
        {"DARKROOM_GENERATION_FALLBACK": "studio, kie:google/nano-banana"},
    ],
)
def test_a_model_that_nobody_knows_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    said = _refusal(monkeypatch, {**_minimal_kie(), **given})
    assert said.startswith(next(iter(given)))
    assert ", ".join(KIE_MODELS) in said


def test_a_day_that_pays_for_no_photo_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _refusal(monkeypatch, {"KIE_DAILY_CREDITS_MAX": "17.9", "KIE_PRICE_CREDITS": "18"})
    assert said.startswith("KIE_DAILY_CREDITS_MAX is less than KIE_PRICE_CREDITS")
    enough = {"KIE_DAILY_CREDITS_MAX": "18", "KIE_PRICE_CREDITS": "18"}
    assert IsolatedSettings.model_validate(enough).kie_daily_credits_max == 18


DEMO = {"DARKROOM_MODE": "demo"}


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db.example user=u password=hunter2 dbname=shop",
        "host=127.0.0.1,db.example dbname=shop",
        "host=localhost hostaddr=192.0.2.7 dbname=shop",
        "postgresql://u@10.0.0.5:5432/shop",
        "postgresql:///shop?host=db.example",
    ],
)
def test_demo_mode_refuses_the_database_of_another_machine(
    monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    """Whoever is at this machine may be any customer: not with the real shop's customers."""
    said = _refusal(monkeypatch, {**DEMO, "DATABASE_URL": dsn})
    assert "DATABASE_URL is not on loopback" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql:///shop",
        "postgresql:///shop?host=/run/postgresql",
        "host=/run/a/socket user=u dbname=shop",
        "postgresql://u@127.0.0.1:5432/shop",
        "postgresql://u@[::1]:5432/shop",
        "postgresql://u@localhost/shop",
    ],
)
def test_demo_mode_takes_a_database_of_this_machine(dsn: str) -> None:
    assert IsolatedSettings.model_validate({**DEMO, "DATABASE_URL": dsn}).mode == "demo"


MAIL = {
    "DARKROOM_MAIL_FOLDER": "/var/mail/out",
    "DARKROOM_MAIL_FROM": "Shop <shop@example.com>",
    "DARKROOM_PUBLIC_URL": "https://shop.test",
}


@pytest.mark.parametrize("missing", sorted(MAIL))
def test_mail_without_a_sender_or_without_a_folder_is_refused_by_name(missing: str) -> None:
    assert IsolatedSettings.model_validate(MAIL).mail_folder == "/var/mail/out"
    given = {name: value for name, value in MAIL.items() if name != missing}
    with pytest.raises(ValidationError, match=f"mail is half configured: {missing} is not set"):
        IsolatedSettings.model_validate(given)
    assert mailer_of(IsolatedSettings.model_validate({})) is None


@pytest.mark.parametrize(
    "odd", ["shop", "Shop <shop>", "a@b.example\nBcc: c@d.example", "a@b c.example"]
)
def test_a_sender_that_is_no_address_is_refused(odd: str) -> None:
    with pytest.raises(ValidationError, match="DARKROOM_MAIL_FROM"):
        IsolatedSettings.model_validate({**MAIL, "DARKROOM_MAIL_FROM": odd})


def test_demo_mode_has_an_outbox_of_its_own(tmp_path: Path) -> None:
    demo = {"DARKROOM_MODE": "demo", "DARKROOM_DATA_DIR": str(tmp_path)}
    mailer = mailer_of(IsolatedSettings.model_validate(demo))
    assert mailer is not None
    assert mailer.folder == tmp_path / "outbox"
    near = {**MAIL, "DARKROOM_PUBLIC_URL": "http://127.0.0.1:8000"}
    elsewhere = mailer_of(IsolatedSettings.model_validate({**demo, **near}))
    assert elsewhere is not None
    assert str(elsewhere.folder) == "/var/mail/out"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"DARKROOM_SANDBOX_SECRET": "x"}, "DARKROOM_SANDBOX_URL"),
        ({"DARKROOM_SANDBOX_URL": "https://bank.test"}, "DARKROOM_SANDBOX_SECRET"),
        (
            {"DARKROOM_MAIL_FOLDER": "outbox", "DARKROOM_MAIL_FROM": "shop@example.com"},
            "DARKROOM_PUBLIC_URL",
        ),
        (
            {"QSTASH_CURRENT_SIGNING_KEY": "current", "QSTASH_NEXT_SIGNING_KEY": "next"},
            "DARKROOM_PUBLIC_URL",
        ),
    ],
)
def test_what_would_only_look_configured_stops_the_start(
    given: dict[str, str], missing: str
) -> None:
    """A bank that nobody serves, letters and signatures for 127.0.0.1: all of it started."""
    with pytest.raises(ValidationError, match=f"half configured: {missing} is not set"):
        IsolatedSettings.model_validate(given)
    given |= {"DARKROOM_MODE": "demo"}
    IsolatedSettings.model_validate(given)
