"""Links that sign somebody in once: asked for by e-mail, made by hand, used by exactly one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

import psycopg
import pytest

from darkroom.core.requests import UserLeftError
from darkroom.core.sessions import SessionView
from darkroom.db.database import Connection
from darkroom.flow import sign_in_by_link as linking
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.forget_me import forget_me
from darkroom.flow.sign_in import (
    OpenedSession,
    open_demo_session,
    read_session,
    set_locale,
    sign_in,
    sign_out,
    whose_session,
)
from darkroom.flow.sign_in_by_link import (
    ask_sign_in_link,
    find_person,
    make_sign_in_link,
    peek_sign_in_link,
    sign_in_by_link,
)
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.identity import Person
from tests.shop import Shop

EMAIL: Final = "ann@example.com"
RIVALS: Final = 8


async def _ask(shop: Shop, email: str = EMAIL, locale: str = "en") -> None:
    await ask_sign_in_link(shop.darkroom, email=email, locale=locale)


async def _token(shop: Shop, email: str = EMAIL) -> str:
    """The token of a new link, made by hand."""
    user_id = await find_person(shop.darkroom, email=email)
    return (await make_sign_in_link(shop.darkroom, user_id)).rpartition("/")[2]


async def _code(work: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as refusal:
        await work
    return refusal.value.status, refusal.value.code


OVER: Final = (410, "LINK_USED_OR_OVER")


# --- asking -----------------------------------------------------------------------------------------


async def test_an_address_becomes_one_user_however_it_is_written(shop: Shop) -> None:
    """Capitals and stray spaces make nobody another customer."""
    for written in (EMAIL, " Ann@Example.COM\n", "ANN@EXAMPLE.com"):
        await _ask(shop, written)
    rows = await shop.rows(
        "SELECT u.email, u.locale, u.telegram_user_id, count(*) AS letters FROM users u "
        "JOIN mail_outbox m ON m.user_id = u.id AND m.address = u.email GROUP BY u.id"
    )
    assert rows == [{"email": EMAIL, "locale": "en", "telegram_user_id": None, "letters": 3}]


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@@example.com",
        "ann@ex@ample.com",
        "ann@localhost",
        "an n@example.com",
        "ann@exam ple.com",
        "ann@example.com\r\nBcc: all@example.com",
        "ann@example.com, bob@example.com",
        '"ann"@example.com',
        "<ann@example.com>",
        "ann\0@example.com",
        "ann\udc80@example.com",
        "a\N{LATIN SMALL LETTER N WITH TILDE}n@example.com",
        ".ann@example.com",
        "ann@-example.com",
        "ann@example..com",
        "a" * 65 + "@example.com",
        "ann@" + "a" * 250 + ".com",
        "a" * 100_000,
    ],
)
async def test_what_is_no_address_is_refused_and_leaves_nothing(shop: Shop, odd: str) -> None:
    assert await _code(_ask(shop, odd)) == (400, "INVALID_EMAIL")
    assert await shop.value("SELECT count(*) FROM users") == 0


async def test_without_a_mailer_nobody_is_promised_a_letter(shop: Shop) -> None:
    shop.darkroom = replace(shop.darkroom, mailer=None)
    assert await _code(_ask(shop)) == (503, "MAIL_OFF")
    assert await shop.value("SELECT count(*) FROM users") == 0


async def test_an_unknown_language_is_refused(shop: Shop) -> None:
    assert await _code(_ask(shop, locale="de")) == (400, "UNKNOWN_LOCALE")


async def test_asking_at_once_makes_one_user_and_five_letters(shop: Shop) -> None:
    answers = await asyncio.gather(*(_ask(shop) for _ in range(12)), return_exceptions=True)
    refused = [one for one in answers if isinstance(one, RequestRefusedError)]
    assert [(one.status, one.code) for one in refused] == [(429, "TOO_MANY_LINKS")] * 7
    assert answers.count(None) == 5
    assert await shop.value("SELECT count(*) FROM users") == 1
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 5
    # Another address is another customer's, and the hour ends.
    await _ask(shop, "bob@example.com")
    await shop.advance(3601)
    await _ask(shop)


async def test_nobody_has_the_shop_write_to_any_number_of_strangers(shop: Shop) -> None:
    """Sixty addresses, sixty letters: the limit was one address's alone."""
    limits = shop.darkroom.limits.model_copy(update={"sign_in_letters_max": 4})
    await shop.rows("INSERT INTO users (email) VALUES ('buyer@example.com') RETURNING id")
    await shop.rows(
        "INSERT INTO payments (user_id, provider, tier_id, photo_count, amount_minor, currency, policy_id,"
        " request_id) SELECT max(id), 'bank', 'starter', 7, 100, 'RUB', 1, gen_random_uuid() FROM users "
        "RETURNING id"
    )
    shop.darkroom = replace(shop.darkroom, limits=limits)
    for number in range(4):
        await _ask(shop, f"stranger-{number}@example.com")
    assert await _code(_ask(shop, "one-more@example.com")) == (503, "MAIL_BUSY")
    assert await shop.value("SELECT count(*) FROM users") == 5, "and nobody was made"
    await _ask(shop, "buyer@example.com")
    await shop.advance(3601)
    await _ask(shop, "one-more@example.com")


