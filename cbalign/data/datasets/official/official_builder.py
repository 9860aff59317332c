"""Base of the builders of data sets whose official files the user downloads.

A builder reads the official annotation files into rows: the locations of the images, and the values of the other
features. `shard_writer.write_shards` writes the rows as TFRecord files and can resume after an interruption; TFDS's own
`download_and_prepare` produces the same records but starts over.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.caption_values import EMPTY, NOT_TEXT, is_valid, texts_in
from cbalign.data.datasets.official.official_files import EMPTY_FILE, MISSING, ImageFile, OfficialFiles
from cbalign.data.image_files import BadImage
from cbalign.data.stored_images import stored_bytes
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
      left_out: {reason: names of records with values among their captions that are none}.
    """

    def __init__(self):
        self.rows: list[Row] = []
        self.skipped: dict[str, list[str]] = collections.defaultdict(list)
        self.left_out: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, name: str, images: Sequence[ImageFile | None], texts: Sequence, values: tuple) -> None:
        """Adds a row, or skips the record where an image is missing or empty or all texts are blank, or no texts.

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
        elif not all(isinstance(text, str) and is_valid(text) for text in texts):
            self.skipped[NOT_TEXT].append(name)
        elif not any(text.strip() for text in texts):
            self.skipped[NO_TEXT].append(name)
        else:
            self.rows.append(Row(tuple(images), values))

    def add_captions(self, name: str, image: ImageFile | None, captions: Any, number: int) -> None:
        """Adds a row of `schema.captions`; repeated captions, and what is no caption, are dropped.

        Args:
          name: of the record, unique.
          image: None where it was not found.
          captions: see `caption_values.texts_in`.
          number: the id.
        """
        texts = texts_in(captions)
        kept = list(dict.fromkeys(texts.found))
        reasons = [fault.partition(" (")[0] for fault in texts.faults]
        if not kept and image is not None and image.size and any(reason != EMPTY for reason in reasons):
            self.skipped[next(reason for reason in reasons if reason != EMPTY)].append(name)
            return
        for reason in reasons if kept else ():
            self.left_out[reason].append(name)
        # File names need not be valid text, features must be.
        valid = name.encode(errors="backslashreplace").decode()
        self.add(name, [image], kept, (kept, number, valid))

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

    def contents(self, manual_dir: str | os.PathLike, workers: int = 1) -> Contents:
        """Reads the annotation files of a folder, see `read`.

        Args:
          manual_dir: the folder.
          workers: number of processes, for a builder that renders its images.

        Raises:
          UserError: the folder does not exist, it holds none of the official files, or one of them is malformed.
        """
        files = OfficialFiles(manual_dir, workers)
        contents = self.read(files)
        contents.notes += files.notes()
        _leave_out_absent(contents)
        contents.notes += [
            f"{split}: {len(names):,} texts left out: {reason} (such as of {names[0]})"
            for split, rows in contents.splits.items()
            for reason, names in sorted(rows.left_out.items())
        ]
        if not contents.splits:
            print(self.instructions(), file=sys.stderr)
            raise UserError(f"{manual_dir} holds none of the annotation files of {self.name}; they are listed above")
        return contents

    def clean_up(self) -> None:
        """Removes what building the data set left elsewhere; called once it is complete."""

    @property
    def full_name(self) -> str:
        """The name by which it is opened, with that of its variant unless that is the default."""
        variants = type(self).BUILDER_CONFIGS
        if not variants or self.builder_config.name == variants[0].name:
            return self.name
        return f"{self.name}/{self.builder_config.name}"

    def instructions(self) -> str:
        """Which files are needed, where to get them, and where to put them."""
        return (
            f"{self.full_name} is built from files that you download and put into one folder:\n\n"
            f"{textwrap.dedent(self.INSTRUCTIONS).strip()}\n\n"
            f"Then run: cbalign data build {self.full_name} --manual-dir=FOLDER\n"
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


def _leave_out_absent(contents: Contents) -> None:
    """Leaves out splits none of whose images is there, where another split has some."""
    absent = [split for split, rows in contents.splits.items() if not rows.rows and rows.skipped.get(MISSING)]
    if len(absent) == len(contents.splits):
        return
    for split in absent:
        listed = len(contents.splits.pop(split).skipped[MISSING])
        contents.notes.append(f"none of the images of {listed:,} records is there: the split {split} is not built")


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
    if "captions" in values:
        return values["captions"]
    return [values["question" if features is schema.questions else "sentence"]]
