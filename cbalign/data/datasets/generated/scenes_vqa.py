"""TFDS builder of `scenes_vqa`: questions about scenes, in the features of VQA v2.

Importing this module registers the data set: `tfds.load("scenes_vqa")`, `tfds.load("scenes_vqa/tiny")`, or any other
size with `tfds.builder("scenes_vqa", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_questions import question_rounds
from cbalign.data.datasets.generated.scene_table import SplitImages, TaskConfig, in_rounds, tiny_scenes
from cbalign.data.datasets.generated.scenes import ID_STRIDE, SPLITS

# VQA v2 has ten answers per question.
ANNOTATORS = 10
_PURPOSE = 16


class ScenesVqa(tfds.core.GeneratorBasedBuilder):
    """One record per question, with ten identical answers."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Of the scenes of version 1.1.0."}
    BUILDER_CONFIGS = [
        TaskConfig(
            name="default",
            description="60,000 questions to train on, 48 px",
            sizes={"train": 60_000, "val": 5_000, "test": 5_000},
        ),
        TaskConfig(
            name="tiny",
            description="A few hundred questions for tests, 32 px",
            sizes={"train": 512, "val": 128, "test": 128},
            scenes=tiny_scenes(),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Questions with answers about drawn scenes, balanced against guesses from one side alone.",
            features=tfds.features.FeaturesDict(schema.questions()),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split) for split in reversed(SPLITS) if sizes.get(split, 0)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        images = SplitImages(config.scenes, split)
        rounds = question_rounds(images.table, config.generator(split, _PURPOSE))
        first = SPLITS.index(split) * ID_STRIDE
        for index, (scene, question, answer) in enumerate(in_rounds(rounds, config.sizes[split])):
            yield (
                index,
                {
                    "image": images.png(scene),
                    "image_id": first + scene,
                    "question_id": first + index,
                    "question": question.text,
                    "answers": [answer] * ANNOTATORS,
                    "question_type": question.type,
                    "answer_type": question.answer_type,
                },
            )
