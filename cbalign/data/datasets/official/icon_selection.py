"""Which icons of the package belong to the data set, with their captions; the others are counted by reason."""

from __future__ import annotations

import collections
import dataclasses
import re

from cbalign.data.datasets import emoji
from cbalign.data.datasets.official.icon_captions import Namer, concept_key
from cbalign.data.datasets.official.icon_package import IconSet
from cbalign.data.datasets.official.icon_words import BRAND_WORDS, ORDINARY_BRANDS

EMOJI_CATEGORY = "Emoji"
EXCLUDED_EMOJI = {"twemoji": "Twtr", "emojione": "Joy"}
"""Emoji sets, by the beginning of their names, that are drawn by the vendors with which `emoji` is evaluated."""
_BRAND_CATEGORIES = ("Logos", "Programming")
# Sets whose names are codes of countries.
_CODED = frozenset(("circle-flags", "flag", "flagpack", "cif", "flag-icons"))
_BRAND_TITLE = re.compile(r"\b(brands?|logos?|brand logos?|social media|cryptocurrency)\b", re.IGNORECASE)
_UNSPECIFIC_LOGOS = ("arcticons", "selfhst", "thesvg", "token", "cryptocurrency", "cbi", "nonicons")
# So many makers of logos have a brand; a word that occurs in so many other names is none.
_MAKERS, _WORD_USES = 2, 40
_SKIN_TONE = re.compile(r"skin-tone|-tone-?[1-6]\b|-type-[1-6]\b|fitzpatrick")


@dataclasses.dataclass
class Icon:
    """One icon that belongs to the data set.

    Attributes:
      name: "SET/ICON".
      family: name of the family of its set, see `icon_splits`.
      captions: the first is its own name.
      keys: `concept_key` of each of its names, without the captions that have a category.
      is_emoji: whether its set is one of emoji.
    """

    name: str
    family: str
    captions: list[str]
    keys: tuple[str, ...]
    is_emoji: bool = False

    @property
    def key(self) -> str:
        """Its concept."""
        return self.keys[0]


@dataclasses.dataclass
class Selection:
    """The icons of a data set.

    Attributes:
      sets: those that are used.
      icons: those of sets that are no emoji.
      emoji: those of emoji sets.
      left_out: {reason: names}.
    """

    sets: list[IconSet] = dataclasses.field(default_factory=list)
    icons: list[Icon] = dataclasses.field(default_factory=list)
    emoji: list[Icon] = dataclasses.field(default_factory=list)
    left_out: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))


def select(sets: list[IconSet], families: dict[str, str]) -> Selection:
    """Selects the icons and makes their captions.

    Args:
      sets: of the package.
      families: {set: its family}.
    """
    selection = Selection()
    emoji_names = EmojiNames(sets)
    brands = brand_keys(sets)
    for icon_set in sets:
        reason = _whole_set(icon_set)
        if reason:
            selection.left_out[reason].extend(f"{icon_set.name}/{name}" for name in icon_set.icons)
            continue
        selection.left_out["hidden icon"].extend(f"{icon_set.name}/{name}" for name in icon_set.hidden)
        selection.left_out["alias that turns its icon"].extend(f"{icon_set.name}/{name}" for name in icon_set.turned)
        is_emoji, namer = icon_set.category == EMOJI_CATEGORY, Namer(icon_set)
        for name in icon_set.icons:
            captions = namer.captions(name)
            reason = _emoji_fault(name, emoji_names) if is_emoji else _fault(icon_set, name, captions, brands)
            if is_emoji and not reason:
                captions = emoji_names.captions(name) or captions
            if reason or not captions:
                selection.left_out[reason or "no word in its name"].append(f"{icon_set.name}/{name}")
                continue
            keys = tuple(dict.fromkeys(concept_key(caption) for caption in captions if is_emoji or "," not in caption))
            icon = Icon(f"{icon_set.name}/{name}", families[icon_set.name], captions, keys, is_emoji)
            (selection.emoji if is_emoji else selection.icons).append(icon)
        selection.sets.append(icon_set)
    return selection


