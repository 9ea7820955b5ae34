"""What a scene is made of: a backdrop, a lens, a light, a way to join and the grades it suits."""

from dataclasses import dataclass

from darkroom.adapters.generation.studio.composite import Joining
from darkroom.adapters.generation.studio.relight import Light

OWN_BACKDROP = "own"


_EVEN_LIGHT = Light()
_EVEN_JOINING = Joining()


@dataclass(frozen=True, slots=True)
class Scene:
    """One recipe. `lens` is the blur of the backdrop in pixels of its sketch."""

    backdrop: str
    grades: tuple[str, ...]
    lens: float = 7.5
    light: Light = _EVEN_LIGHT
    joining: Joining = _EVEN_JOINING
    paint: str | None = None


_WARM, _AMBER, _COOL, _SKY = (
    (1.0, 0.86, 0.66),
    (1.0, 0.72, 0.42),
    (0.78, 0.9, 1.0),
    (0.9, 0.96, 1.0),
)
_WARM_KEY, _COOL_KEY = (1.05, 0.99, 0.93), (0.97, 1.0, 1.04)
_PAPER = Joining(tint=0.14, wrap=0.2, shadow=0.22)
_OUTDOORS = Joining(tint=0.2, wrap=0.4)
_BACKLIT = Joining(tint=0.26, wrap=0.75)
_INDOORS = Joining(tint=0.22, wrap=0.35)
_DIM = Joining(tint=0.28, wrap=0.3)

