"""How a photo differs from the others of the same prompt: another place, then another framing and light."""

from dataclasses import dataclass

from darkroom.adapters.generation.studio.layout import FRAMINGS_IN_TURN

# Scenes that keep what a prompt asks for, where it is shown again. Within one style no scene stands in the
# rings of two prompts, and none is another prompt's own: so no photo looks like one of another prompt either.
_SIBLINGS = {
    "white_studio": ("cream_studio",),
    "grey_studio": ("charcoal_studio",),
    "navy_backdrop": ("brown_studio",),
    "window_wall": ("beige_studio",),
    "corner_office": ("office",),
    "library_wall": ("library",),
    "glass_lobby": ("rooftop",),
    "cafe": ("paris_cafe", "fine_dining"),
    "home_window": ("window_wall",),
    "park": ("golden_park", "hike"),
    "beach": ("dawn_beach", "coast"),
    "street": ("soho_street", "rainy_city"),
    "autumn": ("autumn_forest",),
    "rooftop_night": ("rooftop",),
    "paris_cafe": ("cafe",),
    "soho_street": ("street",),
    "golden_park": ("park",),
    "dawn_beach": ("beach",),
    "library": ("library_wall",),
    "rooftop": ("rooftop_night",),
    "autumn_forest": ("autumn",),
    "office": ("corner_office",),
    "oil_painting": ("oil_garden",),
    "watercolour": ("watercolour_hills",),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """`scene` for this take; `framings` to go on by; `rounds` that the scene was had before."""

    scene: str
    framings: int
    rounds: int


def ring(scene: str) -> tuple[str, ...]:
    """The scene and those that may stand for it, in the order of the takes."""
    return (scene, *_SIBLINGS.get(scene, ()))


def turn_of(scene: str, take: int) -> Turn:
    """What take `take` of a prompt shows. Of `3 * len(ring)` takes no two have scene and framing in common."""
    scenes = ring(scene)
    rounds, place = divmod(take, len(scenes))
    # A ring of three and three framings turn together: one more at each round takes them apart.
    apart = rounds if len(scenes) % len(FRAMINGS_IN_TURN) == 0 else 0
    return Turn(scenes[place], take + apart, rounds)


def framing_after(framing: str, steps: int) -> str:
    """The framing so many steps further."""
    start = FRAMINGS_IN_TURN.index(framing)
    return FRAMINGS_IN_TURN[(start + steps) % len(FRAMINGS_IN_TURN)]
