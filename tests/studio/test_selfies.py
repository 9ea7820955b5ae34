"""Of several selfies one is chosen by a look, and only that one is cut out."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from darkroom.adapters.generation.studio import reference as references
from darkroom.adapters.generation.studio.errors import StudioCode, StudioError
from darkroom.adapters.generation.studio.layout import hides_its_edges, place
from darkroom.adapters.generation.studio.matte import Subject
from darkroom.adapters.generation.studio.memory import Memory
from darkroom.adapters.generation.studio.pixels import Picture
from darkroom.adapters.generation.studio.reference import Reference, forget_references, prepare
from darkroom.adapters.generation.studio.render import RenderOrder, render
from darkroom.adapters.generation.studio.selfies import glance, usable_selfies
from tests.studio import portraits

ORDER = RenderOrder("A grey studio backdrop, bust portrait", "professional", 0, 1)


def reference_of(data: bytes) -> Reference:
    return prepare(glance(data))


def narrow() -> bytes:
    """A strip hardly wider than the face: wherever it is put, one of its cut sides shows."""
    large = portraits.opened(portraits.astronaut()).resize((1536, 1536), Image.Resampling.LANCZOS)
    return portraits.encoded(large.crop((490, 60, 850, 1100)))


def eight() -> list[bytes]:
    portrait = portraits.opened(portraits.officer())
    crops = [portrait.crop((4 * left, 0, 480 + 4 * left, 600)) for left in range(6)]
    return [portraits.officer(), portraits.astronaut(), *map(portraits.encoded, crops)]


@pytest.fixture
def cut_out_times(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each photo that is cut out."""
    forget_references()
    times: list[int] = []
    cut_out = references.cut_out

    def counted(picture: Picture, subject: Subject) -> Picture:
        times.append(1)
        return cut_out(picture, subject)

    monkeypatch.setattr(references, "cut_out", counted)
    return times


def test_of_eight_selfies_one_is_cut_out(cut_out_times: list[int]):
    """All eight were, at about a second each, before one of them was chosen; and few stayed in memory."""
    selfies = eight()
    render(ORDER, selfies)
    assert len(cut_out_times) == 1
    render(ORDER, selfies)
    assert len(cut_out_times) == 1
    render(RenderOrder(ORDER.prompt, ORDER.style_id, 1, 1), selfies)
    assert len(cut_out_times) == 2


def test_a_selfie_that_shows_its_cut_side_gives_way(cut_out_times: list[int]):
    """It was faded into the backdrop although another one stood free."""
    strip, good = narrow(), portraits.officer()
    assert not hides_its_edges(reference_of(strip))
    assert hides_its_edges(reference_of(good))
    of_both = [render(RenderOrder(ORDER.prompt, "none", at, 1), [strip, good]) for at in (0, 1)]
    of_good = [render(RenderOrder(ORDER.prompt, "none", at, 1), [good]) for at in (0, 1)]
    assert [photo.preset.rpartition("/")[2] for photo in of_both] == ["bust", "bust"]
    seen = [face_of(photo.data) for photo in (*of_both, *of_good)]
    assert np.ptp(seen) < 4
    assert len(cut_out_times) == 2


def face_of(data: bytes) -> float:
    return glance(data).look.mesh.height


def test_where_every_selfie_shows_its_edges_the_best_is_delivered():
    strip = narrow()
    assert place(reference_of(strip), "bust", np.random.Generator(np.random.PCG64(1))).fades
    assert face_of(render(ORDER, [strip]).data) > 100


def test_the_look_sees_where_the_person_is_cut():
    """What the cut-out found, without cutting out."""
    assert glance(portraits.officer()).cuts == 2
    assert glance(portraits.cropped(portraits.officer(), (120, 60, 420, 420))).cuts == 3
    wide = Image.new("RGB", (1400, 1200), (170, 150, 120))
    wide.paste(portraits.opened(portraits.officer()).resize((400, 469)), (500, 731))
    assert glance(portraits.encoded(wide)).cuts == 0


def test_the_best_is_sharp_frontal_alone_and_whole():
    good = portraits.officer()
    worse = [
        portraits.blurred(good, 1.2),
        portraits.cropped(good, (120, 60, 420, 420)),
        portraits.turned_away(good, 235),
    ]
    best_first = usable_selfies([*worse, good])
    assert best_first[0].data == good
    assert [one.digest for one in usable_selfies([good, *worse])] == [
        one.digest for one in best_first
    ]


def test_a_memory_keeps_what_has_room_and_what_was_refused():
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        if name == "bad":
            raise StudioError(StudioCode.NO_FACE, "none")
        return name

    memory: Memory[str] = Memory(6, len)
    for name in ("one", "two", "one", "three", "one", "two"):
        assert memory.recall(name, lambda name=name: make(name)) == name
    assert made == ["one", "two", "three", "one", "two"]
    for _ in range(2):
        with pytest.raises(StudioError, match="none"):
            memory.recall("bad", lambda: make("bad"))
    assert made.count("bad") == 1
    memory.clear()
    assert memory.recall("two", lambda: make("two")) == "two"
    assert made[-1] == "two"


def test_refusals_are_remembered_within_a_bound_too() -> None:
    """They took no room, so that nothing ever put one out."""
    made: list[str] = []

    def refuse(digest: str) -> bytes:
        made.append(digest)
        raise StudioError(StudioCode.NO_FACE, "no face")

    memory: Memory[bytes] = Memory(2, len)
    for digest in ("a", "b", "c", "c", "a"):
        with pytest.raises(StudioError):
            memory.recall(digest, partial(refuse, digest))
    assert made == ["a", "b", "c", "a"]
