"""The harness of several crashes in one telling: it must let nothing go that single crashes would find."""

from collections import Counter
from itertools import pairwise

import pytest

from tests.crash.places import Form, Place, places
from tests.crash.together import in_groups, strike_each
from tests.crash.vanishing import Crash

CASES = places()
ONE, OTHER = (Place(name, Form.VANISH) for name in ("one", "other"))


def test_what_goes_wrong_only_together_is_found() -> None:
    """The group's own twin: either alone is harmless, and the test must not let the two of them go."""
    struck: list[int] = []

    def both_are_too_many(crash: Crash) -> None:
        crash.strikes("one")
        crash.strikes("other")
        struck.append(len(crash.struck))
        assert len(crash.struck) == 1

    with pytest.raises(AssertionError, match="together they do not: one:vanish, other:vanish"):
        strike_each([ONE, OTHER], both_are_too_many)
    assert struck == [2, 1, 1]


def test_what_goes_wrong_at_one_place_names_it() -> None:
    def dies_of_other(crash: Crash) -> None:
        crash.strikes("one")
        assert not crash.strikes("other"), "stuck"

    with pytest.raises(AssertionError, match="stuck") as wrong:
        strike_each([ONE, OTHER], dies_of_other)
    assert wrong.value.__notes__ == ["struck at other:vanish alone"]


def test_a_place_that_a_telling_missed_is_struck_alone_and_must_be_passed() -> None:
    struck: list[Place] = []

    def passes_other_only_alone(crash: Crash) -> None:
        if not crash.strikes("one"):
            crash.strikes("other")
        struck.extend(crash.struck)

    def passes_one(crash: Crash) -> None:
        crash.strikes("one")

    strike_each([ONE, OTHER], passes_other_only_alone)
    assert struck == [ONE, OTHER]
    with pytest.raises(AssertionError, match="never passes other:vanish"):
        strike_each([ONE, OTHER], passes_one)


def test_every_place_is_in_one_group_far_from_its_neighbours() -> None:
    groups = in_groups(CASES, 6)
    assert Counter(place for group in groups for place in group) == Counter(CASES)
    for group in groups:
        numbers = [CASES.index(place) for place in group]
        assert all(after - before > 50 for before, after in pairwise(numbers))
