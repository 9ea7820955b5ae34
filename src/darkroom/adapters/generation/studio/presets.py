"""From a prompt to a recipe: which scene, grade, light and framing its words ask for."""

import re
from dataclasses import dataclass, replace

import numpy as np

from darkroom.adapters.generation.studio.layout import framing_at
from darkroom.adapters.generation.studio.scenes import (
    CREATIVE,
    GENERIC,
    LIFESTYLE,
    PROFESSIONAL,
    SCENES,
    SIGNATURE,
    Scene,
)
from darkroom.adapters.generation.studio.takes import framing_after, turn_of

# Ways of making a picture come before places: "an oil painting of a beach" is a painting.
_ART_WORDS = (
    ("old_master", r"old[- ]masters?|rembrandt|caravaggio|baroque portrait|chiaroscuro"),
    ("watercolour", r"water[- ]?colou?rs?|aquarelle"),
    ("pencil", r"pencil|graphite (?:drawing|sketch)|charcoal (?:drawing|sketch)|hand[- ]drawn"),
    ("halftone", r"half[- ]?tone"),
    ("duotone", r"duo[- ]?tone"),
    ("poster", r"pop[- ]art|screen[- ]?print|(?:graphic|retro|vintage|art) poster|comic"),
    ("noir", r"(?:film|neo)[- ]noir|noir (?:film|portrait|interior|style|scene)"),
    ("oil_painting", r"oil (?:painting|portrait|paint)|painted in oils?|impressionis[tm]"),
)
# Named places, the particular before the general.
_PLACE_WORDS = (
    ("own", r"own (?:background|scene|surroundings|backdrop)|portrait mode|original background"),
    ("yacht_club", r"yacht club|marina|harbou?r|moored"),
    ("coast", r"yacht|rocky coast|sailing|sail ?boat|coastline|cliffs|coast\b"),
    ("paris_cafe", r"paris(?:ian)? (?:street )?cafe|cafe terrace|paris\b|bistro"),
    (
        "rooftop_night",
        r"rooftop[^.]{0,30}\bnight\b|night rooftop|city lights at night",
    ),
    ("rooftop", r"roof ?top|penthouse terrace"),
    ("rainy_city", r"rainy|rain\b|wet asphalt|umbrella"),
    ("golden_park", r"golden[- ]hour"),
    (
        "dawn_beach",
        r"(?:dawn|sunrise|daybreak)[^.]{0,30}(?:beach|shore|sea)|beach (?:at|by) (?:dawn|sunrise)",
    ),
    (
        "vintage_car",
        r"(?:vintage|classic|retro|old) (?:car|automobile|convertible|cadillac|mustang)",
    ),
    ("wine_cellar", r"wine cellar|cellar|winery|oak barrels"),
    ("fine_dining", r"fine[- ]dining|restaurant|candle-?lit|candlelight"),
    ("music_studio", r"(?:music|recording|sound) studio|mixing console"),
    ("art_studio", r"art(?:ist'?s?)? studio|painter'?s studio|atelier|easels?"),
    ("zen_garden", r"zen\b|bamboo|japanese garden|raked (?:pale )?sand"),
    ("foggy_bridge", r"fogg?y?\b[^.]{0,20}bridge|bridge|\bfog\b|mist(?:y)?\b"),
    ("running_track", r"running track|athletic|stadium|race ?track|sprint"),
    ("market", r"market|bazaar|fruit stall"),
    ("corner_office", r"corner office|executive office"),
    ("glass_lobby", r"glass lobby|lobby|atrium|glass (?:facade|building|city)"),
    (
        "library_wall",
        r"library wall|wall of books|bookshel(?:f|ves) (?:wall|behind)|wall of bookshelves",
    ),
    ("library", r"library|bookshel(?:f|ves)|bookshop"),
    (
        "window_wall",
        r"window[- ]light wall|window shadow|shadows of (?:window|panes)|plaster wall",
    ),
    (
        "navy_backdrop",
        r"navy (?:blue )?(?:back\w+|paper|studio|wall)|dark blue (?:back\w+|paper|wall)",
    ),
    ("white_studio", r"white (?:studio|back\w+|seamless|cyclorama|paper|wall)|high[- ]key"),
    ("grey_studio", r"gr[ea]y (?:studio|back\w+|paper|seamless|wall)"),
    ("charcoal_studio", r"(?:charcoal|black|dark) (?:studio|back\w+|paper|seamless)|low[- ]key"),
    ("beige_studio", r"(?:beige|cream|warm|sand) (?:studio|back\w+|paper|seamless|wall|canvas)"),
    ("soho_street", r"soho|new york|manhattan|brooklyn|fire escapes?|cast-iron"),
    ("autumn", r"autumn (?:avenue|alley|lane|street|park|walk|day)|maples?\b"),
    ("autumn_forest", r"autumn|fall (?:foliage|forest|leaves|colou?rs)"),
    ("alpine", r"alpine|alps|mountain (?:peak|ridge|top)|snow(?:y|capped)?\b|glacier|ski\b"),
    ("hike", r"hik(?:e|ing)\b|trail\b|mountains?\b|hills\b|forest|woods?land|wilderness"),
    ("kitchen", r"kitchen|cooking|baking"),
    (
        "home_window",
        r"(?:at|in the) home\b|home (?:by|window|interior)|living room|sofa|bedroom|cosy interior",
    ),
    ("office", r"office|meeting room|coworking|workplace|business interior"),
    ("cafe", r"cafe|coffee"),
    ("beach", r"beach|seaside|ocean|\bsea\b|shore"),
    ("park", r"\bpark\b|garden|lawn|meadow|outdoors?|nature"),
    ("neon", r"neon|cyberpunk|synthwave"),
    ("rooftop_night", r"city (?:at|by) night|night city|night ?life|at night|skyline"),
    ("street", r"street|town\b|alley|urban|city"),
    ("golden_park", r"sunset|backlit|sunlit field"),
)
# When nothing else is named: what the words say about the manner.
_MANNER_WORDS = (
    ("oil_painting", r"painting|painterly|brush ?strokes?"),
    ("pencil", r"sketch|drawing"),
    ("poster", r"poster"),
    ("neon", r"neon"),
    ("charcoal_studio", r"black and white|monochrome|dramatic|moody"),
    ("grey_studio", r"studio|headshot|passport|linkedin|corporate|business"),
    ("beige_studio", r"film\b|analog(?:ue)?|kodak|portra\b"),
)
_GRADE_WORDS = (
    ("mono", r"black[- ]and[- ]white|monochrome|b&w"),
    ("sepia", r"sepia|daguerreotype"),
    ("teal_orange", r"teal and orange|blockbuster"),
)
_FRAMING_WORDS = (
    ("half", r"half[- ]length|waist[- ]up|half[- ]body|three-quarter length|medium shot"),
    ("bust", r"bust (?:portrait|shot)|chest[- ]up|head[- ]and[- ]shoulders"),
    ("close", r"close(?:[- ]up)? portrait|close[- ]?up|head ?shot|tight (?:portrait|crop)"),
)
_LIGHT_NOUN = r"(?:light|sun|lamp|softbox|key|dish|source|daylight|window)"
_LIGHT_SIDE = re.compile(_LIGHT_NOUN + r"\b[^.]{0,60}?\bfrom the (?:\w+ ){0,2}?(left|right)\b")
_STRONG_LIGHT = re.compile(r"dramatic|chiaroscuro|hard light|low[- ]key|strong side light")
# Asked of the person, not of the picture: the studio cannot change these.
_BEYOND_US = re.compile(
    r"\b(?:suit|blazer|dress|jacket|coat|overcoat|sweater|shirt|tee|hoodie|apron|scarf|cardigan|"
    r"knitwear|tie|hat|sunglasses|headphones|umbrella|smil\w+|laugh\w*|walking|sitting|leaning|"
    r"holding|arms crossed|three-quarter view|low angle|high angle|full body|slightly below)\b"
)
_BY_STYLE = {
    "signature": SIGNATURE,
    "professional": PROFESSIONAL,
    "lifestyle": LIFESTYLE,
    "creative": CREATIVE,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be made. `mirrored` turns backdrop and light round together."""

    scene_key: str
    scene: Scene
    grade: str
    framing: str
    mirrored: bool
    ignored: tuple[str, ...]

    @property
    def name(self) -> str:
        """For the label, e.g. "alpine/clean/bust"."""
        return f"{self.scene_key}/{self.grade}/{self.framing}"


def plan(prompt: str, style_id: str, place: int, take: int, rng: np.random.Generator) -> Plan:
    """Choose the recipe for one take of a prompt of a style.

    Args:
        prompt: English words; the first match of the tables wins.
        style_id: decides only when the words decide nothing.
        place: the prompt's number in its style, for the style's list and the framing.
        take: how many photos of this prompt there are already: this one is to look another way.
        rng: chance for what the words leave open; the same one for every take, so that they can differ.
    """
    words = _plain(prompt)
    turn = turn_of(scene_key(words, style_id, place), take)
    key, scene = turn.scene, SCENES[turn.scene]
    grade = scene.grades[(int(rng.integers(len(scene.grades))) + turn.rounds) % len(scene.grades)]
    if scene.paint is None:
        grade = _first(_GRADE_WORDS, words) or grade
        if _STRONG_LIGHT.search(words):
            strong = replace(scene.light, strength=max(scene.light.strength, 0.6))
            scene = replace(scene, light=strong)
    mirrored = bool(rng.integers(2))
    wanted = _LIGHT_SIDE.search(words)
    if wanted and not scene.light.gels:
        mirrored = (wanted.group(1) == "left") != (scene.light.side < 0)
    if turn.rounds % 2:
        # The same scene again: its other side is worth more than the side that was asked for.
        mirrored = not mirrored
    framing = _first(_FRAMING_WORDS, words) or framing_at(place)
    return Plan(
        scene_key=key,
        scene=scene,
        grade=grade,
        framing=framing_after(framing, turn.framings),
        mirrored=mirrored,
        ignored=tuple(dict.fromkeys(_BEYOND_US.findall(words))),
    )


def scene_key(prompt: str, style_id: str, place: int) -> str:
    """The key of the scene for a prompt at its first take; never fails."""
    words = _plain(prompt)
    named = _first(_ART_WORDS, words) or _first(_PLACE_WORDS, words) or _first(_MANNER_WORDS, words)
    if named:
        return named
    choices = _BY_STYLE.get(style_id, GENERIC)
    return choices[place % len(choices)]


def _plain(prompt: str) -> str:
    return " ".join(prompt.lower().replace("é", "e").split())


def _first(table: tuple[tuple[str, str], ...], words: str) -> str | None:
    for key, pattern in table:
        if re.search(rf"\b(?:{pattern})", words):
            return key
    return None