_STUDIO = {
    "white_studio": Scene(
        "paper_white", ("high_key", "clean"), 1.0, Light(strength=0.25), Joining(0.12, 0.4, 0.10)
    ),
    "grey_studio": Scene(
        "paper_grey", ("clean", "crisp"), 2.0, Light(strength=0.35, rim=0.3), _PAPER
    ),
    "charcoal_studio": Scene(
        "paper_charcoal", ("crisp", "moody"), 2.0, Light(strength=0.5, rim=0.45, tint=_SKY), _PAPER
    ),
    "navy_backdrop": Scene(
        "paper_navy", ("crisp", "clean"), 2.0, Light(strength=0.4, rim=0.4, tint=_COOL), _PAPER
    ),
    "beige_studio": Scene("paper_beige", ("warm_film", "matte"), 2.0, Light(strength=0.3), _PAPER),
    "cream_studio": Scene(
        "paper_cream", ("matte", "clean"), 1.5, Light(strength=0.3), Joining(0.12, 0.3, 0.14)
    ),
    "brown_studio": Scene(
        "paper_brown", ("warm_film", "crisp"), 2.0, Light(strength=0.4, rim=0.4, tint=_WARM), _PAPER
    ),
    "window_wall": Scene(
        "window_wall",
        ("matte", "warm_film"),
        3.0,
        Light(strength=0.45, key_tint=_WARM_KEY),
        Joining(0.2, 0.3, 0.25),
    ),
    "own": Scene(
        OWN_BACKDROP, ("clean", "warm_film"), 8.0, Light(strength=0.14), Joining(0.0, 0.2)
    ),
}
_OUTSIDE = {
    "alpine": Scene(
        "alpine", ("clean", "crisp"), 6.5, Light(strength=0.3, rim=0.35, tint=_SKY), _OUTDOORS
    ),
    "coast": Scene("coast", ("crisp", "clean"), 6.5, Light(strength=0.28, rim=0.4), _OUTDOORS),
    "soho_street": Scene(
        "soho_street",
        ("teal_orange", "warm_film"),
        7.0,
        Light(strength=0.32, rim=0.6, tint=_WARM),
        _OUTDOORS,
    ),
    "golden_park": Scene(
        "golden_park",
        ("golden",),
        9.0,
        Light(side=1.0, strength=0.25, rim=1.2, tint=_AMBER, key_tint=_WARM_KEY),
        _BACKLIT,
    ),
    "dawn_beach": Scene(
        "dawn_beach",
        ("matte", "warm_film"),
        7.0,
        Light(side=1.0, strength=0.26, rim=0.7, tint=_WARM, key_tint=(1.03, 0.99, 0.97)),
        _BACKLIT,
    ),
    "rooftop": Scene(
        "rooftop", ("teal_orange", "matte"), 6.5, Light(strength=0.35, rim=0.5, tint=_AMBER), _DIM
    ),
    "vintage_car": Scene(
        "vintage_car",
        ("warm_film", "golden"),
        6.5,
        Light(strength=0.28, rim=0.8, tint=_AMBER, key_tint=_WARM_KEY),
        _BACKLIT,
    ),
    "autumn_forest": Scene(
        "autumn_forest", ("warm_film",), 9.0, Light(strength=0.28, rim=0.6, tint=_WARM), _OUTDOORS
    ),
    "foggy_bridge": Scene(
        "foggy_bridge",
        ("matte", "moody"),
        5.0,
        Light(strength=0.18, rim=0.35, tint=_COOL, key_tint=_COOL_KEY),
        Joining(0.32, 0.6),
    ),
    "running_track": Scene(
        "running_track", ("crisp",), 7.0, Light(strength=0.28, rim=0.8), _OUTDOORS
    ),
    "zen_garden": Scene(
        "zen_garden", ("matte", "clean"), 7.5, Light(strength=0.22, height=0.6), _OUTDOORS
    ),
    "hike": Scene("hike", ("clean", "crisp"), 8.0, Light(strength=0.25, rim=0.3), _OUTDOORS),
    "rainy_city": Scene(
        "rainy_city",
        ("teal_orange", "moody"),
        8.0,
        Light(strength=0.42, rim=0.6, tint=(0.5, 0.9, 1.0), key_tint=_WARM_KEY),
        _DIM,
    ),
    "yacht_club": Scene(
        "yacht_club", ("crisp", "clean"), 6.5, Light(strength=0.3, rim=0.4), _OUTDOORS
    ),
    "park": Scene("park", ("clean", "warm_film"), 8.5, Light(strength=0.24, rim=0.4), _OUTDOORS),
    "beach": Scene(
        "beach", ("crisp", "clean"), 7.0, Light(strength=0.24, height=0.6, rim=0.4), _OUTDOORS
    ),
    "street": Scene(
        "town_street",
        ("warm_film", "clean"),
        7.5,
        Light(strength=0.3, rim=0.4, tint=_WARM),
        _OUTDOORS,
    ),
    "autumn": Scene(
        "autumn_avenue",
        ("warm_film", "golden"),
        9.5,
        Light(strength=0.24, rim=0.8, tint=_WARM),
        _BACKLIT,
    ),
    "rooftop_night": Scene(
        "rooftop_night",
        ("teal_orange", "moody"),
        9.0,
        Light(strength=0.42, rim=0.7, tint=(0.6, 0.72, 1.0), key_tint=_WARM_KEY),
        _DIM,
    ),
}
_INSIDE = {
    "paris_cafe": Scene(
        "paris_cafe",
        ("matte", "warm_film"),
        6.5,
        Light(strength=0.3, rim=0.3, tint=_WARM),
        _INDOORS,
    ),
    "library": Scene(
        "library",
        ("moody", "warm_film"),
        6.5,
        Light(strength=0.42, rim=0.4, tint=_AMBER, key_tint=_WARM_KEY),
        _DIM,
    ),
    "art_studio": Scene(
        "art_studio",
        ("clean", "matte"),
        6.5,
        Light(strength=0.3, height=0.65, rim=0.3, tint=_SKY, key_tint=_COOL_KEY),
        _INDOORS,
    ),
    "office": Scene(
        "office", ("clean", "crisp"), 7.0, Light(strength=0.28, rim=0.3, tint=_SKY), _INDOORS
    ),
    "market": Scene(
        "market",
        ("warm_film", "clean"),
        8.0,
        Light(strength=0.26, rim=0.3, tint=_WARM, key_tint=_WARM_KEY),
        _INDOORS,
    ),
    "kitchen": Scene(
        "kitchen", ("high_key", "clean"), 6.5, Light(strength=0.28, rim=0.3), _INDOORS
    ),
    "music_studio": Scene(
        "music_studio",
        ("moody", "teal_orange"),
        6.5,
        Light(strength=0.42, rim=0.9, tint=(0.45, 0.8, 1.0), key_tint=_WARM_KEY),
        _DIM,
    ),
    "fine_dining": Scene(
        "fine_dining",
        ("warm_film", "moody"),
        7.0,
        Light(strength=0.42, rim=0.5, tint=_AMBER, key_tint=_WARM_KEY),
        _DIM,
    ),
    "wine_cellar": Scene(
        "wine_cellar",
        ("moody", "warm_film"),
        6.5,
        Light(strength=0.5, rim=0.5, tint=_AMBER, key_tint=_WARM_KEY),
        _DIM,
    ),
    "corner_office": Scene(
        "corner_office", ("clean", "crisp"), 6.5, Light(strength=0.28, rim=0.4, tint=_SKY), _INDOORS
    ),
    "library_wall": Scene(
        "library_wall",
        ("clean", "warm_film"),
        6.5,
        Light(strength=0.3, rim=0.25, tint=_WARM),
        _INDOORS,
    ),
    "glass_lobby": Scene(
        "glass_lobby",
        ("clean", "high_key"),
        7.5,
        Light(strength=0.24, rim=0.4, tint=_SKY),
        _BACKLIT,
    ),
    "cafe": Scene(
        "cafe", ("warm_film", "matte"), 7.5, Light(strength=0.32, rim=0.4, tint=_AMBER), _INDOORS
    ),
    "home_window": Scene("home_window", ("matte", "high_key"), 7.0, Light(strength=0.34), _INDOORS),
}
_ART = {
    "oil_painting": Scene(
        "umber", ("oil",), 3.0, Light(strength=0.5, rim=0.2, tint=_WARM), Joining(0.25, 0.2), "oil"
    ),
    "watercolour": Scene(
        "paper_cream",
        ("watercolour",),
        3.0,
        Light(strength=0.3),
        Joining(0.08, 0.15),
        "watercolour",
    ),
    "oil_garden": Scene(
        "park", ("oil",), 6.0, Light(strength=0.4, rim=0.3, tint=_WARM), Joining(0.25, 0.2), "oil"
    ),
    "watercolour_hills": Scene(
        "hike", ("watercolour",), 6.0, Light(strength=0.3), Joining(0.1, 0.15), "watercolour"
    ),
    "pencil": Scene(
        "paper_white", ("pencil",), 2.0, Light(strength=0.4), Joining(0.0, 0.0), "pencil"
    ),
    "poster": Scene(
        "paper_white",
        ("lemon", "cyan", "pink"),
        2.0,
        Light(strength=0.5),
        Joining(0.0, 0.0),
        "poster",
    ),
    "halftone": Scene(
        "paper_white", ("halftone",), 2.0, Light(strength=0.65), Joining(0.0, 0.0), "halftone"
    ),
    "duotone": Scene(
        "paper_grey", ("duotone",), 2.0, Light(strength=0.45, rim=0.3), Joining(0.0, 0.2), "duotone"
    ),
    "noir": Scene(
        "blinds",
        ("noir",),
        2.5,
        Light(strength=0.65, height=0.6, rim=0.5),
        Joining(0.0, 0.1),
        "noir",
    ),
    "old_master": Scene(
        "paper_brown",
        ("old_master",),
        2.0,
        Light(strength=0.62, height=0.6, key_tint=_WARM_KEY),
        Joining(0.25, 0.05),
        "old_master",
    ),
    "neon": Scene("tubes", ("neon",), 7.0, Light(gels=True), Joining(0.0, 0.25), "neon"),
}

