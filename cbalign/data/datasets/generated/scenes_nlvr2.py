"""TFDS builder of `scenes_nlvr2`: statements about two scenes, in the features of NLVR2.

Importing this module registers the data set: `tfds.load("scenes_nlvr2")`, `tfds.load("scenes_nlvr2/tiny")`, or any
other size with `tfds.builder("scenes_nlvr2", config=TaskConfig(sizes={"train": 500}))`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_statements import statement_blocks
from cbalign.data.datasets.generated.scene_table import in_rounds
from cbalign.data.datasets.generated.scene_task_builder import SceneTaskBuilder, variants


class ScenesNlvr2(SceneTaskBuilder):
    """One record per statement about two images; identifiers as in NLVR2: split-block-pair-sentence."""

    BUILDER_CONFIGS = variants(
        "statements", {"train": 40_000, "val": 4_000, "test": 4_000}, {"train": 512, "val": 128, "test": 128}
    )
    SCHEMA = schema.image_pairs
    PURPOSE = 17
    DESCRIPTION = "True and false statements about two drawn scenes, balanced against guesses from one side."

    def records(self, images, split, rng, count) -> Iterator[dict]:
        """See `SceneTaskBuilder.records`."""
        for example in in_rounds(statement_blocks(images.table, rng), count):
            yield {
                "image_left": images.png(example.left),
                "image_right": images.png(example.right),
                "sentence": example.statement.text,
                "label": int(example.label),
                "identifier": f"{split}-{example.block}-{example.pair}-{example.sentence}",
            }
