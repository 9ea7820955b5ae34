"""One order to one photo: the studio's front door.

Pure and deterministic: the same order and the same reference bytes give the same JPEG bytes, in
any process and with any number of OpenCV threads.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from darkroom.adapters.generation.studio import looks, paint, printing
from darkroom.adapters.generation.studio.backdrops.gallery import draw_backdrop, own_backdrop
from darkroom.adapters.generation.studio.composite import join
from darkroom.adapters.generation.studio.encode import encode_jpeg
from darkroom.adapters.generation.studio.errors import StudioError
from darkroom.adapters.generation.studio.grade import GRADES, apply_grade
from darkroom.adapters.generation.studio.layout import (
    HEIGHT_PX,
    WIDTH_PX,
    Placement,
    fade_cut_edges,
    hides_its_edges,
    place,
)
from darkroom.adapters.generation.studio.memory import Memory
from darkroom.adapters.generation.studio.pixels import Picture, from_bytes, to_bytes, warp
from darkroom.adapters.generation.studio.presets import Plan, plan
from darkroom.adapters.generation.studio.reference import Reference, prepare
from darkroom.adapters.generation.studio.relight import relight
from darkroom.adapters.generation.studio.retouch import retouch
from darkroom.adapters.generation.studio.scenes import OWN_BACKDROP
from darkroom.adapters.generation.studio.selfies import Selfie, usable_selfies
from darkroom.adapters.generation.studio.sitter import Sitter

__all__ = ["RenderOrder", "RenderedPhoto", "StudioError", "render"]


_KEPT_ANSWERS = 1000

Finish: TypeAlias = Callable[[Picture, Sitter, np.random.Generator], Picture]

FINISHES: Mapping[str, Finish] = {
    "oil": paint.oil,
    "watercolour": paint.watercolour,
    "pencil": paint.pencil,
    "poster": printing.poster,
    "halftone": printing.halftone,
    "duotone": printing.duotone,
    "noir": looks.noir,
    "old_master": looks.old_master,
    "neon": looks.neon,
}


@dataclass(frozen=True, slots=True)
class RenderOrder:
    """What to make.

    `place` is the prompt's number in its style. Another `take` of a prompt looks another way: another selfie,
    scene or framing; another `seed` only stirs what is left to chance.
    """

    prompt: str
    style_id: str
    place: int
    seed: int
    take: int = 0

    @property
    def turn(self) -> int:
        """Whose turn it is among the selfies: neighbours in a set differ, and so do takes of one prompt."""
        return self.place + self.take


@dataclass(frozen=True, slots=True)
class RenderedPhoto:
    """A JPEG of 768 x 1024 and the name of the recipe that made it."""

    data: bytes
    preset: str


def render(order: RenderOrder, references: Sequence[bytes]) -> RenderedPhoto:
    """Make one photo from encoded references (JPEG, PNG or WebP).

    References that cannot serve are passed over while another one can, and so are those whose cut edges
    would show.

    Raises:
        StudioError: no reference can serve; the error of the first one.
    """
    selfies = usable_selfies(references)
    reference = _reference_for(order.turn, selfies)
    chance = _chance_of_takes(order.prompt, selfies)
    chosen = plan(order.prompt, order.style_id, order.place, order.take, chance)
    if reference.grey and chosen.scene.paint is None:
        # A grey person before a coloured backdrop looks cut out.
        chosen = replace(chosen, grade="mono")
    placement = place(reference, chosen.framing, _chance(order.seed, 2))
    picture, sitter = _compose(reference, placement, chosen, order.seed)
    picture = _finish(chosen)(picture, sitter, _chance(order.seed, 4))
    data = encode_jpeg(to_bytes(picture), chosen.name, order.seed, chosen.ignored)
    return RenderedPhoto(data, chosen.name)


# A selfie that shows its edges is not cut out again only to see that.
_stand_free: Memory[bool] = Memory(_KEPT_ANSWERS, lambda _: 1)


def _finish(chosen: Plan) -> Finish:
    if chosen.scene.paint == "poster":
        # Its grades are its inks.
        return partial(printing.poster, colours=chosen.grade)
    if chosen.scene.paint is not None:
        return FINISHES[chosen.scene.paint]
    grade = GRADES[chosen.grade]
    return lambda picture, _, rng: apply_grade(picture, grade, rng)


def _compose(
    reference: Reference, placement: Placement, chosen: Plan, seed: int
) -> tuple[Picture, Sitter]:
    """Person, light and backdrop joined, before any finish."""
    size = (WIDTH_PX, HEIGHT_PX)
    matrix = placement.matrix
    person = np.clip(from_bytes(warp(reference.colours, matrix, size)), 0.0, 1.0)
    matte = np.clip(from_bytes(warp(reference.matte, matrix, size)), 0.0, 1.0)
    if placement.fades:
        matte = fade_cut_edges(reference, matte, matrix)
    mesh = reference.mesh.moved(matrix)
    scene = chosen.scene
    light, joining = scene.light, scene.joining
    if chosen.mirrored:
        light = light.mirrored()
    if scene.backdrop == OWN_BACKDROP:
        backdrop = own_backdrop(reference, matrix, scene.lens, size)
    else:
        backdrop = draw_backdrop(scene.backdrop, _chance(seed, 3), scene.lens, size)
        backdrop = backdrop[:, ::-1] if chosen.mirrored else backdrop
    person = retouch(person, matte, mesh)
    person = relight(person, matte, mesh, light)
    joining = replace(joining, shadow_side=-light.side)
    return join(person, matte, np.ascontiguousarray(backdrop), joining), Sitter(matte, mesh)


def _chance(seed: int, purpose: int) -> np.random.Generator:
    """A stream of its own for each purpose, so that one more draw here moves nothing there."""
    return np.random.Generator(np.random.PCG64([seed, purpose]))


def _chance_of_takes(prompt: str, selfies: Sequence[Selfie]) -> np.random.Generator:
    """The same for every take of a prompt and person, whatever its seed: takes differ from each other."""
    told = " ".join((prompt, *(selfie.digest for selfie in selfies)))
    return _chance(int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big"), 1)


def _reference_for(turn: int, best_first: Sequence[Selfie]) -> Reference:
    """The selfie whose turn it is; the next one where cut edges of it would show, if that one hides them.

    Only those are cut out that are tried, as a rule one.
    """
    start = turn % len(best_first)
    in_turn = [*best_first[start:], *best_first[:start]]
    best = next((selfie for selfie in in_turn if _stands_free(selfie)), in_turn[0])
    return prepare(best)


def _stands_free(selfie: Selfie) -> bool:
    return _stand_free.recall(selfie.digest, lambda: hides_its_edges(prepare(selfie)))
