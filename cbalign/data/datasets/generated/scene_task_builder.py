"""What the builders of questions, statements and hypotheses about drawn scenes share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from cbalign.data.datasets.generated.scene_table import SplitImages, TaskConfig, tiny_scenes
from cbalign.data.datasets.generated.scenes import SPLITS


def variants(what: str, sizes: dict[str, int], tiny: dict[str, int]) -> list[TaskConfig]:
    """The two variants of a data set: `default` at 48 pixels, and `tiny` at 32 for tests."""
    return [
        TaskConfig(name="default", description=f"{sizes['train']:,} {what} to train on, 48 px", sizes=sizes),
        TaskConfig(name="tiny", description=f"A few hundred {what} for tests, 32 px", sizes=tiny, scenes=tiny_scenes()),
    ]


class SceneTaskBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders.

    Class attributes of a data set:
        SCHEMA: function of `schema` that returns the features.
        PURPOSE: of the random numbers, distinct among the data sets.
        DESCRIPTION: a sentence for TFDS.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Of the scenes of version 1.1.0."}
    SCHEMA: ClassVar[Callable[[], dict]]
    PURPOSE: ClassVar[int]
    DESCRIPTION: ClassVar[str]

    @abc.abstractmethod
    def records(self, images: SplitImages, split: str, rng: Any, count: int) -> Iterator[dict]:
        """The records of a split.

        Args:
          images: the split's scenes.
          split: its name.
          rng: numpy generator of this data set and split.
          count: how many.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.DESCRIPTION, features=tfds.features.FeaturesDict(type(self).SCHEMA()), supervised_keys=None
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split) for split in reversed(SPLITS) if sizes.get(split, 0)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        images, count = SplitImages(config.scenes, split), config.sizes[split]
        yield from enumerate(self.records(images, split, config.generator(split, self.PURPOSE), count))
