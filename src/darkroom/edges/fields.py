"""Values from outside, checked before they reach SQL: length, NUL, lone surrogates, int8 range."""

from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema

BIGINT_MAX: Final = 2**63 - 1
NAME_MAX: Final = 64
KEY_MAX: Final = 255
EMAIL_TEXT_MAX: Final = 254


def parse_id(value: object) -> int:
    """An id, as a number or as digits. Raises ValueError."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:  # noqa: PLR2004 - digits of int8
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= BIGINT_MAX:
        raise ValueError("must be a positive whole number")
    return value


def parse_optional_id(value: object) -> int | None:
    """An id, or nothing."""
    return None if value is None else parse_id(value)


def clean_text(value: object, longest: int) -> str:
    """Text that PostgreSQL can keep. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - pydantic wants ValueError
    if not 0 < len(value) <= longest:
        raise ValueError(f"must have 1 to {longest} characters")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("has characters that cannot be stored")
    return value


def parse_name(value: object) -> str:
    """A catalog name; a whole number counts as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return clean_text(value, NAME_MAX)


def parse_optional_name(value: object) -> str | None:
    """A catalog name, or nothing."""
    return None if value is None else parse_name(value)


def parse_optional_email(value: object) -> str | None:
    """Text that may be an e-mail address, or nothing; whether it is one the flow decides."""
    return None if value is None else clean_text(value, EMAIL_TEXT_MAX)


_ID_SCHEMA: Final = {
    "oneOf": [
        {"type": "integer", "minimum": 1, "maximum": BIGINT_MAX},
        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    ]
}
_NAME_SCHEMA: Final = {
    "oneOf": [{"type": "string", "minLength": 1, "maxLength": NAME_MAX}, {"type": "integer"}]
}

Id = Annotated[int, BeforeValidator(parse_id), WithJsonSchema(_ID_SCHEMA)]
OptionalId = Annotated[
    int | None,
    BeforeValidator(parse_optional_id),
    WithJsonSchema({"oneOf": [*_ID_SCHEMA["oneOf"], {"type": "null"}]}),
]
Name = Annotated[str, BeforeValidator(parse_name), WithJsonSchema(_NAME_SCHEMA)]
OptionalName = Annotated[
    str | None,
    BeforeValidator(parse_optional_name),
    WithJsonSchema({"oneOf": [*_NAME_SCHEMA["oneOf"], {"type": "null"}]}),
]
OptionalEmail = Annotated[
    str | None,
    BeforeValidator(parse_optional_email),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1, "maxLength": EMAIL_TEXT_MAX},
                {"type": "null"},
            ]
        }
    ),
]