async def test_twin_without_the_lock_more_letters_go_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: rivals that do not wait for each other count what was there before all of them."""
    user_id = await find_person(shop.darkroom, email=EMAIL)

    async def no_lock(*_args: object, **_kwargs: object) -> int:
        return user_id

    monkeypatch.setattr(linking, "lock_user_of_email", no_lock)
    meet = asyncio.Barrier(RIVALS)

    async def together(name: str) -> None:
        if name == "mail.before_commit":
            await meet.wait()

    with checkpoints_handled_by(together):
        await asyncio.gather(*(_ask(shop) for _ in range(RIVALS)))
    assert await shop.value("SELECT count(*) FROM mail_outbox") == RIVALS > 5


async def test_the_same_wish_twice_is_one_letter(shop: Shop) -> None:
    wish = uuid4()
    for _ in range(2):
        await ask_sign_in_link(shop.darkroom, email=EMAIL, locale="ru", now_request=wish)
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 1


async def test_a_commit_whose_answer_is_lost_is_read_back(shop: Shop) -> None:
    lost = ["once"]

    async def lose(name: str) -> None:
        if name == "database.done" and lost:
            lost.pop()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    token = await _token(shop)
    with checkpoints_handled_by(lose):
        await _ask(shop)
    assert not lost
    lost.append("again")
    with checkpoints_handled_by(lose):
        opened = await sign_in_by_link(shop.darkroom, token)
    assert not lost
    assert await whose_session(shop.darkroom, opened.token) == opened.user_id
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 1
    assert await shop.value("SELECT count(*) FROM sessions") == 1


# --- using ------------------------------------------------------------------------------------------


async def test_a_link_opens_once(shop: Shop) -> None:
    token = await _token(shop)
    for _ in range(3):
        assert await peek_sign_in_link(shop.darkroom, token)
    opened = await sign_in_by_link(shop.darkroom, token)
    assert await read_session(shop.darkroom, opened.token) == SessionView(
        opened.user_id, "link", "ru", None, EMAIL
    )
    assert not await peek_sign_in_link(shop.darkroom, token)
    assert await _code(sign_in_by_link(shop.darkroom, token)) == OVER
    # A second link is a second session of the same customer.
    again = await sign_in_by_link(shop.darkroom, await _token(shop))
    assert again.user_id == opened.user_id
    assert again.token != opened.token


async def test_a_link_dies_after_half_an_hour(shop: Shop) -> None:
    token = await _token(shop)
    await shop.advance(1799)
    assert await peek_sign_in_link(shop.darkroom, token)
    await shop.advance(2)
    assert not await peek_sign_in_link(shop.darkroom, token)
    assert await _code(sign_in_by_link(shop.darkroom, token)) == OVER


async def test_forged_unknown_and_odd_tokens_are_all_the_same(shop: Shop) -> None:
    token = await _token(shop)
    number, _, signature = token.partition(".")
    unknown = shop.darkroom.tokens.make("sign-in", int(number) + 1)
    shared = shop.darkroom.tokens.make("share", int(number))
    for odd in (
        unknown,
        shared,
        f"{number}.{'A' * 43}",
        f"{int(number) + 1}.{signature}",
        "",
        "\0",
    ):
        assert not await peek_sign_in_link(shop.darkroom, odd)
        assert await _code(sign_in_by_link(shop.darkroom, odd)) == OVER
    assert await peek_sign_in_link(shop.darkroom, token)


async def _race(shop: Shop) -> list[OpenedSession | BaseException]:
    """Rivals that all stand before their commit, or behind somebody's lock, before one goes on."""
    token = await _token(shop)
    return await asyncio.gather(
        *(sign_in_by_link(shop.darkroom, token) for _ in range(RIVALS)), return_exceptions=True
    )


