"""Captions of icons: the words of a name without the style words of its set."""

from __future__ import annotations

import re

from cbalign.data.datasets.official.icon_package import IconSet
from cbalign.data.datasets.official.icon_words import ALWAYS_STYLE, OFTEN_STYLE, TRIVIAL_CATEGORIES

# A style word ends so many names, of which such a share exists without it.
_FEW, _SHARE = 20, 0.6
# Drawings of one thing are numbered, home-1 and home-2, in sets in which such a share of the names ends so.
_NUMBERED, _NUMBERED_SHARE = re.compile("(-|[a-z]{4})0?[1-9]$"), 0.05
_PLURAL_EXCEPTIONS = ("ss", "us", "is")


class Namer:
    """Turns the names of one set's icons into captions."""

    def __init__(self, icon_set: IconSet):
        """Finds out which style words the set uses."""
        self._set = icon_set
        names = set(icon_set.icons)
        bases = {self._declared_off(name) for name in names}
        self._styles = ALWAYS_STYLE | {word for word in OFTEN_STYLE if _is_style(word, bases)}
        numbered = sum(bool(_NUMBERED.search(base)) for base in bases)
        self._numbered = numbered > _NUMBERED_SHARE * max(len(bases), 1)

    def caption(self, name: str) -> str:
        """The words of a name, lowercase, separated by spaces; "" if it has none."""
        words = self._styles_off(self._declared_off(name).split("-"))
        if words[0] == self._set.name and len(words) > 1:
            words = words[1:]
        if len(words) > 1 and re.fullmatch("[1-9]" if self._numbered else "0[1-9]", words[-1]):
            words = words[:-1]
        elif self._numbered and _NUMBERED.search(words[-1]):
            words = [*words[:-1], words[-1][:-1]]
        return " ".join(word for word in words if word)

    def captions(self, name: str) -> list[str]:
        """The distinct captions of an icon: its name, its aliases, and its name with its category."""
        main = self.caption(name)
        found = {main: None} if says_something(main) else {}
        for alias in self._set.aliases.get(name, ()):
            caption = self.caption(alias)
            if says_something(caption):
                found.setdefault(caption)
        first = next(iter(found), None)
        for title in self._set.categories.get(name, ()) if first else ():
            category = clean_category(title)
            if category and not set(category.split()) & set(first.split()):
                found.setdefault(f"{first}, {category}")
        return list(found)

    def _declared_off(self, name: str) -> str:
        for suffix in self._set.suffixes:
            if name.endswith(f"-{suffix}"):
                name = name.removesuffix(f"-{suffix}")
                break
        for prefix in self._set.prefixes:
            if name.startswith(f"{prefix}-"):
                return name.removeprefix(f"{prefix}-")
        return name

    def _styles_off(self, words: list[str]) -> list[str]:
        while len(words) > 1 and words[-1] in self._styles:
            words = words[:-1]
        return words


def _is_style(word: str, names: set[str]) -> bool:
    """Whether names that end in a word mostly exist without it, or with another style word in its place."""
    bases = [name.removesuffix(f"-{word}") for name in names if name.endswith(f"-{word}")]
    if len(bases) < _FEW:
        return False
    others = ALWAYS_STYLE | OFTEN_STYLE - {word}
    paired = sum(base in names or any(f"{base}-{other}" in names for other in others) for base in bases)
    return paired > _SHARE * len(bases)


def says_something(caption: str) -> bool:
    """Whether a caption has a word of two letters and is no code such as u1f60d."""
    return bool(re.search("[a-z]{2}", caption)) and not re.fullmatch("u?[0-9a-f]*[0-9][0-9a-f]*", caption)


def clean_category(title: str) -> str:
    """A category in lowercase words; "" where it says nothing."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", " ", title).replace("&", " and ").replace("/", " and ")
    words = re.sub("[^a-z0-9]+", " ", words.lower()).split()
    return "" if not words or len(words) > 4 or set(words) <= TRIVIAL_CATEGORIES else " ".join(words)


def concept_key(caption: str) -> str:
    """What names with the same meaning share: the words in any order, singular."""
    return " ".join(sorted(map(_singular, caption.split())))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(_PLURAL_EXCEPTIONS):
        return word.removesuffix("s")
    return word
