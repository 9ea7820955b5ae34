"""The command line for tests that type: what a test does not hand in is never called."""

from typing import Any

from darkroom.edges.terminal import Wires
from darkroom.torture.begin import begin_torture
from darkroom.wiring import build_application, bundled_catalog, bundled_portrait


def refuse(*_args: object, **_kwargs: object) -> Any:  # noqa: ANN401 - never called
    """What a command under test has no business with."""
    raise AssertionError


def wires_of(**given: Any) -> Wires:  # noqa: ANN401 - whatever the field is
    """The wires, of which `given` are the test's own."""
    parts: dict[str, Any] = {
        "open_database": refuse,
        "open_darkroom": refuse,
        "open_schedules": refuse,
        "open_checks": refuse,
        "open_mounts": refuse,
        "build_application": build_application,
        "bundled_catalog": bundled_catalog,
        "bundled_portrait": bundled_portrait,
        "run_torture": begin_torture,
        "rehearse": refuse,
        "run_twins": refuse,
    }
    return Wires(**(parts | given))
