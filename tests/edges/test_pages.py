"""The pages without a browser: who may see and send what, in which language, and what refusals say."""

import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from darkroom.brand import BUNDLED, load_brand
from darkroom.db.database import DatabaseUnavailableError
from darkroom.edges.site import selfies as selfie_pages
from darkroom.edges.site.frame import local_path, money_each, support_link, when
from darkroom.edges.site.texts import Texts, plural
from darkroom.flow import read_sets
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.share_photos import end_share, share
from darkroom.flow.sign_in_by_link import find_person, make_sign_in_link
from tests.edges.serving import application_of, client_of
from tests.scripted import picture_of
from tests.shop import Customer, Shop

SAY: Final = Texts()
SOURCE: Final = Path("src/darkroom")
PAGE: Final = {"Accept": "text/html"}
OURS: Final = {"Origin": "http://localhost"}
FOR_PROGRAMS: Final = frozenset(
    {
        # Said to programs of the API, to operators or to the bank: no page asks in a way that gets them.
        "BAD_REQUEST", "CLIENT_LEFT", "DUPLICATE", "HEADERS_TOO_LARGE", "INTERNAL", "INVALID_JSON",
        "INVALID_DAYS", "INVALID_KEY", "INVALID_MULTIPART", "METHOD_NOT_ALLOWED", "MORE_THAN_IS_LEFT",
        "NOTHING_LEFT",
        "NOTE_NEEDED",
        "NOTICE_REFUSED", "NOT_FOUND", "NOT_REFUSED", "NO_DIRECT_UPLOADS", "NO_PARTS", "NO_PHOTO_ACCEPTED",
        "PROVIDER_NOT_FOUND", "PROVIDER_OFF", "RANGE_NOT_SATISFIABLE", "UNAUTHORIZED", "UNKNOWN_LOCALE",
        "UNSUPPORTED_MEDIA_TYPE", "UNUSED_GOES_BACK_WHOLE", "UPLOAD_MISSING", "PAYMENT_NOT_FOUND",
    }
)  # fmt: skip


@pytest.fixture
async def client(shop: Shop) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        yield client


async def come_in(client: httpx.AsyncClient, customer: Customer) -> None:
    """Sign in as this customer, in demo mode."""
    answer = await client.post(
        "/sign-in/demo", data={"telegram_id": str(customer.telegram_user_id)}, headers=OURS
    )
    assert answer.status_code == 303


async def test_only_telegram_may_frame_a_page_and_nobody_else_is_asked(
    client: httpx.AsyncClient,
) -> None:
    """bugbook F10: X-Frame-Options kept the Mini App out of Telegram Web."""
    answer = await client.get("/")
    policy = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split(";")
    )
    assert "x-frame-options" not in answer.headers
    assert policy["frame-ancestors"] == "'self' https://web.telegram.org https://*.telegram.org"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' https://telegram.org"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "private, no-store"
    addresses = re.findall(r'(?:src|href)="(https?://[^"]+)"', answer.text)
    assert addresses == []


@pytest.mark.parametrize(
    "path",
    [
        "/start",
        "/order",
        "/sign-out",
        "/account/forget",
        "/sign-in/demo",
        "/avatars",
        "/photos/1/redo",
    ],
)
@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_another_page_cannot_send_our_forms(
    shop: Shop, client: httpx.AsyncClient, path: str, origin: str | None
) -> None:
    """bugbook G21: a cookie comes along with whatever page asks."""
    customer = await shop.customer()
    await come_in(client, customer)
    headers = {} if origin is None else {"Origin": origin}
    answer = await client.post(path, headers=headers)
    assert answer.status_code == 401
    assert SAY.say("ru", "error.FOREIGN_PAGE") in answer.text
    kept = await shop.rows("SELECT forget_at FROM users")
    assert kept == [{"forget_at": None}]


