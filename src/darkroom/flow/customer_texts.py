# ruff: noqa: RUF001 - Russian is written in letters that look like others
"""What customers are told about their money and their pictures, in their languages: plainly, and afterwards."""

from dataclasses import dataclass
from typing import Final

from darkroom.core.refund_policy import RefundPolicy
from darkroom.ports.money import Money

_REASONS: Final[dict[str, tuple[str, str]]] = {
    "below_threshold": (
        "Получилось слишком мало фотографий, поэтому вернули всю сумму; готовые остаются вам.",
        "Too few photos could be made, so the whole price went back; those that are ready stay yours.",
    ),
    "no_partial": (
        "Получились не все фотографии, поэтому вернули всю сумму; готовые остаются вам.",
        "Not all photos could be made, so the whole price went back; those that are ready stay yours.",
    ),
    "compensation_failed": (
        "Недостающие фотографии не получились и со второго раза; готовые остаются вам.",
        "The missing photos could not be made again either; those that are ready stay yours.",
    ),
    "unused": (
        "Оплата осталась неиспользованной.",
        "The payment was not used.",
    ),
    "asked_back": (
        "Вы попросили вернуть неиспользованную оплату.",
        "You asked for an unused payment back.",
    ),
    "late": (
        "Оплата пришла, когда заказ был уже закрыт.",
        "The payment came when its order was closed already.",
    ),
    "duplicate": (
        "Заказ был оплачен дважды, вторую оплату вернули целиком.",
        "The order was paid twice; the second payment went back whole.",
    ),
    "chargeback": (
        "Ваш банк отозвал оплату.",
        "Your bank took the payment back.",
    ),
}
_NOTHING: Final = (
    "Ни одна фотография не получилась, поэтому вернули всю сумму.",
    "None of the photos could be made, so the whole price went back.",
)


@dataclass(frozen=True, slots=True)
class Text:
    """The same thing in two languages."""

    ru: str
    en: str


def amount_text(money: Money) -> Text:
    """An amount as people write it: no kopeks where there are none."""
    if money.currency == "XTR":
        return Text(f"{money.amount_minor} ⭐", f"{money.amount_minor} Stars")
    whole, rest = divmod(money.amount_minor, 100)
    number = f"{whole}" if rest == 0 else f"{whole}.{rest:02}"
    sign = {"RUB": "₽", "USD": "$", "EUR": "€"}.get(money.currency, money.currency)
    return Text(f"{number.replace('.', ',')} {sign}", f"{number} {money.currency}")


def photos_text(count: int) -> Text:
    """So many photos, for a sentence that needs the accusative."""
    tens, ones = count % 100 // 10, count % 10
    if tens != 1 and ones == 1:
        word = "фотографию"
    elif tens != 1 and ones in (2, 3, 4):
        word = "фотографии"
    else:
        word = "фотографий"
    return Text(f"{count} {word}", f"{count} photo{'' if count == 1 else 's'}")


def money_back_text(
    money: Money,
    *,
    reason: str,
    photo_count: int,
    payment_id: int,
    by_hand: bool,
    nothing_delivered: bool = False,
) -> Text:
    """Money is back: how much, for what, of which order."""
    amount = amount_text(money)
    why = _NOTHING if nothing_delivered else _REASONS.get(reason)
    if why is None and photo_count:
        photos = photos_text(photo_count)
        one = photos.ru.endswith("ю")
        which = "которая не получилась" if one else "которые не получились"
        why = (
            f"Это за {photos.ru}, {which}.",
            f"It is for {photos.en} that could not be made.",
        )
    way_ru = "переводом" if by_hand else "тем же способом, которым вы платили"
    way_en = "by a transfer" if by_hand else "the way you paid"
    ru = [f"Мы вернули {amount.ru} по заказу № {payment_id} {way_ru}."]
    en = [f"We returned {amount.en} of order {payment_id} {way_en}."]
    if reason == "chargeback":
        ru, en = (
            [f"По заказу № {payment_id} вам вернулось {amount.ru}."],
            [f"{amount.en} of order {payment_id} went back to you."],
        )
    if why is not None:
        ru.append(why[0])
        en.append(why[1])
    return Text(" ".join(ru), " ".join(en))


def money_back_delayed_text(money: Money, *, payment_id: int) -> Text:
    """The provider said no: it is owed, and a person is on it."""
    amount = amount_text(money)
    return Text(
        f"Вернуть {amount.ru} по заказу № {payment_id} автоматически не получилось: банк отказал. "
        "Деньги за нами, возвратом занимается сотрудник; писать нам не нужно.",
        f"Returning {amount.en} of order {payment_id} did not work by itself: the bank refused. "
        "We owe it to you, and a person is on it; there is nothing you need to do.",
    )


