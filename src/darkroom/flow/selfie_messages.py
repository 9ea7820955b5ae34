# ruff: noqa: RUF001 - Russian is written in letters that look like others
"""What a customer is told about a selfie, in their language."""

from dataclasses import dataclass
from typing import Any, Final

from darkroom.ports.intake import RefusalCode, WarningCode

SELFIE_LIMIT: Final = "SELFIE_LIMIT"

_TEXTS: Final[dict[str, tuple[str, str]]] = {
    RefusalCode.EMPTY: ("Файл пустой", "The file is empty"),
    RefusalCode.TOO_LARGE: ("Файл больше 30 МБ", "The file is larger than 30 MB"),
    RefusalCode.NOT_AN_IMAGE: (
        "Это не фотография, или файл повреждён",
        "This is not a photo, or the file is damaged",
    ),
    RefusalCode.UNSUPPORTED_FORMAT: (
        "Такой формат не поддерживается: отправьте JPEG, PNG, WebP или HEIC",
        "This format is not supported: send JPEG, PNG, WebP or HEIC",
    ),
    RefusalCode.TOO_MANY_PIXELS: (
        "В фотографии больше 50 мегапикселей: отправьте её поменьше",
        "The photo has more than 50 megapixels: send a smaller one",
    ),
    RefusalCode.BOMB: (
        "Этот файл не удалось безопасно открыть",
        "This file could not be opened safely",
    ),
    RefusalCode.TOO_SMALL: (
        "Фотография слишком маленькая: нужно хотя бы 256 пикселей по каждой стороне",
        "The photo is too small: each side needs at least 256 pixels",
    ),
    RefusalCode.NO_FACE: ("На фотографии не видно лица", "No face can be seen in the photo"),
    SELFIE_LIMIT: (
        "У аватара уже восемь фотографий: сначала удалите одну из них",
        "The avatar has eight photos already: delete one of them first",
    ),
    WarningCode.MANY_FACES: ("На фотографии несколько человек", "There are several people"),
    WarningCode.FACE_TOO_SMALL: ("Лицо слишком мелкое", "The face is too small"),
    WarningCode.TOO_DARK: ("Фотография слишком тёмная", "The photo is too dark"),
    WarningCode.TOO_BRIGHT: (
        "Лицо пересвечено: на нём не видно деталей",
        "The face is overexposed: no detail is left in it",
    ),
    WarningCode.FACE_CUT: (
        "Лицо обрезано краем фотографии",
        "An edge of the photo cuts the face",
    ),
    WarningCode.TOO_BLURRED: ("Лицо не в фокусе", "The face is out of focus"),
    WarningCode.TURNED_AWAY: ("Лицо отвёрнуто от камеры", "The face is turned away"),
    WarningCode.NEAR_DUPLICATE: (
        "Очень похожая фотография уже есть: разные дают лучший результат",
        "A very similar photo is there already: different ones give better results",
    ),
}


@dataclass(frozen=True, slots=True)
class Remark:
    """A code and what it means for a person; a severe one keeps the selfie from serving alone."""

    code: str
    message: str
    severe: bool = False


_ALONE: Final = ("нужны и другие селфи", "others are needed beside it")


def message_of(code: str, locale: str, *, severe: bool = False) -> str:
    """The text of a code, Russian unless the customer reads English; a severe one's says what follows."""
    which = locale == "en"
    return f"{_TEXTS[code][which]}; {_ALONE[which]}" if severe else _TEXTS[code][which]


def remarks_of(verdict: dict[str, Any], locale: str) -> tuple[Remark, ...]:
    """The warnings of a stored verdict. Codes that this version does not know are left out."""
    severe: list[str] = verdict.get("severe", [])
    warnings: list[str] = verdict.get("warnings", [])
    return tuple(
        Remark(code, message_of(code, locale, severe=code in severe), code in severe)
        for code in warnings
        if code in _TEXTS
    )