SCENES: dict[str, Scene] = {**_STUDIO, **_OUTSIDE, **_INSIDE, **_ART}
SIGNATURE = (
    "alpine",
    "coast",
    "paris_cafe",
    "soho_street",
    "golden_park",
    "dawn_beach",
    "library",
    "rooftop",
    "vintage_car",
    "art_studio",
    "autumn_forest",
    "office",
    "market",
    "foggy_bridge",
    "running_track",
    "kitchen",
    "music_studio",
    "zen_garden",
    "fine_dining",
    "hike",
    "rainy_city",
    "wine_cellar",
    "yacht_club",
)
PROFESSIONAL = (
    "white_studio",
    "grey_studio",
    "corner_office",
    "library_wall",
    "window_wall",
    "navy_backdrop",
    "glass_lobby",
)
LIFESTYLE = (
    "cafe",
    "home_window",
    "park",
    "own",
    "beach",
    "street",
    "kitchen",
    "autumn",
    "rooftop_night",
)
CREATIVE = (
    "oil_painting",
    "watercolour",
    "pencil",
    "poster",
    "halftone",
    "duotone",
    "noir",
    "old_master",
    "neon",
)
GENERIC = ("grey_studio", "window_wall", "own", "park", "office", "beige_studio", "charcoal_studio")
