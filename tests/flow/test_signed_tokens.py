"""Tokens that name a row: ours are read, anything else is nothing."""

import pytest

from darkroom.flow.signed_tokens import TOKEN_MAX, SignedTokens

NOW = SignedTokens(secret="now", previous=None)
AFTER = SignedTokens(secret="after", previous="now")
LARGEST = 10**18 - 1


def test_a_token_names_its_row_for_its_purpose_alone() -> None:
    token = NOW.make("share", 7)
    assert NOW.read("share", token) == 7
    assert NOW.read("sign-in", token) is None
    assert len(NOW.make("share", LARGEST)) <= TOKEN_MAX
    assert NOW.read("share", NOW.make("share", LARGEST)) == LARGEST


def test_a_rotation_keeps_the_tokens_of_the_key_before() -> None:
    assert AFTER.read("share", NOW.make("share", 7)) == 7
    assert NOW.read("share", AFTER.make("share", 7)) is None


@pytest.mark.parametrize(
    "odd",
    [
        "",
        ".",
        "7",
        "7.",
        "7.x",
        "0.x",
        "-1.x",
        "\N{DIGIT SEVEN}\N{CJK UNIFIED IDEOGRAPH-4E03}.x",
        "9" * 200,
    ],
)
def test_anything_else_is_no_token(odd: str) -> None:
    assert NOW.read("share", odd) is None


def test_another_row_cannot_borrow_a_signature() -> None:
    signature = NOW.make("share", 7).partition(".")[2]
    assert NOW.read("share", f"8.{signature}") is None
    assert NOW.read("share", f"07.{signature}") is None