async def test_pages_of_others_are_not_there(shop: Shop, client: httpx.AsyncClient) -> None:
    """bugbook G18: an id in an address opened anybody's rows."""
    owner, job = await shop.sold()
    await shop.drain()
    payment_id = await shop.value("SELECT id FROM payments")
    photo_id = await shop.value("SELECT min(id) FROM generated_photos")
    selfie_id = await shop.value("SELECT min(id) FROM reference_photos")
    await come_in(client, await shop.customer())
    for path in (
        f"/sets/{job.id}", f"/sets/{job.id}/now", f"/payments/{payment_id}", f"/payments/{payment_id}/now",
        f"/payments/{payment_id}/receipt", f"/avatars/{owner.avatar_id}", f"/order?avatar={owner.avatar_id}",
        f"/avatars/{owner.avatar_id}/selfies/{selfie_id}", f"/photos/{photo_id}/link",
    ):  # fmt: skip
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert SAY.say("ru", "error.not_found") in answer.text
    for path in (
        f"/payments/{payment_id}/ask-back", f"/photos/{photo_id}/redo", f"/avatars/{owner.avatar_id}/remove",
    ):  # fmt: skip
        assert (await client.post(path, headers=OURS)).status_code == 404, path
    favor = await client.post(f"/photos/{photo_id}/favorite", data={"on": "yes"}, headers=OURS)
    share = await client.post(f"/sets/{job.id}/share", data={"key": "k" * 8}, headers=OURS)
    assert (favor.status_code, share.status_code) == (404, 404)


