"""Base of the builders of data sets whose official files the user downloads.

A builder reads the official annotation files into rows: the locations of the images, and the values of the other
features. `shards.build` writes the rows as TFRecord files and can resume after an interruption; TFDS's own
`download_and_prepare` produces the same records but starts over.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.official_files import EMPTY_FILE, MISSING, ImageFile, OfficialFiles
from cbalign.data.image_files import BadImage, stored_bytes
from cbalign.errors import UserError

NO_TEXT = "no text"


class Row(NamedTuple):
    """A record whose images have not been read yet.

    Attributes:
      images: of the image features, in the order of the schema.
      values: of the other features, in the order of the schema.
    """

    images: tuple[ImageFile, ...]
    values: tuple


class SplitRows:
    """The rows of one split.

    Attributes:
      rows: the usable ones.
      skipped: {reason: names of the records that cannot be used}.
    """

    def __init__(self):
        self.rows: list[Row] = []
        self.skipped: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, name: str, images: Sequence[ImageFile | None], texts: Iterable[str], values: tuple) -> None:
        """Adds a row, or skips the record where an image is missing or empty or all texts are blank.

        Args:
          name: of the record, for reports.
          images: None for an image that was not found.
          texts: at least one must not be blank.
          values: see `Row`.
        """
        if None in images:
            self.skipped[MISSING].append(name)
        elif not all(image.size for image in images):
            self.skipped[EMPTY_FILE].append(name)
        elif not any(text.strip() for text in texts):
            self.skipped[NO_TEXT].append(name)
        else:
            self.rows.append(Row(tuple(images), values))

    def add_captions(self, name: str, image: ImageFile | None, captions: Iterable[str], number: int) -> None:
        """Adds a row of `schema.captions`; blank and repeated captions are dropped."""
        kept = list(dict.fromkeys(caption for caption in map(str.strip, captions) if caption))
        self.add(name, [image], kept, (kept, number, name))

    @property
    def listed(self) -> int:
        """Number of records in the official files."""
        return len(self.rows) + sum(map(len, self.skipped.values()))


@dataclasses.dataclass
class Contents:
    """What a folder of official files holds of a data set.

    Attributes:
      splits: {split: its rows}.
      notes: remarks for the user, such as a split without its annotation file.
      side_files: {name: text} of files to write beside the records.
    """

    splits: dict[str, SplitRows] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    side_files: dict[str, str] = dataclasses.field(default_factory=dict)


class OfficialBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders.

    Class attributes of a data set:
        SCHEMA: function of `schema` that returns the features.
        EXPECTED: {split: published number of records}.
        EXPECTED_TEXTS: {split: published number of captions, rounded}, where it depends on more than the records.
        INSTRUCTIONS: which files are needed, where to get them, and where to put them.
        SHUFFLE: whether rows are written in random order, which makes any part of a split a fair sample; False where
            the official order is already random and reading in that order is faster.
    """

    SCHEMA: ClassVar[Callable[[], dict]]
    EXPECTED: ClassVar[dict[str, int]]
    EXPECTED_TEXTS: ClassVar[dict[str, int]] = {}
    INSTRUCTIONS: ClassVar[str]
    SHUFFLE: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs):
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.INSTRUCTIONS
        super().__init_subclass__(**kwargs)

    @abc.abstractmethod
    def read(self, files: OfficialFiles) -> Contents:
        """Reads the annotation files; a split without its file is omitted and noted.

        Raises:
          UserError: an official file is malformed.
        """

    def contents(self, manual_dir: str | os.PathLike) -> Contents:
        """Reads the annotation files of a folder, see `read`.

        Raises:
          UserError: the folder does not exist, it holds none of the official files, or one of them is malformed.
        """
        contents = self.read(OfficialFiles(manual_dir))
        if not contents.splits:
            print(self.instructions(), file=sys.stderr)
            raise UserError(f"{manual_dir} holds none of the annotation files of {self.name}; they are listed above")
        return contents

    @classmethod
    def instructions(cls) -> str:
        """Which files are needed, where to get them, and where to put them."""
        return (
            f"{cls.name} is built from files that you download and put into one folder:\n\n"
            f"{textwrap.dedent(cls.INSTRUCTIONS).strip()}\n\n"
            f"Then run: cbalign data build {cls.name} --manual-dir=FOLDER\n"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__, features=tfds.features.FeaturesDict(type(self).SCHEMA()), supervised_keys=None
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        splits = self.contents(dl_manager.manual_dir).splits
        return {split: self._generate_examples(listing.rows) for split, listing in splits.items()}

    def _generate_examples(self, rows: list[Row]) -> Iterator[tuple[int, dict]]:
        names = feature_names(type(self).SCHEMA())
        for key, row in enumerate(rows):
            try:
                yield key, read_record(names, row)
            except BadImage:
                continue


def feature_names(features: dict) -> tuple[list[str], list[str]]:
    """(names of the image features, names of the other features), in the order of the schema."""
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    return images, [name for name in features if name not in images]


def read_record(names: tuple[list[str], list[str]], row: Row) -> dict:
    """The record of a row, with its images read from disk.

    Args:
      names: from `feature_names`.
      row: of the data set.

    Raises:
      BadImage: one of the images cannot be used.
    """
    images = {name: stored_bytes(image.read()) for name, image in zip(names[0], row.images, strict=True)}
    return images | dict(zip(names[1], row.values, strict=True))


def row_texts(features: Callable[[], dict], row: Row) -> list[str]:
    """The captions, the question or the sentence of a row."""
    values = dict(zip(feature_names(features())[1], row.values, strict=True))
    if features is schema.captions:
        return values["captions"]
    return [values["question" if features is schema.questions else "sentence"]]
