"""The key of the links: made once and kept, or given; never missing, never weak."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.config import IsolatedSettings
from darkroom.wiring import kept_secret, link_secret, photo_links

SHARED = {"DATABASE_URL": "postgresql://somewhere/else"}
STRONG = "k" * 32


def _settings(folder: Path, **values: Any) -> IsolatedSettings:  # noqa: ANN401 - whatever an environment has
    return IsolatedSettings.model_validate({"DARKROOM_DATA_DIR": folder, **values})


def test_one_is_made_and_kept_for_this_folder_only(tmp_path: Path) -> None:
    first = link_secret(_settings(tmp_path / "a"))
    assert len(first) == 32
    assert link_secret(_settings(tmp_path / "a")) == first
    assert link_secret(_settings(tmp_path / "b")) != first
    assert kept_secret(_settings(tmp_path / "a"), "sandbox-secret") != first
    assert (tmp_path / "a" / "link-secret").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "link-secret",
        "sandbox-secret",
    ]


def test_many_that_make_it_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(link_secret, [_settings(tmp_path / "a")] * 64))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (SHARED, "DARKROOM_LINK_SECRET must be"),
        ({"DARKROOM_LINK_SECRET": "short"}, "DARKROOM_LINK_SECRET is too short"),
        (
            {**SHARED, "DARKROOM_LINK_SECRET": STRONG, "DARKROOM_LINK_SECRET_PREVIOUS": "s"},
            "PREVIOUS",
        ),
        ({"DARKROOM_LINK_MINUTES": 0}, "DARKROOM_LINK_MINUTES"),
    ],
)
def test_a_missing_or_weak_one_stops_the_start(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        _settings(tmp_path, **values)


def test_a_given_one_is_taken_and_nothing_is_written(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "a", **SHARED, DARKROOM_LINK_SECRET=STRONG)
    assert link_secret(settings) == STRONG
    assert photo_links(settings).photo(user_id=1, photo_id=2).startswith("/api/photos/2/image?")
    assert not (tmp_path / "a").exists()