@pytest.mark.parametrize(
    "path", ["/sets", "/order", "/account", "/payments/1", "/sets/1", "/avatars/1", "/shares"]
)
async def test_who_has_not_signed_in_is_asked_to_and_comes_back(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?next={path}")
    deep = await client.get("/order?avatar=1&style=creative")
    assert deep.headers["Location"] == "/sign-in?next=/order%3Favatar%3D1%26style%3Dcreative"
    by_script = await client.get(path, headers={"HX-Request": "true"})
    assert by_script.headers["HX-Redirect"].startswith("/sign-in?next=")


async def test_a_page_that_is_not_there_is_a_page_for_people_and_an_envelope_for_programs(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/no/such/page")
    assert (page.status_code, SAY.say("ru", "error.not_found") in page.text) == (404, True)
    program = await client.get("/no/such/page", headers={"Accept": "application/json"})
    assert program.json()["error"]["code"] == "NOT_FOUND"
    of_the_api = await client.get("/api/no/such")
    assert of_the_api.json()["success"] is False
    odd = await client.get("/s/7.forged")
    assert (odd.status_code, SAY.say("ru", "share.gone_title") in odd.text) == (404, True)


async def test_a_database_that_is_away_is_a_page_that_comes_again_by_itself(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: object) -> None:
        raise DatabaseUnavailableError("down")

    monkeypatch.setattr(read_sets, "view_catalog", away)
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["Retry-After"], answer.headers["Refresh"]) == (
        503,
        "2",
        "3",
    )
    assert SAY.say("ru", "error.busy") in answer.text


async def test_the_language_is_the_browsers_until_somebody_chooses(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    for wanted, title in (
        ("ru-RU,en;q=0.5", "ru"),
        ("en-US", "en"),
        ("de, ru;q=0.7", "ru"),
        ("fr", "en"),
    ):
        page = await client.get("/", headers={"Accept-Language": wanted})
        assert f'<html lang="{title}"' in page.text, wanted
    assert '<html lang="ru"' in (await client.get("/")).text
    await come_in(client, await shop.customer())
    chosen = await client.get("/language/en?next=/account")
    assert (chosen.status_code, chosen.headers["Location"]) == (303, "/account")
    assert '<html lang="en"' in (await client.get("/account")).text
    assert await shop.value("SELECT locale FROM users") == "en"
    assert (await client.get("/language/xx")).status_code == 404


@pytest.mark.parametrize(
    ("given", "goes"),
    [
        ("/sets?before=3", "/sets?before=3"),
        (None, "/"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_a_page_to_go_on_to_is_one_of_ours(given: str | None, goes: str) -> None:
    assert local_path(given) == goes


async def test_too_much_too_fast_is_said_in_human_words(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """bugbook E12: the older limit was somebody else's, and never counted."""
    customer = await shop.customer()
    await come_in(client, customer)
    form = {
        "avatar": customer.avatar_id, "style": "signature", "tier": "starter", "way": "bank", "consent": "yes",
    }  # fmt: skip
    for number in range(shop.darkroom.limits.payments_max):
        placed = await client.post("/order", data={**form, "key": f"key-{number:04}"}, headers=OURS)
        assert placed.status_code == 303
    refused = await client.post("/order", data={**form, "key": "key-more"}, headers=OURS)
    assert refused.status_code == 429
    assert SAY.say("ru", "error.TOO_MANY_PAYMENTS") in refused.text
    by_script = await client.post(
        "/order", data={**form, "key": "key-more"}, headers={**OURS, "HX-Request": "true"}
    )
    assert by_script.headers["HX-Reswap"] == "none"
    assert by_script.headers["HX-Trigger"].isascii()


async def test_an_order_without_consent_is_not_placed(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    await come_in(client, customer)
    form = {
        "avatar": customer.avatar_id,
        "style": "signature",
        "tier": "starter",
        "key": "key-0001",
    }
    refused = await client.post("/order", data=form, headers=OURS)
    assert (refused.status_code, SAY.say("ru", "error.CONSENT_NEEDED") in refused.text) == (
        400,
        True,
    )
    assert await shop.value("SELECT count(*) FROM payments") == 0


async def test_a_receipt_that_needs_an_address_asks_for_it(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    shop.bank.receipt_email_needed = True
    customer = await shop.customer()
    await come_in(client, customer)
    assert 'name="email"' in (await client.get("/order")).text
    form = {
        "avatar": customer.avatar_id, "style": "signature", "tier": "starter", "consent": "yes",
        "key": "key-0001",
    }  # fmt: skip
    refused = await client.post("/order", data=form, headers=OURS)
    assert SAY.say("ru", "error.RECEIPT_EMAIL_NEEDED") in refused.text
    placed = await client.post("/order", data={**form, "email": "a@example.com"}, headers=OURS)
    assert placed.status_code == 303
    assert await shop.value("SELECT receipt_email FROM payments") == "a@example.com"


async def test_the_way_out_takes_everything_and_signs_out(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await come_in(client, await shop.customer())
    answer = await client.post("/account/forget", data={"sure": "yes"}, headers=OURS)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/left")
    assert (await client.get("/left")).status_code == 200
    assert (await client.get("/sets")).status_code == 303
    assert await shop.value("SELECT count(*) FROM users WHERE forget_at IS NULL") == 0


async def test_files_of_pages_are_kept_for_good_and_named_by_their_content(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/")
    paths = set(re.findall(r'"(/assets/[^"]+)"', page.text))
    assert len(paths) > 10
    for path in paths:
        file = await client.get(path, headers={"Accept-Encoding": "gzip"})
        assert (file.status_code, "immutable" in file.headers["Cache-Control"]) == (200, True), path
    assert (await client.get("/assets/app.000000000000.css")).status_code == 404
    assert (await client.get("/assets/%2e%2e%2fbrand.toml")).status_code == 404


async def test_demo_doors_are_shut_outside_demo_mode(shop: Shop) -> None:
    """bugbook G1: a number is no proof."""
    async with client_of(application_of(shop, demo=False)) as client:
        entered = await client.post("/sign-in/demo", data={"telegram_id": "7"}, headers=OURS)
        assert entered.status_code == 404
        started = await client.post("/start", headers=OURS)
        assert started.headers["Location"] == "/sign-in?next=/avatars"
        assert "set-cookie" not in {*entered.headers, *started.headers}


async def test_who_deleted_their_only_person_begins_again(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """The key of the first one was that person's for a month: the one button of the way said 404, or 409."""
    customer = await shop.customer()
    await come_in(client, customer)
    people = [f"/avatars/{customer.avatar_id}"]
    for locale in ("ru", "en", "ru"):
        await client.get(f"/language/{locale}")
        gone = await client.post(f"{people[-1]}/remove", data={"sure": "yes"}, headers=OURS)
        assert gone.status_code == 303
        tabs = [await client.post("/start", headers=OURS) for _ in range(2)]
        assert [tab.status_code for tab in tabs] == [303, 303]
        assert len({tab.headers["Location"] for tab in tabs}) == 1, "two tabs make one person"
        people.append(tabs[0].headers["Location"])
    assert len(set(people)) == 4


async def test_two_tabs_make_one_person_whatever_lies_between_their_looks(
    shop: Shop, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other tab's person came between the two: another key, and a second person."""
    customer = await shop.customer()
    await come_in(client, customer)
    gone = await client.post(
        f"/avatars/{customer.avatar_id}/remove", data={"sure": "yes"}, headers=OURS
    )
    assert gone.status_code == 303
    others: list[str] = []

    def then_another_tab(really: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def look(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it looks at
            seen = await really(*arguments, **named)
            if not others:
                others.append("is under way")
                answer = await client.post("/start", headers=OURS)
                others[0] = answer.headers["Location"]
            return seen

        return look

    for name in ("read_avatars", "read_avatars_ever"):
        monkeypatch.setattr(selfie_pages, name, then_another_tab(getattr(selfie_pages, name)))
    mine = await client.post("/start", headers=OURS)
    assert [mine.headers["Location"]] == others
    assert await shop.value("SELECT count(*) FROM avatars") == 2


async def test_money_that_came_too_late_for_its_selfies_can_start_or_go_back(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """Paid, and the selfies are gone: the page does not promise for ever what cannot begin."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="creative")
    await shop.rows("UPDATE reference_photos SET deleted_at = darkroom_now() RETURNING id")
    await shop.notify(payment_id)
    await shop.step("notice")
    await come_in(client, customer)
    just_now = (await client.get(f"/payments/{payment_id}")).text
    assert SAY.say("ru", "payment.starting") in just_now
    assert "every 2s" in just_now
    # Without scripts nothing else would ever show what came of it.
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in just_now
    await shop.advance(60)
    later = (await client.get(f"/payments/{payment_id}")).text
    assert SAY.say("ru", "payment.unused") in later
    assert "every 2s" not in later
    assert 'http-equiv="refresh"' not in later
    assert f'href="/avatars/{customer.avatar_id}"' in later
    assert "/ask-back" in later
    await add_selfie(shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(-7))
    form = {"avatar": customer.avatar_id, "style": "creative"}
    assert 'name="avatar"' in (await client.get(f"/payments/{payment_id}")).text
    started = await client.post(f"/payments/{payment_id}/start", data=form, headers=OURS)
    assert started.headers["Location"].startswith("/sets/")


async def test_a_bank_that_gave_no_page_is_asked_again_for_the_same_payment(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    shop.bank.silent = True
    customer = await shop.customer()
    await come_in(client, customer)
    form = {
        "avatar": customer.avatar_id, "style": "signature", "tier": "starter", "consent": "yes",
        "key": "key-0001",
    }  # fmt: skip
    refused = await client.post("/order", data=form, headers=OURS)
    assert SAY.say("ru", "error.PAYMENT_PROVIDER_UNAVAILABLE") in refused.text
    payment_id = await shop.value("SELECT id FROM payments")
    page = (await client.get(f"/payments/{payment_id}")).text
    assert SAY.say("ru", "payment.no_link") in page
    shop.bank.silent = False
    opened = await client.post(f"/payments/{payment_id}/open", headers=OURS)
    assert opened.headers["Location"] == f"/payments/{payment_id}?go=1"
    assert 'id="checkout"' in (await client.get(f"/payments/{payment_id}")).text
    assert set(shop.bank.keys) == {f"{payment_id}-1"}
    # Another choice on the same page is another order, not a refusal.
    other = await client.post("/order", data={**form, "tier": "premium"}, headers=OURS)
    assert other.status_code == 303
    assert await shop.value("SELECT count(*) FROM payments") == 2


async def test_a_shared_picture_says_nothing_of_its_owner_and_ends_with_its_link(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    owner, job = await shop.sold()
    await shop.drain()
    await shop.rows("UPDATE avatars SET name = 'Anna Petrova' RETURNING id")
    made = await share(
        shop.darkroom,
        user_id=owner.user_id,
        job_id=job.id,
        photo_id=None,
        days=1,
        request_id=uuid4(),
    )
    path = made.url.removeprefix(shop.darkroom.base_url)
    page = (await client.get(path)).text
    assert "user=" not in page
    assert "Anna" not in page
    (first, *_) = re.findall(rf'href="({path}/\d+)"', page)
    picture = await client.get(first)
    assert picture.headers["Content-Type"] == "image/jpeg"
    assert "Anna" not in picture.headers["Content-Disposition"]
    _, others = await shop.sold()
    await shop.drain()
    other_id = await shop.value("SELECT max(id) FROM generated_photos WHERE job_id = %s", others.id)
    assert (await client.get(f"{path}/{other_id}")).status_code == 404
    await end_share(shop.darkroom, user_id=owner.user_id, share_id=made.id)
    assert (await client.get(first)).status_code == 404


async def test_prices_follow_the_way_to_pay(shop: Shop) -> None:
    """Every way's own price stands on the page; a size that one way has no price for is not offered."""
    stars = replace(shop.bank, name="stars", currency="XTR")
    shop.darkroom = replace(shop.darkroom, payments={"bank": shop.bank, "stars": stars})
    await shop.rows(
        "DELETE FROM tier_prices WHERE tier_id = 'premium' AND currency = 'XTR' RETURNING tier_id"
    )
    customer = await shop.customer()
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        await come_in(client, customer)
        page = (await client.get("/order")).text
    assert 'data-currency="RUB" data-pay="Оплатить 499 ₽"' in page
    assert 'data-currency="XTR" data-pay="Оплатить 99 ⭐" hidden' in page
    assert 'value="premium"' not in page


@pytest.mark.parametrize(
    ("minor", "count", "currency", "each"),
    [
        (49900, 7, "RUB", "71 RUB"),
        (299, 7, "USD", "0.43 USD"),
        (99, 7, "XTR", "14 Stars"),
        (1, 7, "USD", "0.01 USD"),
    ],
)
def test_a_price_a_photo_says_something(minor: int, count: int, currency: str, each: str) -> None:
    assert money_each("en", minor, count, currency) == each


def test_a_date_names_its_year_where_it_could_be_another() -> None:
    this_year = datetime(2031, 12, 31, 23, 59, tzinfo=UTC)
    moment = datetime(2031, 3, 8, 9, 5, tzinfo=UTC)
    said = [
        when("ru", moment, now=this_year),
        when("ru", moment, always_year=True, now=this_year),
        when("en", moment, now=this_year + timedelta(days=1)),
    ]
    assert [re.sub("<[^>]*>", "", one) for one in said] == [
        "8 марта, 09:05 UTC", "8 марта 2031, 09:05 UTC", "8 March 2031, 09:05 UTC",
    ]  # fmt: skip
    # What the page's script does in the reader's own zone keeps to it.
    assert ["data-year" in one for one in said] == [False, True, False]


async def test_photos_that_were_deleted_are_not_said_to_have_failed(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer, job = await shop.sold()
    await shop.drain()
    await come_in(client, customer)
    gone = await client.post(
        f"/avatars/{customer.avatar_id}/remove", data={"sure": "yes"}, headers=OURS
    )
    assert gone.status_code == 303
    page = (await client.get(f"/sets/{job.id}")).text
    assert SAY.say("ru", "set.deleted") in page
    assert "empty-slot" not in page
    assert f"avatar={customer.avatar_id}" not in page


async def test_a_face_does_not_outlive_its_days_in_a_cache(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    selfie_id = await shop.value("SELECT id FROM reference_photos")
    await come_in(client, customer)
    path = f"/avatars/{customer.avatar_id}/selfies/{selfie_id}"
    first = await client.get(path)
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "private, no-cache")
    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    left = await client.post("/sign-out", headers=OURS)
    assert left.headers["Clear-Site-Data"] == '"cache"'
    asked = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert asked.status_code == 303


async def test_a_link_says_whose_account_it_opens_and_ends_the_session_before(shop: Shop) -> None:
    customer = await shop.customer()
    async with client_of(application_of(shop)) as client:
        client.headers.update(PAGE)
        await come_in(client, customer)
        other = await find_person(shop.darkroom, email="mallory@example.com")
        link = await make_sign_in_link(shop.darkroom, other)
        path = link.removeprefix(shop.darkroom.base_url)
        page = (await client.get(path)).text
        assert "m…@example.com" in page
        assert SAY.say("ru", "sign_in.confirm_instead") in page
        entered = await client.post(path, headers=OURS)
        assert entered.status_code == 303
    ended = await shop.rows("SELECT ended_at IS NOT NULL AS ended FROM sessions ORDER BY id")
    assert [row["ended"] for row in ended] == [True, False]


async def test_odd_text_in_a_form_is_a_form_gone_wrong(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    await come_in(client, customer)
    odd = "a\0bcdefgh"
    for path, form in (
        (
            "/order",
            {"avatar": customer.avatar_id, "style": "signature", "tier": "starter", "key": odd},
        ),
        ("/avatars", {"name": "Me", "key": odd}),
        (f"/payments/{payment_id}/start", {"avatar": customer.avatar_id, "style": odd}),
    ):
        answer = await client.post(path, data=form, headers=OURS)
        assert (answer.status_code, path) == (400, path)
        assert SAY.say("ru", "error.INVALID_REQUEST") in answer.text
        # The refused form's page cannot be asked for by its address: the language is changed elsewhere.
        assert "next=/sets" in answer.text
    wrong_way = await client.get("/photos/1/redo")
    assert (wrong_way.status_code, SAY.say("ru", "error.not_found") in wrong_way.text) == (
        404,
        True,
    )
    assert [(await client.head(path)).status_code for path in ("/", "/sets", "/terms")] == [200] * 3
    lost = await client.get("/no/such/page")
    assert SAY.say("ru", "nav.sets") in lost.text


def test_every_text_that_a_page_says_is_there_and_every_text_is_said() -> None:
    said: set[str] = set()
    prefixes: set[str] = set()
    sources = [
        entry.read_text(encoding="utf-8")
        for entry in files("darkroom").joinpath("web/templates/site").iterdir()
    ] + [path.read_text(encoding="utf-8") for path in (SOURCE / "edges/site").glob("*.py")]
    for source in sources:
        said |= set(re.findall(r"""["']((?:[a-z_]+)\.[a-zA-Z0-9_]+)["']""", source)) & SAY.keys
        prefixes |= set(re.findall(r"""["']([a-z_]+\.(?:[a-z]+_)?)["'] ~""", source))
        prefixes |= {found.split("{")[0] for found in re.findall(r'f"([a-z]+\.[a-z_]*\{)', source)}
    asked = [
        key
        for source in sources
        for key in re.findall(r"""\bt\(['"]([a-z_]+\.[a-zA-Z0-9_]+)['"]""", source)
    ]
    assert [key for key in asked if key not in SAY.keys and key not in prefixes] == []
    unsaid = {
        key for key in SAY.keys - said if not any(key.startswith(prefix) for prefix in prefixes)
    }
    assert sorted(unsaid) == []


def test_every_refusal_has_human_words_or_is_for_programs() -> None:
    codes: set[str] = set()
    for room in ("flow", "edges"):
        for path in (SOURCE / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            codes |= set(re.findall(r'RequestRefusedError\(\s*\d{3},\s*"([A-Z_]+)"', text))
    assert len(codes) > 30
    silent = {code for code in codes if f"error.{code}" not in SAY.keys} - FOR_PROGRAMS
    assert silent == set()


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("mailto:help@example.com", "mailto:help@example.com?subject=%E2%84%96%207"),
        ("https://t.me/shop", "https://t.me/shop?text=%E2%84%96%207"),
        (
            "https://help.example/new?kind=order",
            "https://help.example/new?kind=order&order=%E2%84%96%207",
        ),
    ],
)
def test_the_support_button_carries_the_number_of_the_order(url: str, goes: str) -> None:
    assert support_link(url, "№ 7") == goes
    assert support_link(url, None) == url


async def test_the_operators_brand_is_on_every_page(shop: Shop, tmp_path: Path) -> None:
    """Name, colours, a text of theirs and their own terms, without a line of code."""
    folder = tmp_path / "brand"
    shutil.copytree(BUNDLED, folder)
    toml = (folder / "brand.toml").read_text(encoding="utf-8")
    toml = toml.replace('name = "Darkroom"', 'name = "Foto Anna"').replace("#8a4b08", "#1d4ed8")
    own = '\n[texts.en]\n"welcome.start" = "Make me a star"\n[texts.ru]\n"welcome.start" = "Хочу портрет"\n'
    (folder / "brand.toml").write_text(toml + own, encoding="utf-8")
    (folder / "terms.en.md").write_text("# Our own terms\n\n{policy}\n", encoding="utf-8")
    application = application_of(shop, brand=load_brand(folder))
    async with client_of(application) as client:
        welcome = (await client.get("/", headers={**PAGE, "Accept-Language": "en"})).text
        assert "Foto Anna" in welcome
        assert "Make me a star" in welcome
        sheet = re.search(r"/assets/brand\.[0-9a-f]{12}\.css", welcome)
        assert sheet is not None
        assert "--brand-accent:#1d4ed8" in (await client.get(sheet[0])).text
        terms = (await client.get("/terms", headers={**PAGE, "Accept-Language": "en"})).text
        assert "Our own terms" in terms
        assert "A set is ready within 60 minutes of its start." in terms


@pytest.mark.parametrize(
    ("count", "word"),
    [
        (1, "минута"),
        (2, "минуты"),
        (5, "минут"),
        (11, "минут"),
        (21, "минута"),
        (112, "минут"),
        (0, "минут"),
    ],
)
def test_russian_numbers_take_their_word(count: int, word: str) -> None:
    assert plural("ru", count, ["минута", "минуты", "минут"]) == word
