"""Splits of the icons: families of sets and concepts are held out, and no image is on two sides.

    train                           families that are not held out, concepts that are not held out
    val_style_mono, _color          unseen families, seen concepts        test_style_mono, _color
    val_concept                     seen families, unseen concepts        test_concept

A concept is the words of a name, in any order, singular. An evaluation split has each concept once.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable

from cbalign.data.datasets.official.icon_captions import concept_key
from cbalign.data.datasets.official.icon_package import IconSet
from cbalign.data.datasets.official.icon_rendering import Rendered
from cbalign.data.datasets.official.icon_selection import Icon

STYLE_FAMILIES = {
    "val": ("glyphs", "marketeq", "meteocons", "bi", "teenyicons", "lsicon"),
    "test": ("icon-park", "flat-color-icons", "iconoir", "pepicons", "gravity-ui"),
}
"""Families that are held out for validation and for testing."""
HELD_OUT = {"val": 150, "test": 300}
"""Number of concepts that are held out everywhere."""
SPLIT_SIZE = 2000
"""Most images of an evaluation split."""
SPLITS = ("train", *(f"{side}_{kind}" for side in ("val", "test") for kind in ("style_mono", "style_color", "concept")))
# A held-out concept is drawn by so many families: enough to be a concept, few enough to be no loss.
_FAMILIES_OF_CONCEPT = (3, 12)

# Sets that are versions or parts of one another, beside those that have the same author.
_RELATED = (
    ("material-symbols", "material-symbols-light", "ic", "mdi", "mdi-light", "memory", "zmdi", "noto", "noto-v1"),
    ("feather", "lucide", "lucide-lab"),
    ("ion", "famicons"),
    ("heroicons", "heroicons-outline", "heroicons-solid", "sidekickicons"),
    ("fa", "fa-solid", "fa6-solid", "fa7-solid", "la"),
    ("solar", "reicon"),
    ("wordpress", "dashicons", "gridicons"),
    ("maki", "temaki", "pinhead", "osmic", "roentgen", "map"),
    ("boxicons", "bx", "bxs", "bxl"),
)
# Sets in another style than the others of their authors.
_APART = ("flat-color-icons",)


def families(sets: Iterable[IconSet]) -> dict[str, str]:
    """{set: its family}: sets by one author and sets that are related are one family, named after one of them."""
    sets = list(sets)
    parent = {icon_set.name: icon_set.name for icon_set in sets}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    def join(names: list[str]) -> None:
        for name in names[1:]:
            parent[root(name)] = root(names[0])

    by_author = collections.defaultdict(list)
    for icon_set in sets:
        if icon_set.name not in _APART and icon_set.author:
            by_author[icon_set.author].append(icon_set.name)
    for names in by_author.values():
        join(names)
    for names in _RELATED:
        join([name for name in names if name in parent])
    members = collections.defaultdict(list)
    for name in parent:
        members[root(name)].append(name)
    held_out = {family for group in STYLE_FAMILIES.values() for family in group}
    size = {icon_set.name: len(icon_set.icons) for icon_set in sets}
    found = {}
    for group in members.values():
        # Named as in `STYLE_FAMILIES`, else after its largest set.
        title = min(group, key=lambda name: (name not in held_out, -size[name], name))
        found.update(dict.fromkeys(group, title))
    return found


@dataclasses.dataclass
class Example:
    """One record: an image with the captions of all icons that look like it."""

    icon: Icon
    image: Rendered
    captions: list[str]
    keys: tuple[str, ...]


def assign(
    icons: list[Icon], emoji: list[Icon], images: dict[str, Rendered], taken: set[str]
) -> tuple[dict[str, list[Example]], list[Example], dict[str, list[str]]]:
    """Assigns images to splits.

    Args:
      icons: of sets that are no emoji.
      emoji: of emoji sets.
      images: {name: image}; icons without one are skipped.
      taken: concepts that cannot be held out, since other sources of a mixture show them.

    Returns:
      {split: its records}, the records of emoji sets (all for training), and {reason: names} of those left out.
    """
    left_out = collections.defaultdict(list)
    side_of = {family: side for side, group in STYLE_FAMILIES.items() for family in group}
    held_out = choose_concepts([icon for icon in icons if icon.family not in side_of], taken)
    groups = collections.defaultdict(list)
    for icon in [*icons, *emoji]:
        if icon.name in images:
            groups[images[icon.name].digest].append(icon)
    pools = {split: [] for split in ("train", "emoji", *SPLITS[1:])}
    for group in groups.values():
        pool, chosen = _pool(group, held_out, side_of, images)
        left_out["same image as another icon"].extend(icon.name for icon in group if icon is not chosen)
        if not pool:
            left_out["shows a held-out concept in a held-out or emoji style"].append(chosen.name)
            continue
        # The names that a held-out family gives to a trained image are no captions of it.
        merged = [icon for icon in group if side_of.get(icon.family) == side_of.get(chosen.family)]
        captions = list(dict.fromkeys([*chosen.captions, *(c for icon in merged for c in icon.captions)]))
        keys = tuple(dict.fromkeys([*chosen.keys, *(key for icon in merged for key in icon.keys)]))
        pools[pool].append(Example(chosen, images[chosen.name], captions, keys))
    seen = {example.icon.key for example in pools["train"]}
    splits = {"train": pools["train"]}
    for split in SPLITS[1:]:
        known = [example for example in pools[split] if "concept" in split or example.icon.key in seen]
        splits[split] = one_of_each(known, SPLIT_SIZE)
        kept = {example.icon.name for example in splits[split]}
        left_out[f"of what {split} holds out, but not needed"].extend(
            example.icon.name for example in pools[split] if example.icon.name not in kept
        )
    return splits, pools["emoji"], left_out


def choose_concepts(icons: list[Icon], taken: set[str]) -> dict[str, str]:
    """{concept: "val" or "test"}: those with the smallest digests among the concepts that several families draw.

    Args:
      icons: of families that are not held out.
      taken: see `assign`.
    """
    drawn, spelled = collections.defaultdict(set), collections.defaultdict(set)
    for icon in icons:
        drawn[icon.key].add(icon.family)
        for caption in icon.captions:
            spelled[caption.replace(" ", "")].add(concept_key(caption))
    # "paper clip" cannot be held out where "paperclip" is trained on.
    ambiguous = {key for keys in spelled.values() if len(keys) > 1 for key in keys}
    excluded, (few, many) = taken | ambiguous, _FAMILIES_OF_CONCEPT
    ranked = sorted(
        (key for key, by in drawn.items() if few <= len(by) <= many and key not in excluded and _is_plain(key)),
        key=_rank,
    )
    test, val = HELD_OUT["test"], HELD_OUT["val"]
    return dict.fromkeys(ranked[:test], "test") | dict.fromkeys(ranked[test : test + val], "val")


def _is_plain(key: str) -> bool:
    words = key.split()
    return len(words) <= 3 and all(word.isalpha() and len(word) > 1 for word in words)


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _pool(group: list[Icon], held_out: dict[str, str], side_of: dict[str, str], images) -> tuple[str, Icon]:
    """Where an image belongs that all icons of a group have, and the icon that it is named after; "" for nowhere."""
    sides = {held_out[key] for icon in group for key in icon.keys if key in held_out}
    training = [icon for icon in group if icon.family not in side_of]
    if sides:
        side = "test" if "test" in sides else "val"
        # The image is named after the concept.
        named = [icon for icon in training if held_out.get(icon.key) == side]
        return (f"{side}_concept" if named else "", (named or group)[0])
    if training:
        chosen = training[0]
        return "emoji" if all(icon.is_emoji for icon in training) else "train", chosen
    side = "test" if any(side_of[icon.family] == "test" for icon in group) else "val"
    chosen = next(icon for icon in group if side_of[icon.family] == side)
    return f"{side}_style_{'color' if images[chosen.name].color else 'mono'}", chosen


def one_of_each(examples: list[Example], size: int) -> list[Example]:
    """At most `size` records with different concepts, taken from the sets in turn, in the order of their digests."""
    queues = collections.defaultdict(list)
    for example in sorted(examples, key=lambda example: _rank(example.icon.name), reverse=True):
        queues[example.icon.name.split("/")[0]].append(example)
    found, used = [], set()
    while queues and len(found) < size:
        for name in sorted(queues):
            queue = queues[name]
            while queue and queue[-1].icon.key in used:
                queue.pop()
            if not queue:
                del queues[name]
            elif len(found) < size:
                example = queue.pop()
                used.add(example.icon.key)
                found.append(example)
    return found