def _whole_set(icon_set: IconSet) -> str:
    """Why a set is not used; "" if it is."""
    if icon_set.info.get("hidden"):
        return "hidden set"
    if icon_set.forbids_use:
        return "licence forbids commerce or derivatives"
    if icon_set.category in _BRAND_CATEGORIES:
        return "logos and brands" if icon_set.category == "Logos" else "programming icons"
    if icon_set.name in _CODED:
        return "flags named by country codes"
    if icon_set.category == EMOJI_CATEGORY and icon_set.name.startswith(tuple(EXCLUDED_EMOJI)):
        return "emoji of a vendor held out by the data set emoji"
    return ""


def _fault(icon_set: IconSet, name: str, captions: list[str], brands: set[str]) -> str:
    if _SKIN_TONE.search(name):
        return "skin tone"
    if any(_BRAND_TITLE.search(title) for title in icon_set.categories.get(name, ())):
        return "logos and brands"
    words = set(name.split("-"))
    if words & BRAND_WORDS or (captions and concept_key(captions[0]) in brands):
        return "logos and brands"
    return ""


def brand_keys(sets: list[IconSet]) -> set[str]:
    """Concepts that are brands: several makers of logos have them, and they are no words of other names.

    Collections of the icons of apps, servers and coins do not count: their names are often ordinary words.
    """
    makers, uses = collections.defaultdict(set), collections.defaultdict(set)
    for icon_set in sets:
        namer, is_brand = Namer(icon_set), icon_set.category == "Logos"
        if is_brand and icon_set.name.startswith(_UNSPECIFIC_LOGOS):
            continue
        for name in icon_set.icons:
            key = concept_key(namer.caption(name))
            if is_brand:
                makers[key].add(icon_set.author)
            elif not _whole_set(icon_set):
                for word in set(key.split()):
                    uses[word].add(key)
    words = {concept_key(phrase) for phrases in emoji.all_phrases().values() for phrase in phrases}
    words |= {word for word, keys in uses.items() if len(keys) >= _WORD_USES}
    return {key for key, by in makers.items() if len(by) >= _MAKERS and key not in words | ORDINARY_BRANDS}


class EmojiNames:
    """Which emoji the icons of emoji sets show.

    An icon is found by the code points that any set gives for its name, else by its name among those of the package
    emoji; spaces and punctuation do not count.
    """

    def __init__(self, sets: list[IconSet]):
        """Reads names, and the images of the data set `emoji` to find the concepts it holds out."""
        self._concepts: dict[str, set[str]] = collections.defaultdict(set)
        for concept, phrases in emoji.all_phrases().items():
            for phrase in phrases:
                self._concepts[emoji.letters(phrase)].add(concept)
        self._coded: dict[str, set[str]] = collections.defaultdict(set)
        for icon_set in sets:
            for points, name in icon_set.code_points.items():
                concept = emoji.parse_concept(points.upper())
                self._coded[emoji.letters(name)].add(concept)
        held_out = emoji.held_out_concepts()
        self._held_out = held_out
        self._held_out_names = {emoji.letters(phrase) for concept in held_out for phrase in emoji.phrases(concept)} | {
            name for name, concepts in self._coded.items() if concepts & held_out
        }

    def concepts(self, name: str) -> set[str]:
        """The emoji that an icon may show; several where its name is ambiguous."""
        letters = emoji.letters(name)
        return self._coded.get(letters) or self._concepts.get(letters) or set()

    def is_held_out(self, name: str) -> bool:
        """Whether an icon may show a concept that `emoji` holds out."""
        letters = emoji.letters(name)
        known = self._coded.get(letters, set()) | self._concepts.get(letters, set())
        return letters in self._held_out_names or bool(known & self._held_out)

    def captions(self, name: str) -> list[str]:
        """The captions that the data set `emoji` gives to what an icon shows; none if that is not known for sure."""
        known = [concept for concept in self.concepts(name) if concept in emoji.all_phrases()]
        return emoji.phrases(known[0]) if len(known) == 1 else []


def _emoji_fault(name: str, names: EmojiNames) -> str:
    if _SKIN_TONE.search(name) or any(emoji.has_skin_tone(concept) for concept in names.concepts(name)):
        return "skin tone"
    if names.is_held_out(name):
        return "emoji concept held out by the data set emoji"
    return ""
