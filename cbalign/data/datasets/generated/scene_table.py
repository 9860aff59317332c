"""Scenes as arrays, which allow a phrase to be looked up in all of them at once, and code shared by the scene tasks.

The tasks use the images of `scenes`: the same scenes in the same splits, from the same generators. A model is therefore
never tested on an image that it was pretrained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cbalign.data.datasets.generated.scene_captions import Phrase
from cbalign.data.datasets.generated.scene_world import CELLS, COLOURS, GROUNDS, KINDS, RADII, TEXTURES, Scene
from cbalign.data.datasets.generated.scenes import SPLITS, SceneConfig, draw_image, split_scenes
from cbalign.data.image_files import to_png

# The words of each attribute; a `SceneTable` stores indices into these tuples.
WORDS = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "size": tuple(RADII),
    "cell": CELLS,
    "texture": TEXTURES,
    "ground": tuple(GROUNDS),
}
NOTHING = -1

# For each relation, the quarters of its first shape and the quarters of its second shape; see `Scene.related`.
_SIDES = {
    "left of": ((0, 2), (1, 3)),
    "right of": ((1, 3), (0, 2)),
    "above": ((0, 1), (2, 3)),
    "below": ((2, 3), (0, 1)),
}


class SceneTable:
    """The shapes of n scenes, by quarter.

    Attributes:
      kind, colour, size, cell: int8 [n, 4], column q for quarter `CELLS[q]`: index of the word in `WORDS`, or
        `NOTHING` if the quarter is empty.
      texture, ground: int8 [n].
    """

    def __init__(self, scenes: list[Scene]):
        shapes = {
            name: np.full((len(scenes), len(CELLS)), NOTHING, np.int8) for name in ("kind", "colour", "size", "cell")
        }
        for i, scene in enumerate(scenes):
            for shape in scene.objects:
                quarter = CELLS.index(shape.cell)
                for name, column in shapes.items():
                    column[i, quarter] = WORDS[name].index(getattr(shape, name))
        self.kind, self.colour, self.size, self.cell = (shapes[name] for name in ("kind", "colour", "size", "cell"))
        self.texture = np.array([TEXTURES.index(scene.texture) for scene in scenes], np.int8)
        self.ground = np.array([WORDS["ground"].index(scene.ground) for scene in scenes], np.int8)

    def __len__(self) -> int:
        return len(self.texture)

    def take(self, scenes: np.ndarray) -> SceneTable:
        """The table of the scenes with the given indices; repetitions are allowed."""
        taken = SceneTable([])
        for name in WORDS:
            setattr(taken, name, getattr(self, name)[scenes])
        return taken

    def matches(self, phrase: Phrase) -> np.ndarray:
        """Bool [n, 4]: the shapes that have all attributes of a phrase; its count is ignored."""
        found = self.kind != NOTHING
        for name in ("kind", "colour", "size", "cell"):
            if (word := getattr(phrase, name)) is not None:
                found = found & (getattr(self, name) == WORDS[name].index(word))
        return found

    def count(self, phrase: Phrase) -> np.ndarray:
        """Int [n]: the number of matching shapes."""
        return self.matches(phrase).sum(axis=1)

    def attribute(self, name: str, shape: np.ndarray) -> np.ndarray:
        """int8 [n]: the index of the attribute's word for the single shape marked in `shape` bool [n, 4].

        `NOTHING` unless exactly one shape is marked.
        """
        value = np.max(np.where(shape, getattr(self, name), NOTHING), axis=1)
        return np.where(shape.sum(axis=1) == 1, value, NOTHING).astype(np.int8)

    def in_relation(self, relation: str, shape: np.ndarray) -> np.ndarray:
        """Bool [n, 4]: the shapes that are in `relation` to a shape marked in `shape` bool [n, 4]."""
        here, there = _SIDES[relation]
        found = np.zeros(shape.shape, bool)
        found[:, here] = shape[:, there].any(axis=1, keepdims=True)
        return found & (self.kind != NOTHING)


def the(phrase: Phrase) -> str:
    """The phrase for a particular shape, such as "the large red circle"."""
    return f"the {phrase.text(article=False)}"


def plural(phrase: Phrase) -> str:
    """The phrase in the plural without a number, such as "red crosses"."""
    # A phrase with count 2 reads "two red crosses".
    return dataclasses.replace(phrase, count=2).text(article=False).removeprefix("two ")


def phrases(*fields: str) -> list[Phrase]:
    """All phrases that specify exactly these attributes."""
    found = [Phrase()]
    for field in fields:
        found = [dataclasses.replace(phrase, **{field: word}) for phrase in found for word in WORDS[field]]
    return found


@dataclasses.dataclass(eq=False, kw_only=True)
class TaskConfig(tfds.core.BuilderConfig):
    """Size of a task's data set, and the scenes that it uses.

    Attributes:
      name: Folder of the data set; derived from the other fields if empty.
      sizes: Number of examples of each split: "train", "val", "test"; empty splits are not built.
      scenes: The `scenes` data set whose images are used; each split uses the scenes of the same split.

    Raises:
      ValueError: If a split has examples but no scenes.
    """

    name: str = ""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    scenes: SceneConfig = dataclasses.field(default_factory=lambda: SceneConfig(name="default"))

    def __post_init__(self):
        for split, count in self.sizes.items():
            if split not in SPLITS or count < 0:
                raise ValueError(f"sizes are {dict(self.sizes)}; expected counts of {', '.join(SPLITS)}")
            if count and not self.scenes.sizes.get(split):
                raise ValueError(f"{count} examples of {split} need scenes of that split; there are none")
        if not self.name:
            counts = "_".join(f"{split}{self.sizes.get(split, 0)}" for split in reversed(SPLITS))
            self.name = f"{counts}_of_{self.scenes.name}"

    def generator(self, split: str, purpose: int) -> np.random.Generator:
        """Generator for the choices of one split; `purpose` makes it independent of those of scenes and other tasks."""
        return np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([self.scenes.seed, SPLITS.index(split), purpose]))
        )


def tiny_scenes() -> SceneConfig:
    """The scenes of `scenes/tiny`."""
    return SceneConfig(name="tiny", sizes={"train": 256, "val": 64, "test": 64}, px=32)


class SplitImages:
    """The scenes of one split and their images, each rendered and encoded once."""

    def __init__(self, config: SceneConfig, split: str):
        self.config, self.split = config, split
        self.scenes = list(split_scenes(config, split))
        self.table = SceneTable(self.scenes)
        self._encoded: dict[int, bytes] = {}

    def png(self, index: int) -> bytes:
        """The image of a scene, with the pixels of the `scenes` record of that index."""
        if index not in self._encoded:
            image = draw_image(self.config, self.split, index, self.scenes[index])
            self._encoded[index] = to_png(Image.fromarray(image))
        return self._encoded[index]


def in_rounds(blocks: Iterator[list], count: int) -> Iterator:
    """The first `count` examples of a sequence of balanced blocks; the last block may be truncated."""
    made = 0
    for block in blocks:
        yield from block[: count - made]
        made += len(block)
        if made >= count:
            return
