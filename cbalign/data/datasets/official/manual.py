"""Data sets made of files that people already have: what their builders have in common.

A builder reads the official annotation files of a folder, the manual folder, into rows: where the bytes of the
images lie, and the values of the other features. `shards.build` writes the rows as TFRecord files; TFDS's own
`download_and_prepare` does as well, but starts anew after an interruption.
"""

import collections
import dataclasses
import os
import pathlib
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.caption_files import Finder
from cbalign.data.image_files import BadImage, stored_bytes
from cbalign.errors import UserError

MISSING, EMPTY_FILE, NO_TEXT = "missing", "empty file", "no text"


class ImageFile(NamedTuple):
    """Where an image lies: `size` bytes from `offset` on in the file `path`, which may be a tar."""

    path: str
    size: int
    offset: int = 0

    def read(self) -> bytes:
        """Returns the bytes.

        Raises:
          BadImage: the file is gone or shorter than it was.
        """
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.offset)
                data = stream.read(self.size)
        except OSError as error:
            raise BadImage(MISSING) from error
        if len(data) < self.size or not data:
            raise BadImage(EMPTY_FILE if not self.size else "broken")
        return data


class Row(NamedTuple):
    """A record before its images are read.

    Attributes:
      images: those of the features that are images, in the order of the schema.
      values: of the other features, in the order of the schema.
    """

    images: tuple[ImageFile, ...]
    values: tuple


class Listing:
    """The rows of one split, and the account of those that cannot be used.

    Attributes:
      rows: the usable ones.
      left_out: reason to the names of the others.
    """

    def __init__(self):
        self.rows: list[Row] = []
        self.left_out: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, name: str, images: Sequence[ImageFile | None], texts: Iterable[str], values: tuple) -> None:
        """Adds a row, or counts it as left out.

        Args:
          name: for the account of what is left out.
          images: its images, None for one that is not found.
          texts: of which at least one must not be blank.
          values: as in `Row`.
        """
        if None in images:
            self.left_out[MISSING].append(name)
        elif not all(image.size for image in images):
            self.left_out[EMPTY_FILE].append(name)
        elif not any(text.strip() for text in texts):
            self.left_out[NO_TEXT].append(name)
        else:
            self.rows.append(Row(tuple(images), values))

    def add_captions(self, name: str, image: ImageFile | None, captions: Iterable[str], number: int) -> None:
        """Adds a row of `schema.captions`; blank and repeated captions are dropped."""
        kept = list(dict.fromkeys(caption for caption in map(str.strip, captions) if caption))
        self.add(name, [image], kept, (kept, number, name))

    @property
    def listed(self) -> int:
        """Rows in the official files."""
        return len(self.rows) + sum(map(len, self.left_out.values()))


@dataclasses.dataclass
class Contents:
    """What a manual folder holds of a data set.

    Attributes:
      splits: name of the split to its listing.
      notes: what a person should know, such as a split whose files are not there.
      side_files: name to text of files to be written beside the records.
    """

    splits: dict[str, Listing] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    side_files: dict[str, str] = dataclasses.field(default_factory=dict)


class Files:
    """A manual folder: finds annotation files by name and images by the paths the annotations give them."""

    def __init__(self, folder: str | os.PathLike):
        """Raises UserError if there is no such folder."""
        if "://" in os.fspath(folder):
            raise UserError(f"--manual-dir={folder} is no local folder: copy the files to this machine first")
        self.folder = pathlib.Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"the manual folder {folder} does not exist")
        self._finder = Finder(self.folder)
        self._found: dict[str, ImageFile | None] = {}

    def find(self, *names: str) -> pathlib.Path | None:
        """Returns the first of the files that lies in the folder, or at most three folders below, else None."""
        for name in names:
            for pattern in ("", "*/", "*/*/", "*/*/*/"):
                found = sorted(self.folder.glob(pattern + name))
                if found:
                    return found[0]
        return None

    def image(self, *written: str) -> ImageFile | None:
        """Returns the first of the images that is found as `Finder.find` does, else None."""
        for one in written:
            if one not in self._found:
                path = self._finder.find(one)
                self._found[one] = path and ImageFile(os.fspath(path), path.stat().st_size)
            if self._found[one]:
                return self._found[one]
        return None


class ManualBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders.

    Class attributes of a data set:
        SCHEMA: function of `schema` that gives the features.
        EXPECTED: split to the published number of records.
        INSTRUCTIONS: which files are needed, where they come from, and how they lie in the manual folder.
        SHUFFLE: whether rows are written in random order, so that any part of a split is a fair sample; not where
            the official order is as good as random and reading in it is faster.
    """

    SCHEMA: ClassVar[Callable[[], dict]]
    EXPECTED: ClassVar[dict[str, int]]
    INSTRUCTIONS: ClassVar[str]
    SHUFFLE: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs):
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.INSTRUCTIONS
        super().__init_subclass__(**kwargs)

    def read(self, files: Files) -> Contents:
        """Returns what the manual folder holds; a split without its official file is left out and noted.

        Raises:
          UserError: an official file is malformed.
        """
        raise NotImplementedError

    def contents(self, manual_dir: str | os.PathLike) -> Contents:
        """As `read`, of a folder.

        Raises:
          UserError: there is no such folder, it holds none of the official files, or one of them is malformed.
        """
        contents = self.read(Files(manual_dir))
        if not contents.splits:
            print(self.instructions(), file=sys.stderr)
            raise UserError(f"{manual_dir} holds none of the annotation files of {self.name}; they are listed above")
        return contents

    @classmethod
    def instructions(cls) -> str:
        """Which files are needed, where they come from, and how they are to lie in the manual folder."""
        return (
            f"{cls.name} is made of files that you have to fetch yourself and to put into one folder:\n\n"
            f"{textwrap.dedent(cls.INSTRUCTIONS).strip()}\n\n"
            f"Then: cbalign data build {cls.name} --manual-dir=FOLDER\n"
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
                yield key, record(names, row)
            except BadImage:
                continue


def feature_names(features: dict) -> tuple[list[str], list[str]]:
    """Returns the names of the features that are images, and those of the others, in the order of the schema."""
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    return images, [name for name in features if name not in images]


def record(names: tuple[list[str], list[str]], row: Row) -> dict:
    """Reads the images of a row and returns the record.

    Raises:
      BadImage: one of them cannot be used.
    """
    images = {name: stored_bytes(image.read()) for name, image in zip(names[0], row.images, strict=True)}
    return images | dict(zip(names[1], row.values, strict=True))


def texts_of(features: Callable[[], dict], row: Row) -> list[str]:
    """The captions, the question or the sentence of a row."""
    values = dict(zip(feature_names(features())[1], row.values, strict=True))
    if features is schema.captions:
        return values["captions"]
    return [values["question" if features is schema.questions else "sentence"]]