async def test_of_many_at_once_exactly_one_signs_in(shop: Shop) -> None:
    """As with a payment: who looks first and writes later lets two through."""
    answers = await _race(shop)
    assert sum(isinstance(one, OpenedSession) for one in answers) == 1
    refused = [one for one in answers if isinstance(one, RequestRefusedError)]
    assert [(one.status, one.code) for one in refused] == [OVER] * (RIVALS - 1)
    assert await shop.value("SELECT count(*) FROM sessions") == 1


async def test_twin_a_link_that_is_looked_at_first_lets_many_in(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: one statement looks, another writes."""
    meet = asyncio.Barrier(RIVALS)

    async def look_then_use(tx: Connection, link_id: int) -> int | None:
        rows = await (
            await tx.execute(
                "SELECT user_id FROM sign_in_links WHERE id = %s AND used_at IS NULL", [link_id]
            )
        ).fetchall()
        await meet.wait()
        await tx.execute(
            "UPDATE sign_in_links SET used_at = darkroom_now() WHERE id = %s", [link_id]
        )
        return int(rows[0][0]) if rows else None

    monkeypatch.setattr(linking, "use_link", look_then_use)
    answers = await _race(shop)
    assert sum(isinstance(one, OpenedSession) for one in answers) == RIVALS


async def test_what_is_done_inside_is_one_with_the_session(shop: Shop) -> None:
    token = await _token(shop)

    async def breaks(_tx: Connection, _user_id: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sign_in_by_link(shop.darkroom, token, inside=breaks)
    assert await peek_sign_in_link(shop.darkroom, token)
    assert await shop.value("SELECT count(*) FROM sessions") == 0

    async def english(tx: Connection, user_id: int) -> None:
        await tx.execute("UPDATE users SET locale = 'en' WHERE id = %s", [user_id])

    opened = await sign_in_by_link(shop.darkroom, token, inside=english)
    view = await read_session(shop.darkroom, opened.token)
    assert view is not None
    assert view.locale == "en"


# --- leaving ----------------------------------------------------------------------------------------


async def test_links_of_who_left_open_nothing_and_the_address_is_free(shop: Shop) -> None:
    await _ask(shop)
    token = await _token(shop)
    opened = await sign_in_by_link(shop.darkroom, await _token(shop))
    await forget_me(shop.darkroom, user_id=opened.user_id)
    assert await whose_session(shop.darkroom, opened.token) is None
    assert await read_session(shop.darkroom, opened.token) is None
    assert await _code(sign_in_by_link(shop.darkroom, token)) == OVER
    assert await shop.value("SELECT count(*) FROM mail_outbox") == 0, "a letter would still go out"
    with pytest.raises(UserLeftError):
        await make_sign_in_link(shop.darkroom, opened.user_id)
    # The same address is a new customer, from the first moment on.
    again = await sign_in_by_link(shop.darkroom, await _token(shop))
    assert again.user_id != opened.user_id
    await _ask(shop)
    assert await shop.value("SELECT user_id FROM mail_outbox") == again.user_id


async def test_leaving_and_signing_in_at_once_leaves_no_live_session(shop: Shop) -> None:
    """Whoever is using a link at the moment of leaving is waited for, and signed out with the rest."""
    token = await _token(shop)
    user_id = await find_person(shop.darkroom, email=EMAIL)
    using, leaving = asyncio.Event(), asyncio.Event()

    async def hold(name: str) -> None:
        if name == "link.before_commit":
            using.set()
            await leaving.wait()

    with checkpoints_handled_by(hold):
        signing_in = asyncio.create_task(sign_in_by_link(shop.darkroom, token))
        await using.wait()
        leave = asyncio.create_task(forget_me(shop.darkroom, user_id=user_id))
        while not await shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        leaving.set()
        opened, _ = await asyncio.gather(signing_in, leave)
    assert await whose_session(shop.darkroom, opened.token) is None
    assert await shop.value("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == 0


# --- sessions ---------------------------------------------------------------------------------------


async def test_a_session_says_how_its_holder_was_known(shop: Shop) -> None:
    signed = await sign_in(shop.darkroom, Person(77, "en"))
    assert await read_session(shop.darkroom, signed.token) == SessionView(
        signed.user_id, "telegram", "en", 77, None
    )
    demo = await open_demo_session(shop.darkroom, 77)
    assert demo.user_id == signed.user_id
    view = await read_session(shop.darkroom, demo.token)
    assert view is not None
    assert view.origin == "demo"
    fresh = [await open_demo_session(shop.darkroom, None) for _ in range(2)]
    assert len({signed.user_id, *(one.user_id for one in fresh)}) == 3
    await sign_out(shop.darkroom, demo.token)
    assert await read_session(shop.darkroom, demo.token) is None
    assert await read_session(shop.darkroom, "nobody's") is None
    await shop.advance(31 * 86_400)
    assert await read_session(shop.darkroom, signed.token) is None


async def test_the_language_is_the_customers_choice(shop: Shop) -> None:
    opened = await open_demo_session(shop.darkroom, None)
    await set_locale(shop.darkroom, user_id=opened.user_id, locale="en")
    view = await read_session(shop.darkroom, opened.token)
    assert view is not None
    assert view.locale == "en"
    odd: list[tuple[Callable[[], Awaitable[None]], tuple[int, str]]] = [
        (
            lambda: set_locale(shop.darkroom, user_id=opened.user_id, locale="de"),
            (400, "UNKNOWN_LOCALE"),
        ),
        (
            lambda: set_locale(shop.darkroom, user_id=opened.user_id + 1, locale="en"),
            (404, "USER_NOT_FOUND"),
        ),
    ]
    for wish, refusal in odd:
        assert await _code(wish()) == refusal


async def test_an_operator_finds_people_by_any_name(shop: Shop) -> None:
    known = await shop.customer()
    assert (
        await find_person(shop.darkroom, telegram_user_id=known.telegram_user_id) == known.user_id
    )
    assert await _code(find_person(shop.darkroom, telegram_user_id=1)) == (404, "USER_NOT_FOUND")
    assert await _code(find_person(shop.darkroom, email="x")) == (400, "INVALID_EMAIL")
    address = await make_sign_in_link(shop.darkroom, known.user_id)
    assert address.startswith("http://127.0.0.1:8000/sign-in/")
    opened = await sign_in_by_link(shop.darkroom, address.rpartition("/")[2])
    assert opened.user_id == known.user_id
    with pytest.raises(RequestRefusedError, match="USER_NOT_FOUND"):
        await make_sign_in_link(shop.darkroom, known.user_id + 1)


async def test_no_table_holds_what_opens_a_link(shop: Shop) -> None:
    """A copy of the database signs nobody in."""
    await _ask(shop)
    token = shop.darkroom.tokens.make(
        "sign-in", await shop.value("SELECT link_id FROM mail_outbox")
    )
    for table in ("sign_in_links", "mail_outbox"):
        rows = await shop.rows(b"SELECT * FROM " + table.encode())  # pyright: ignore[reportArgumentType]
        assert rows
        assert token.partition(".")[2] not in str(rows)
