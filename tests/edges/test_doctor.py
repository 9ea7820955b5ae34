"""`darkroom doctor`: each configured part is really asked, and what is wrong is said with what to do."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.adapters.public_address import examine_public_address
from darkroom.adapters.qstash_keys import examine_queue
from darkroom.adapters.storage_s3 import S3Place
from darkroom.adapters.upload_rules import examine_upload_rules
from darkroom.checks import open_checks
from darkroom.config import IsolatedSettings, Settings
from darkroom.core.checkup import CLOCKS_SECONDS, examine_database
from darkroom.db.database import Database
from darkroom.flow.examine import examine_bot_token, examine_payments, examine_secret
from darkroom.ports.checkup import Finding, Grade
from darkroom.rehearsal.town import TownHabits, open_town
from darkroom.rehearsal.twins import write_variables
from darkroom.twin.bank import SandboxBank
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import qstash_twin
from tests.shop import Shop

SECRET = "d" * 32


@pytest.fixture
def durable(server: str) -> Generator[None]:
    """The tests' server forgets what it committed when the power goes; here it must not."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET fsync = on")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM SET fsync = off")
            admin.execute("SELECT pg_reload_conf()")


async def _doctor(
    folder: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own, with nothing but these variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "darkroom", "doctor", *options),
        env={**kept, "COLUMNS": "80", "DARKROOM_DATA_DIR": str(folder), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    code = process.returncode
    assert code is not None
    # Asked for JSON it gives some, whatever it found; silent, the reason would be lost with the process.
    assert out or "--json" not in options, (code, err.decode())
    return subprocess.CompletedProcess([], code, out.decode(), err.decode())


@pytest.mark.usefixtures("durable")
async def test_a_shop_that_is_well(dsn: str, tmp_path: Path) -> None:
    bank = SandboxBank(secret=SECRET, file=tmp_path / "bank.sqlite", public_url="http://bank")
    async with bank.running(), loopback(bank.app) as url:
        said = await _doctor(
            tmp_path,
            DATABASE_URL=dsn,
            DARKROOM_LINK_SECRET=SECRET,
            DARKROOM_SANDBOX_URL=url,
            DARKROOM_SANDBOX_SECRET=SECRET,
            CRON_SECRET=f" {SECRET}\n",
            TELEGRAM_BOT_TOKEN="123456:" + "A" * 35,
        )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "PostgreSQL" in said.stdout
    assert "all well" in said.stdout
    assert SECRET not in said.stdout + said.stderr
    assert "A" * 35 not in said.stdout + said.stderr


async def test_what_is_wrong_is_named_with_what_to_do(tmp_path: Path) -> None:
    """bugbook H18: a wrong secret was noticed weeks later, by what did not happen."""
    said = await _doctor(
        tmp_path,
        "--json",
        DATABASE_URL="host=127.0.0.1 port=9 user=nobody password=hunter2 dbname=none",
        DARKROOM_LINK_SECRET=SECRET,
        DARKROOM_PUBLIC_URL="http://127.0.0.1:9",
        TELEGRAM_BOT_TOKEN="123456",
    )
    assert said.returncode == 1, said.stderr
    parts = json.loads(said.stdout)
    assert parts["database"]["grade"] == "wrong"
    assert parts["database"]["advice"].startswith("DATABASE_URL")
    assert parts["public address"]["grade"] == "doubtful"
    assert parts["signing in"]["grade"] == "wrong"
    # One part that is away keeps none of the others from being examined.
    assert parts["opening files"]["grade"] == "well"
    assert "hunter2" not in said.stdout + said.stderr


async def test_every_rented_part_is_asked_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    """All stand-ins at once, as `darkroom twin` starts them; then each with what people get wrong."""
    async with open_town(tmp_path / "town", TownHabits()) as town:
        write_variables(tmp_path / "twin.env", town.variables("http://127.0.0.1:9"))
        lines = (tmp_path / "twin.env").read_text().splitlines()
        right = dict(line.split("=", 1) for line in lines)
        assert (tmp_path / "twin.env").stat().st_mode & 0o077 == 0
        said = await _doctor(tmp_path, "--json", **right)
        parts = json.loads(said.stdout)
        for part in ("object store", "photos: kie", "QStash", "sandbox bank"):
            assert parts[part]["grade"] == "well", parts[part]
        wrong = {
            "S3_SECRET_ACCESS_KEY": "w" * 40,
            "KIE_API_KEY": "w" * 32,
            "QSTASH_CURRENT_SIGNING_KEY": "w" * 32,
            "DARKROOM_SANDBOX_SECRET": "w" * 32,
        }
        said = await _doctor(tmp_path, "--json", **{**right, **wrong})
        parts = json.loads(said.stdout)
        for part in ("object store", "photos: kie", "QStash", "sandbox bank"):
            assert parts[part]["grade"] == "wrong", parts[part]
            assert parts[part]["advice"]
        assert said.returncode == 1
        assert "w" * 32 not in said.stdout + said.stderr


async def test_keys_that_were_rolled_once_still_pass_and_are_told_of() -> None:
    async with qstash_twin() as queue:
        ours = {"current_key": queue.habits.current_key, "next_key": queue.habits.next_key}
        there = {"token": queue.habits.token, "base_url": queue.base_url}
        grades = [(await examine_queue(**there, **ours)).grade]
        for _ in range(2):
            async with httpx.AsyncClient(base_url=queue.base_url, trust_env=False) as http:
                token = {"Authorization": f"Bearer {queue.habits.token}"}
                assert (await http.post("/v2/keys/rotate", headers=token)).is_success
            grades.append((await examine_queue(**there, **ours)).grade)
        assert grades == [Grade.WELL, Grade.DOUBTFUL, Grade.WRONG]
        refused = await examine_queue(**{**there, "token": "another"}, **ours)
        assert (refused.grade, "another" in refused.text) == (Grade.WRONG, False)
    gone = await examine_queue(**there, **ours)
    assert gone.grade is Grade.WRONG


async def test_half_configured_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    said = await _doctor(tmp_path, DARKROOM_SERVERLESS="true")
    assert said.returncode == 2
    assert "serverless is half configured: DATABASE_URL is not set" in said.stderr


async def test_a_database_that_may_forget(database: Database) -> None:
    found = await examine_database(database, pool_size=20)
    assert (found.grade, found.text) == (Grade.WRONG, "may forget what it committed")


@pytest.mark.usefixtures("durable")
async def test_a_database_without_its_migrations(shop: Shop) -> None:
    database = shop.database
    assert (await examine_database(database, pool_size=20)).grade is Grade.WELL
    await shop.rows("DELETE FROM schema_migrations WHERE version = 31 RETURNING version")
    found = await examine_database(database, pool_size=20)
    assert (found.grade, found.advice) == (Grade.WRONG, "darkroom migrate")
    await shop.rows(
        "INSERT INTO schema_migrations (version, name, sha256) VALUES (31, 'x', 'y') RETURNING version"
    )
    assert "edited" in (await examine_database(database, pool_size=20)).text
    crowded = await examine_database(database, pool_size=200)
    assert crowded.grade in (Grade.WRONG, Grade.DOUBTFUL)


@pytest.mark.usefixtures("durable")
async def test_a_database_whose_clock_is_elsewhere(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    unix_seconds = time.time() + CLOCKS_SECONDS + 1
    monkeypatch.setattr("darkroom.core.checkup.time.time", lambda: unix_seconds)
    found = await examine_database(database, pool_size=2)
    assert (found.grade, found.advice) == (Grade.DOUBTFUL, "NTP on both machines")


async def test_an_address_that_leads_to_somebody_else() -> None:
    async def say(request: Request) -> Response:
        match request.path_params["who"]:
            case "us":
                return JSONResponse({"success": True, "data": {"database": "ok"}})
            case "asleep":
                return JSONResponse({"error": {"code": "UNAVAILABLE"}}, 503)
            case _:
                return Response("Welcome to nginx!")

    async with loopback(Starlette(routes=[Route("/{who}/healthz", say)])) as base_url:
        grades = [
            (await examine_public_address(f"{base_url}/{who}")).grade
            for who in ("us", "asleep", "stranger")
        ]
    assert grades == [Grade.WELL, Grade.DOUBTFUL, Grade.WRONG]
    assert (await examine_public_address("http://127.0.0.1:9")).grade is Grade.DOUBTFUL


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ({"origin": "https://shop.test", "methods": "GET, PUT", "headers": "Content-Type"}, []),
        ({"origin": "*", "methods": "*", "headers": "*"}, []),
        ({"origin": "*", "methods": "PUT"}, ["AllowedHeaders content-type"]),
        ({"origin": "*", "methods": "GET", "headers": "*"}, ["AllowedMethods PUT"]),
        (
            {"origin": "https://old.test", "methods": "PUT", "headers": "*"},
            ["AllowedOrigins https://shop.test"],
        ),
        ({}, ["AllowedOrigins", "AllowedMethods", "AllowedHeaders"]),
    ],
)
async def test_what_a_bucket_lacks_before_browsers_may_put_into_it(
    rules: dict[str, str], missing: list[str]
) -> None:
    """No page could upload, and nothing but a browser's console said so."""
    asked: list[str] = []

    async def say(request: Request) -> Response:
        asked.append(request.headers["origin"])
        headers = {f"Access-Control-Allow-{kind}": value for kind, value in rules.items()}
        return Response(None, 204 if rules else 403, headers)

    async with loopback(Starlette(routes=[Route("/k", say, methods=["OPTIONS"])])) as url:
        found = await examine_upload_rules(f"{url}/k?X-Amz-Signature=abc", "https://shop.test")
    assert found.grade is (Grade.WRONG if missing else Grade.WELL)
    assert all(one in found.text for one in missing)
    assert found.text.count("Allowed") == len(missing)
    assert (asked, "abc" in found.text) == (["https://shop.test"], False)