def unused_reminder_text(
    money: Money, *, payment_id: int, photo_count: int, days_left: int
) -> Text:
    """Paid, and nothing started."""
    amount, photos = amount_text(money), photos_text(photo_count)
    return Text(
        f"Заказ № {payment_id} оплачен ({amount.ru}, {photos_word(photo_count)}), но съёмка не начата. "
        f"Выберите аватар и стиль. Если не начать её за {days_left} дн., мы сами вернём всю сумму.",
        f"Order {payment_id} is paid ({amount.en}, {photos.en}) and not started. Choose an avatar and a "
        f"style. If it is not started within {days_left} day{'' if days_left == 1 else 's'}, the whole "
        "amount goes back by itself.",
    )


def photos_word(count: int) -> str:
    """So many photos in Russian, standing alone."""
    return photos_text(count).ru.replace("фотографию", "фотография")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def made_again_text(*, payment_id: int, photo_count: int) -> Text:
    """Where no part can be paid back, what is missing is made again for free."""
    photos = photos_text(photo_count)
    return Text(
        f"Из заказа № {payment_id} не получилось: {photos_word(photo_count)}. Делаем ещё раз, бесплатно. "
        "Если не выйдет и теперь, вернём всю сумму заказа.",
        f"{photos.en} of order {payment_id} could not be made. "
        f"We are making {'it' if photo_count == 1 else 'them'} again, for free. "
        "Should that not work either, the order's whole price goes back.",
    )


def selfies_deleted_text(*, count: int, days: int) -> Text:
    """What was promised with the upload has happened."""
    return Text(
        f"Прошло {days} дн., и мы удалили ваши исходные фотографии: {photos_word(count)}. "
        "Готовые снимки остаются в галерее.",
        f"After {_counted(days, 'day')} your uploaded selfies were deleted ({count}). "
        "Your finished photos stay in the gallery.",
    )


def policy_text(policy: RefundPolicy, *, selfie_days: int) -> Text:
    """What a buyer is promised, before they pay."""
    minutes = -(-policy.job_deadline_seconds // 60)
    late, part = policy.late_money == "refund", policy.without_partial == "grant"
    below = policy.whole_price_below_percent
    redo = _redo_text(policy.redo_photos)
    remind, refund = policy.unused_remind_days, policy.unused_refund_days
    ru = [
        f"Съёмка готова не позже чем через {minutes} мин. после начала.",
        "За фотографии, которые не получились, деньги возвращаются сами.",
        f"Если получилось меньше {below} % фотографий, возвращается вся сумма, а готовые остаются вам.",
        "Если способ оплаты не позволяет вернуть часть суммы, "
        + ("недостающее делаем ещё раз бесплатно." if part else "возвращается вся сумма."),
        f"О неиспользованной оплате через {remind} дн. напомним в «Профиле», а через {refund} дн. вернём её.",
        "Если оплата пришла, когда заказ уже закрыт, "
        + ("она возвращается." if late else "заказ всё равно начинается."),
        f"Исходные фотографии удаляются через {selfie_days} дн. после загрузки, о чём напишем в «Профиле».",
        redo.ru,
        "Все свои данные можно удалить в любой момент.",
    ]
    en = [
        f"A set is ready within {_counted(minutes, 'minute')} of its start.",
        "Money for photos that could not be made goes back by itself.",
        f"If fewer than {below} % of them could be made, the whole price goes back; those ready stay yours.",
        "Where the way you paid allows no part to go back, "
        + ("what is missing is made again for free." if part else "the whole price goes back."),
        (
            f"An unused payment is reminded of in your profile after {_counted(remind, 'day')}, "
            f"and goes back after {refund}."
        ),
        "A payment that comes when its order is closed already "
        + ("goes back." if late else "starts the order all the same."),
        (
            f"Your selfies are deleted {_counted(selfie_days, 'day')} after the upload; "
            "your profile says when it is done."
        ),
        redo.en,
        "You can have all your data deleted at any time.",
    ]
    return Text(" ".join(ru), " ".join(en))


def _redo_text(count: int) -> Text:
    if count == 0:
        return Text(
            "Готовые фотографии бесплатно не переснимаем.",
            "Photos that are ready are not made again for free.",
        )
    if count == 1:
        return Text(
            "Одну фотографию готового заказа можно бесплатно переснять, один раз.",
            "When a set is ready, you can have one photo of it made again for free, once.",
        )
    return Text(
        f"Можно бесплатно переснять из готового заказа: {photos_word(count)}, каждую один раз.",
        f"When a set is ready, you can have {photos_text(count).en} of it made again for free, each once.",
    )


SIGN_IN_SUBJECT: Final = Text("Вход в фотостудию", "Your sign-in link")


def sign_in_text(address: str, minutes: int) -> Text:
    """The letter with a link that signs its reader in: what it is, how long it lives, and what else to do."""
    return Text(
        f"Чтобы войти, откройте ссылку:\n\n{address}\n\n"
        f"Она действует {minutes} мин. и только один раз.\n\n"
        "Если вы не просили о входе, ничего делать не нужно: без этой ссылки никто не войдёт. "
        "Никому её не пересылайте.\n",
        f"Open this link to sign in:\n\n{address}\n\n"
        f"It is good for {_counted(minutes, 'minute')}, and once.\n\n"
        "If you did not ask for it, there is nothing to do: nobody gets in without it. "
        "Do not pass it on.\n",
    )
