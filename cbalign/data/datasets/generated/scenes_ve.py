"""TFDS builder of `scenes_ve`: hypotheses about scenes, in the features of SNLI-VE.

Importing this module registers the data set: `tfds.load("scenes_ve")`, `tfds.load("scenes_ve/tiny")`, or any other
size with `tfds.builder("scenes_ve", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_entailment import entailment_blocks
from cbalign.data.datasets.generated.scene_table import SplitImages, TaskConfig, in_rounds, tiny_scenes
from cbalign.data.datasets.generated.scenes import SPLITS

_PURPOSE = 18


class ScenesVe(tfds.core.GeneratorBasedBuilder):
    """One record per hypothesis about an image; `scene_entailment` defines the classes."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Of the scenes of version 1.1.0."}
    BUILDER_CONFIGS = [
        TaskConfig(
            name="default",
            description="36,000 hypotheses to train on, 48 px",
            sizes={"train": 36_000, "val": 4_500, "test": 4_500},
        ),
        TaskConfig(
            name="tiny",
            description="A few hundred hypotheses for tests, 32 px",
            sizes={"train": 450, "val": 90, "test": 90},
            scenes=tiny_scenes(),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Hypotheses about drawn scenes in three classes, balanced against guesses from one side alone.",
            features=tfds.features.FeaturesDict(schema.entailment()),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split) for split in reversed(SPLITS) if sizes.get(split, 0)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        images = SplitImages(config.scenes, split)
        blocks = entailment_blocks(images.table, config.generator(split, _PURPOSE))
        for index, (scene, hypothesis, label) in enumerate(in_rounds(blocks, config.sizes[split])):
            yield (
                index,
                {
                    "image": images.png(scene),
                    "image_id": f"{split}-{scene:06d}",
                    "sentence": hypothesis.text,
                    "label": label,
                    "pair_id": f"{split}-{index:06d}",
                },
            )