async def test_uploads_into_a_bucket_are_asked_about_where_they_are_in_use(
    s3_place: S3Place, tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": "postgresql://127.0.0.1:9/none",
        "DARKROOM_LINK_SECRET": "x" * 32,
        "DARKROOM_DATA_DIR": tmp_path,
        "DARKROOM_PUBLIC_URL": "https://shop.test",
        "CRON_SECRET": SECRET,
        "DARKROOM_STORAGE_URL": f"s3://{s3_place.bucket}",
        "S3_ENDPOINT": s3_place.endpoint,
        "S3_ACCESS_KEY_ID": s3_place.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3_place.secret_access_key,
    }
    for serverless in (False, True):
        known = {**settings, "DARKROOM_SERVERLESS": serverless}
        async with open_checks(IsolatedSettings.model_validate(known)) as checks:
            parts = {check.part: check for check in checks}
            assert ("direct uploads" in parts) is serverless
            if serverless:
                found = await parts["direct uploads"].examine()
                assert found.grade is Grade.WELL, found
    gone = await examine_upload_rules("http://127.0.0.1:9/k", "https://shop.test")
    assert gone.grade is Grade.DOUBTFUL


async def test_a_payment_provider_is_asked_for_its_books(shop: Shop) -> None:
    assert (await examine_payments(shop.bank)).grade is Grade.WELL


