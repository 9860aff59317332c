"""TFDS builder of `icons`: some 250,000 icons with names, rendered from the npm package @iconify/json.

`icons` holds the sets that are no emoji, `icons/emoji` those of emoji, at 64 pixels; `icons/96px` and
`icons/emoji_96px` are the same at another size. `icon_splits` describes the splits; `icon_selection` says what is left
out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections import Counter

import tensorflow_datasets as tfds

from cbalign.data.datasets import emoji, schema
from cbalign.data.datasets.official import icon_splits
from cbalign.data.datasets.official.icon_captions import concept_key
from cbalign.data.datasets.official.icon_package import find_package, package_version, read_sets
from cbalign.data.datasets.official.icon_rendering import render_sets
from cbalign.data.datasets.official.icon_selection import Selection, select
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import ImageFile, OfficialFiles

SIZES = (64, 32, 48, 96, 128, 160, 192, 224, 256, 384)
LICENCES, REPORT = "licences.tsv", "icons_report.json"
_EXAMPLES = 5


@dataclasses.dataclass
class IconsConfig(tfds.core.BuilderConfig):
    """A variant.

    Attributes:
      size: side of the images in pixels.
      emoji: whether it holds the emoji sets instead of the others.
    """

    size: int = 64
    emoji: bool = False


def _config_name(size: int, is_emoji: bool) -> str:
    """64 px, the default, goes without saying for emoji."""
    pixels = f"{size}px"
    return ("emoji" if size == SIZES[0] else f"emoji_{pixels}") if is_emoji else pixels


def _features() -> dict:
    return schema.captions() | {"group": tfds.features.Text()}


class Icons(OfficialBuilder):
    """Icons with the words of their names, in many styles; whole styles and concepts are held out for evaluation."""

    name = "icons"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        IconsConfig(name=_config_name(size, is_emoji), size=size, emoji=is_emoji)
        for size in SIZES
        for is_emoji in (False, True)
    ]
    SCHEMA = _features
    EXPECTED = {}
    INSTRUCTIONS = """
    the npm package @iconify/json (100 MB), with its folder json and collections.json
        npm pack @iconify/json, unpacked with tar -xzf iconify-json-*.tgz
        or npm install @iconify/json, which places it in node_modules
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`; renders the images."""
        package = find_package(files.folder)
        if package is None:
            return Contents()
        config = self.builder_config
        sets, unlisted = read_sets(package)
        print(f"{len(sets)} sets of icons, version {package_version(package)}", flush=True)
        selection = select(sets, icon_splits.families(sets))
        images, failed = render_sets(selection.sets, self._cache(), size=config.size, workers=files.workers)
        taken = {concept_key(phrase) for phrases in emoji.all_phrases().values() for phrase in phrases}
        splits, emoji_train, dropped = icon_splits.assign(selection.icons, selection.emoji, images, taken)
        if config.emoji:
            splits = {"train": emoji_train}
        reasons = {**selection.left_out, **failed, **dropped}
        reasons = {reason: names for reason, names in reasons.items() if names}
        report = {
            "package": package_version(package),
            "unlisted": unlisted,
            "left_out": {
                reason: {"icons": len(names), "such as": names[:_EXAMPLES]} for reason, names in reasons.items()
            },
        }
        notes = [f"left out {len(names):>9,} icons: {reason} (such as {names[0]})" for reason, names in reasons.items()]
        if unlisted:
            notes.append(f"left out the sets that the package does not list: {', '.join(unlisted)}")
        return Contents(
            splits={split: _rows(examples, split) for split, examples in splits.items()},
            notes=notes,
            side_files={
                LICENCES: _licences(selection, splits),
                REPORT: json.dumps(report, indent=1, ensure_ascii=False),
            },
        )

    def clean_up(self) -> None:
        """Removes the rendered images once both variants of their size are built."""
        config = self.builder_config
        versions = pathlib.Path(self.data_path).parent.parent
        other = _config_name(config.size, not config.emoji)
        if (versions / other / str(self.version)).exists():
            shutil.rmtree(self._cache(), ignore_errors=True)
        else:
            print(f"{self._cache()} is kept until icons/{other} is built from it, and may be removed", flush=True)

    def _cache(self) -> pathlib.Path:
        return pathlib.Path(self.data_path).parent.parent / f"rendered_{self.builder_config.size}px"


def _rows(examples: list[icon_splits.Example], split: str) -> SplitRows:
    rows = SplitRows()
    # In an evaluation split a caption names one image.
    uses = Counter(concept_key(caption) for example in examples for caption in set(example.captions))
    for example in examples:
        captions = example.captions
        if split != "train":
            captions = [captions[0], *(other for other in captions[1:] if uses[concept_key(other)] == 1)]
        image = example.image
        file = ImageFile(image.file, image.size, image.offset)
        group = "color" if image.color else "mono"
        number = _number(example.icon.key)
        rows.add(example.icon.name, [file], captions, (captions, number, example.icon.name, group))
    return rows


def _number(key: str) -> int:
    """The id of a concept: the same in every split, variant and version of the package."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1


def _licences(selection: Selection, splits: dict[str, list[icon_splits.Example]]) -> str:
    """A table of the sets with images in the data set: name, title, author, licence, links, number of images."""
    counts = Counter(example.icon.name.split("/")[0] for examples in splits.values() for example in examples)
    lines = ["set\ttitle\tauthor\tlicence\turl of the author\turl of the licence\timages"]
    for icon_set in selection.sets:
        if counts[icon_set.name]:
            author, licence = icon_set.info.get("author", {}), icon_set.info.get("license", {})
            values = (
                icon_set.name,
                icon_set.info.get("name", ""),
                icon_set.author,
                icon_set.licence,
                author.get("url", ""),
                licence.get("url", ""),
                counts[icon_set.name],
            )
            lines.append("\t".join(str(value) for value in values))
    return "\n".join(lines)
