"""TFDS builder of `scenes_ve`: hypotheses about scenes, in the features of SNLI-VE.

Importing this module registers the data set: `tfds.load("scenes_ve")`, `tfds.load("scenes_ve/tiny")`, or any
other size with `tfds.builder("scenes_ve", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_entailment import entailment_blocks
from cbalign.data.datasets.generated.scene_table import in_rounds
from cbalign.data.datasets.generated.scene_task_builder import SceneTaskBuilder, variants


class ScenesVe(SceneTaskBuilder):
    """One record per hypothesis about an image; `scene_entailment` defines the classes."""

    BUILDER_CONFIGS = variants(
        "hypotheses", {"train": 36_000, "val": 4_500, "test": 4_500}, {"train": 450, "val": 90, "test": 90}
    )
    SCHEMA = schema.entailment
    PURPOSE = 18
    DESCRIPTION = "Hypotheses about drawn scenes in three classes, balanced against guesses from one side alone."

    def records(self, images, split, rng, count) -> Iterator[dict]:
        """See `SceneTaskBuilder.records`."""
        for index, (scene, hypothesis, label) in enumerate(in_rounds(entailment_blocks(images.table, rng), count)):
            yield {
                "image": images.png(scene),
                "image_id": f"{split}-{scene:06d}",
                "sentence": hypothesis.text,
                "label": label,
                "pair_id": f"{split}-{index:06d}",
            }
