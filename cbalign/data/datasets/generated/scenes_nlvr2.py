"""TFDS builder of `scenes_nlvr2`: statements about two scenes, in the features of NLVR2.

Importing this module registers the data set: `tfds.load("scenes_nlvr2")`, `tfds.load("scenes_nlvr2/tiny")`, or any
other size with `tfds.builder("scenes_nlvr2", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_statements import statement_blocks
from cbalign.data.datasets.generated.scene_table import SplitImages, TaskConfig, in_rounds, tiny_scenes
from cbalign.data.datasets.generated.scenes import SPLITS

_PURPOSE = 17


class ScenesNlvr2(tfds.core.GeneratorBasedBuilder):
    """One record per statement about two images; identifiers as in NLVR2: split-block-pair-sentence."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Of the scenes of version 1.1.0."}
    BUILDER_CONFIGS = [
        TaskConfig(
            name="default",
            description="40,000 statements to train on, 48 px",
            sizes={"train": 40_000, "val": 4_000, "test": 4_000},
        ),
        TaskConfig(
            name="tiny",
            description="A few hundred statements for tests, 32 px",
            sizes={"train": 512, "val": 128, "test": 128},
            scenes=tiny_scenes(),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="True and false statements about two drawn scenes, balanced against guesses from one side.",
            features=tfds.features.FeaturesDict(schema.image_pairs()),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split) for split in reversed(SPLITS) if sizes.get(split, 0)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        images = SplitImages(config.scenes, split)
        blocks = statement_blocks(images.table, config.generator(split, _PURPOSE))
        for index, example in enumerate(in_rounds(blocks, config.sizes[split])):
            yield (
                index,
                {
                    "image_left": images.png(example.left),
                    "image_right": images.png(example.right),
                    "sentence": example.statement.text,
                    "label": int(example.label),
                    "identifier": f"{split}-{example.block}-{example.pair}-{example.sentence}",
                },
            )
