"""TFDS builder of `scenes`: images of coloured shapes with five captions each, generated from a seed.

Importing this module registers the data set: `tfds.load("scenes")`, `tfds.load("scenes/tiny")`, or any other size with
`tfds.builder("scenes", config=SceneConfig(sizes={"train": 500, "val": 50, "test": 50}, px=32, seed=7))`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from cbalign.data.datasets.generated.scene_captions import CAPTIONS_PER_SCENE, captioned_claims
from cbalign.data.datasets.generated.scene_world import Scene, draw_scene, sample_scene

# Repeated scenes are avoided in this order, so that the test scenes do not depend on the sizes of the other splits.
SPLITS = ("test", "val", "train")
ID_STRIDE = 1_000_000_000
_SCENE, _CAPTIONS, _IMAGE = range(3)


@dataclasses.dataclass(eq=False, kw_only=True)
class SceneConfig(tfds.core.BuilderConfig):
    """Size and seed of a `scenes` data set.

    Attributes:
      sizes: Number of scenes of each split: "train", "val", "test"; absent or empty splits are not built.
      px: Side of the images in pixels, at least 16.
      seed: Non-negative seed of all randomness.
      name: Folder of the data set; derived from the other fields if empty, so that no two configs share a folder.

    Raises:
      ValueError: If a split is unknown, a number is out of range, or there is no scene at all.
    """

    name: str = ""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"train": 20_000, "val": 1_000, "test": 1_000})
    px: int = 48
    seed: int = 0

    def __post_init__(self):
        unknown = set(self.sizes) - set(SPLITS)
        if unknown:
            raise ValueError(f"unknown splits {sorted(unknown)}; expected some of {', '.join(SPLITS)}")
        if min(self.sizes.values(), default=0) < 0 or not any(self.sizes.values()):
            raise ValueError(f"sizes are {dict(self.sizes)}; expected counts, not all of them 0")
        if max(self.sizes.values()) >= ID_STRIDE:
            raise ValueError(f"sizes are {dict(self.sizes)}; a split holds fewer than {ID_STRIDE} scenes")
        if self.px < 16 or self.seed < 0:
            raise ValueError(f"px is {self.px} and seed {self.seed}; expected px >= 16 and seed >= 0")
        if not self.name:
            counts = "_".join(f"{split}{self.sizes.get(split, 0)}" for split in reversed(SPLITS))
            self.name = f"px{self.px}_{counts}_seed{self.seed}"


def _generator(config: SceneConfig, split: str, index: int, purpose: int, attempt: int = 0) -> np.random.Generator:
    """Generator for one purpose of one scene: its draws are independent of other scenes and purposes."""
    key = [config.seed, SPLITS.index(split), index, purpose, attempt]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def split_scenes(config: SceneConfig, split: str) -> Iterator[Scene]:
    """Scenes of a split, in order.

    No two scenes of a data set have the same description, across all splits: a scene with the description of an earlier
    one is resampled. Test scenes come first, then val, then train. A scene thus depends on its own index and, in the
    rare case of a repetition, on earlier scenes, and a longer split starts with the scenes of a shorter one.

    Args:
      config: Sizes and seed.
      split: "train", "val" or "test".

    Yields:
      As many scenes as the split has.
    """
    seen: set[str] = set()
    for current in SPLITS[: SPLITS.index(split) + 1]:
        for index in range(config.sizes.get(current, 0)):
            attempt = 0
            while (scene := sample_scene(_generator(config, current, index, _SCENE, attempt))).description() in seen:
                attempt += 1
            seen.add(scene.description())
            if current == split:
                yield scene


def draw_image(config: SceneConfig, split: str, index: int, scene: Scene) -> np.ndarray:
    """The image of one scene of a split: uint8 [px, px, 3]."""
    return draw_scene(scene, config.px, _generator(config, split, index, _IMAGE))


def scene_record(config: SceneConfig, split: str, index: int, scene: Scene) -> dict:
    """Record of one scene, in the features of :class:`Scenes`."""
    captions = [text for _, text in captioned_claims(scene, _generator(config, split, index, _CAPTIONS))]
    return {
        "image": draw_image(config, split, index, scene),
        "captions": captions,
        "id": SPLITS.index(split) * ID_STRIDE + index,
        "name": f"{split}-{index:06d}",
        "scene": scene.to_json(),
    }


def split_claims(config: SceneConfig, split: str) -> Iterator[tuple[Scene, list[tuple]]]:
    """Each scene of a split with the five (claim, caption) pairs behind its record's captions."""
    for index, scene in enumerate(split_scenes(config, split)):
        yield scene, captioned_claims(scene, _generator(config, split, index, _CAPTIONS))


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Coloured shapes on grounds, with captions and the scene itself as JSON (:meth:`Scene.from_json`)."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Larger shapes, no diamonds, captions that tell places."}
    BUILDER_CONFIGS = [
        SceneConfig(name="default", description="20,000 scenes to train on, 48 px"),
        SceneConfig(
            name="tiny",
            description="A few hundred scenes for tests, 32 px",
            sizes={"train": 256, "val": 64, "test": 64},
            px=32,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=f"Drawn scenes of one to four coloured shapes, {CAPTIONS_PER_SCENE} captions each.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "id": np.int64,
                    "name": tfds.features.Text(),
                    "scene": tfds.features.Text(),
                }
            ),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split) for split in reversed(SPLITS) if sizes.get(split, 0)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        for index, scene in enumerate(split_scenes(config, split)):
            yield index, scene_record(config, split, index, scene)