def test_secrets_are_judged_and_never_shown() -> None:
    assert examine_secret("CRON_SECRET", "short", unset="").grade is Grade.DOUBTFUL
    assert examine_secret("CRON_SECRET", None, unset="closed").text == "closed"
    assert examine_bot_token(None, has_mail=False).grade is Grade.WRONG
    assert examine_bot_token(None, has_mail=True).grade is Grade.WELL
    token = "7654321:" + "b" * 35
    assert "b" * 35 not in examine_bot_token(token, has_mail=False).text


async def test_what_can_only_be_seen_in_the_settings_is_said(tmp_path: Path) -> None:
    """Nobody could pay, the brand was not there, the studio made what was sold as kie.ai's: "all well"."""
    bucket = {
        "DARKROOM_STORAGE_URL": "s3://photos",
        "S3_ENDPOINT": "http://127.0.0.1:9",
        "S3_ACCESS_KEY_ID": "k",
        "S3_SECRET_ACCESS_KEY": "s",
    }
    settings = IsolatedSettings.model_validate(
        {
            **bucket,
            "DATABASE_URL": "postgresql://127.0.0.1:9/none",
            "DARKROOM_LINK_SECRET": "x" * 32,
            "DARKROOM_DATA_DIR": tmp_path,
            "DARKROOM_BRAND": tmp_path / "nowhere",
            "DARKROOM_PUBLIC_URL": "https://shop.test",
            "KIE_API_KEY": "key",
        }
    )
    found = await _known_parts(settings)
    assert found["ways to pay"].grade is Grade.DOUBTFUL
    assert (found["brand"].grade, "nowhere" in found["brand"].text) == (Grade.WRONG, True)
    assert found["who makes photos"].grade is Grade.DOUBTFUL
    assert found["signing in"].grade is Grade.WRONG
    demo = await _known_parts(
        IsolatedSettings.model_validate(
            {
                "DARKROOM_MODE": "demo",
                "DARKROOM_DATA_DIR": tmp_path,
                "DATABASE_URL": "host=/nowhere",
            }
        )
    )
    assert {one.grade for one in demo.values()} == {Grade.WELL, Grade.DOUBTFUL}
    assert demo["ways to pay"].grade is Grade.WELL
    assert "signing in" not in demo


async def _known_parts(settings: Settings) -> dict[str, Finding]:
    asked = ("ways to pay", "brand", "who makes photos", "signing in", "cron")
    async with open_checks(settings) as checks:
        return {check.part: await check.examine() for check in checks if check.part in asked}


async def test_a_database_that_does_not_start_is_a_finding_like_any_other(tmp_path: Path) -> None:
    """It was a stack, and nothing else was examined."""
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18")
    said = await _doctor(tmp_path, "--json", DARKROOM_MODE="demo", DARKROOM_DATA_DIR=str(tmp_path))
    parts = json.loads(said.stdout)
    assert (said.returncode, parts["database"]["grade"]) == (1, "wrong")
    assert "does not start" in parts["database"]["text"]
    assert parts["opening files"]["grade"] == "well"
