"""TFDS builder of `scenes_vqa`: questions about scenes, in the features of VQA v2.

Importing this module registers the data set: `tfds.load("scenes_vqa")`, `tfds.load("scenes_vqa/tiny")`, or any
other size with `tfds.builder("scenes_vqa", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_questions import question_rounds
from cbalign.data.datasets.generated.scene_table import in_rounds
from cbalign.data.datasets.generated.scene_task_builder import SceneTaskBuilder, variants
from cbalign.data.datasets.generated.scenes import ID_STRIDE, SPLITS

# VQA v2 has ten answers per question.
ANNOTATORS = 10


class ScenesVqa(SceneTaskBuilder):
    """One record per question, with ten identical answers."""

    BUILDER_CONFIGS = variants(
        "questions", {"train": 60_000, "val": 5_000, "test": 5_000}, {"train": 512, "val": 128, "test": 128}
    )
    SCHEMA = schema.questions
    PURPOSE = 16
    DESCRIPTION = "Questions with answers about drawn scenes, balanced against guesses from one side alone."

    def records(self, images, split, rng, count) -> Iterator[dict]:
        """See `SceneTaskBuilder.records`."""
        first = SPLITS.index(split) * ID_STRIDE
        for index, (scene, question, answer) in enumerate(in_rounds(question_rounds(images.table, rng), count)):
            yield {
                "image": images.png(scene),
                "image_id": first + scene,
                "question_id": first + index,
                "question": question.text,
                "answers": [answer] * ANNOTATORS,
                "question_type": question.type,
                "answer_type": question.answer_type,
            }
