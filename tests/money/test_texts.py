"""What customers read about their money: grammar, amounts, and no promise that was not kept."""

import pytest

from darkroom.core.refund_policy import RefundPolicy
from darkroom.edges.site.texts import Texts
from darkroom.flow.customer_texts import (
    amount_text,
    made_again_text,
    money_back_delayed_text,
    money_back_text,
    photos_text,
    policy_text,
    selfies_deleted_text,
    unused_reminder_text,
)
from darkroom.ports.money import Money


@pytest.mark.parametrize(
    ("minor", "currency", "ru", "en"),
    [
        (49_900, "RUB", "499 ₽", "499 RUB"),
        (7_129, "RUB", "71,29 ₽", "71.29 RUB"),
        (5, "RUB", "0,05 ₽", "0.05 RUB"),
        (99, "XTR", "99 ⭐", "99 Stars"),
        (1_050, "USD", "10,50 $", "10.50 USD"),
    ],
)
def test_amounts_are_written_as_people_write_them(
    minor: int, currency: str, ru: str, en: str
) -> None:
    text = amount_text(Money(minor, currency))
    assert (text.ru, text.en) == (ru, en)


@pytest.mark.parametrize(
    ("count", "ru", "en"),
    [
        (1, "1 фотографию", "1 photo"),
        (2, "2 фотографии", "2 photos"),
        (5, "5 фотографий", "5 photos"),
        (11, "11 фотографий", "11 photos"),
        (21, "21 фотографию", "21 photos"),
        (22, "22 фотографии", "22 photos"),
        (112, "112 фотографий", "112 photos"),
    ],
)
def test_photos_are_counted_in_two_languages(count: int, ru: str, en: str) -> None:
    text = photos_text(count)
    assert (text.ru, text.en) == (ru, en)


@pytest.mark.parametrize(
    "reason",
    [
        "shortfall",
        "below_threshold",
        "no_partial",
        "compensation_failed",
        "unused",
        "asked_back",
        "late",
        "duplicate",
        "operator",
        "outside",
        "chargeback",
    ],
)
def test_each_reason_says_how_much_of_what_and_why(reason: str) -> None:
    text = money_back_text(
        Money(7_129, "RUB"), reason=reason, photo_count=2, payment_id=17, by_hand=False
    )
    assert "71,29 ₽" in text.ru
    assert "71.29 RUB" in text.en
    assert "17" in text.ru
    assert "17" in text.en
    assert "  " not in text.ru + text.en


def test_a_refusal_is_not_called_a_refund() -> None:
    """bugbook D6: and it says whose money it still is."""
    text = money_back_delayed_text(Money(100, "RUB"), payment_id=17)
    assert "не получилось" in text.ru
    assert "did not work" in text.en


def test_the_others_are_whole_sentences() -> None:
    texts = [
        unused_reminder_text(Money(49_900, "RUB"), payment_id=1, photo_count=7, days_left=1),
        made_again_text(payment_id=1, photo_count=1),
        selfies_deleted_text(count=1, days=30),
    ]
    for text in texts:
        assert text.ru.endswith(".")
        assert text.en.endswith(".")


@pytest.mark.parametrize(
    ("count", "ru", "en"),
    [
        (
            1,
            "Одну фотографию готового заказа можно бесплатно переснять, один раз.",
            "When a set is ready, you can have one photo of it made again for free, once.",
        ),
        (
            3,
            "Можно бесплатно переснять из готового заказа: 3 фотографии, каждую один раз.",
            "When a set is ready, you can have 3 photos of it made again for free, each once.",
        ),
        (
            0,
            "Готовые фотографии бесплатно не переснимаем.",
            "Photos that are ready are not made again for free.",
        ),
    ],
)
def test_one_photo_that_may_be_made_again_is_not_many(count: int, ru: str, en: str) -> None:
    """The policy said: 1 photo of it, each once."""
    text = policy_text(RefundPolicy(redo_photos=count), selfie_days=30)
    assert ru in text.ru
    assert en in text.en


@pytest.mark.parametrize("key", ["tier.photos", "payment.set_of", "common.photos"])
def test_one_photo_is_one_photo_on_every_page(key: str) -> None:
    say = Texts()
    one, two = (say.say("en", key, count=count, tier="Gift") for count in (1, 2))
    assert one.endswith("1 photo")
    assert two.endswith("2 photos")


def test_one_day_is_one_day() -> None:
    """Limits are the operator's; one of them said "1 days"."""
    policy = RefundPolicy(unused_remind_days=1, unused_refund_days=2, job_deadline_seconds=60)
    text = policy_text(policy, selfie_days=1).en
    assert "within 1 minute of" in text
    assert "after 1 day, and goes back after 2." in text
    assert "deleted 1 day after" in text
    say = Texts()
    keys = ("welcome.data_text", "selfies.deletes", "share.set_text", "share.photo_text")
    assert [key for key in keys if "1 days" in say.say("en", key, days=1)] == []
