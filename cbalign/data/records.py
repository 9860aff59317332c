"""The records of a split, of any kind: texts and numbers in memory, images read when they are needed.

Where images stay on disk, n records with c captions of L tokens take 50 n + (2 L + 8) c bytes, their captions and their
names: 1 GB in each process for five million pairs with 25 tokens, 60 letters of text and 20 of name.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from cbalign.data.datasets import catalogue
from cbalign.data.datasets.schema import ANSWER_LIST, KINDS, Kind
from cbalign.data.images import MemoryImages, StoredImages
from cbalign.data.mixtures import parse_mixture
from cbalign.data.sampling import Part
from cbalign.data.split_index import Column, SplitIndex, join, load_index, split_fingerprint
from cbalign.data.string_columns import StringLists, Strings
from cbalign.errors import UserError

MEMORY_LIMIT = 1 << 30
"""Splits of at most this many bytes have their images read into memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One source of a mixture: its name, the index of its split and the folder of its files."""

    name: str
    index: SplitIndex
    folder: epath.Path


@dataclasses.dataclass(eq=False)
class Records:
    """n records of one kind: a split, a slice or sum of splits, or a weighted mixture of those of several data sets.

    Attributes:
      kind: which features they have.
      texts: n lists of raw texts: the captions of a record, or its only question or sentence.
      columns: {feature: n values}, the features that are neither images nor the text: int64 arrays, strings, or lists
        of strings. "id" of captions is int32 and distinct over the data sets of a mixture.
      images: what reads the images.
      epoch_over: what an epoch passes over: "images", the records, each with one of its texts drawn; or "pairs", their
        texts, each with its image. They differ for captions alone.
      parts: the sources and how many records, or pairs, an epoch takes of each; by default one source, each once.
      sources: the same sources' files; none for records made in memory.
    """

    kind: Kind
    texts: Sequence[list[str]]
    columns: dict[str, Column | Sequence]
    images: MemoryImages | StoredImages
    epoch_over: str = "images"
    parts: tuple[Part, ...] = ()
    sources: tuple[Source, ...] = ()

    def __post_init__(self):
        self.parts = self.parts or _parts([len(self)], [1.0], self.text_offsets if self.over_pairs else None)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def over_pairs(self) -> bool:
        """Whether an epoch passes over the pairs of an image and a text."""
        return self.epoch_over == "pairs"

    @functools.cached_property
    def text_offsets(self) -> np.ndarray:
        """int64 [n + 1], where the texts of each record begin among all texts."""
        if isinstance(self.texts, StringLists):
            return self.texts.offsets - self.texts.offsets[0]
        return np.cumsum([0] + [len(group) for group in self.texts], dtype=np.int64)

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch: records or pairs, repetitions counted."""
        return sum(part.per_epoch for part in self.parts)

    def epoch_lines(self) -> list[str]:
        """What an epoch passes over, and the share of each source of a mixture, as lines for the log."""
        over = (
            f"{self.text_offsets[-1]:,} pairs of an image and a text" if self.over_pairs else "one text of each image"
        )
        lines = [f"an epoch: {self.epoch_size:,} samples ({over}; {len(self):,} records)"]
        if len(self.parts) == 1:
            return lines
        names = [source.name for source in self.sources] or [f"source {i}" for i in range(len(self.parts))]
        shares = (
            f"  {name:<40}{part.per_epoch:>12,} {part.per_epoch / self.epoch_size:>7.1%}"
            for name, part in zip(names, self.parts, strict=True)
        )
        return [*lines, *shares]

    @property
    def sides(self) -> int:
        """Images of a record."""
        return len(self.kind.images)

    @property
    def stored(self) -> bool:
        """Whether images are read from disk each time."""
        return isinstance(self.images, StoredImages)

    @property
    def names(self) -> Sequence[str]:
        """Names of the records, for messages."""
        names = self.columns[self.kind.identifier]
        return [str(number) for number in names.tolist()] if isinstance(names, np.ndarray) else names

    @property
    def image_ids(self) -> np.ndarray:
        """int64 [n, sides], the number of each image: equal for equal images in memory, all different on disk."""
        return self.images.ids

    @property
    def image_count(self) -> int:
        """Different images, as far as that is known."""
        return int(self.image_ids.max()) + 1

    def image(self, record: int, side: int = 0) -> bytes:
        """The encoded image of a record."""
        return self.images.encoded(record, side)

    def read(self, record) -> list:
        """The images of a record (int64 scalar), inside a graph: uint8 [h, w, 3], or encoded, string scalars."""
        return self.images.read(record)

    def answer_list(self) -> list[str]:
        """The answers a model may give: those that come with the data set, else all that were given.

        The data set's own are in `answer_list.json` beside its records (`vqa_v2` writes that file). The others are
        sorted, the most frequent first.
        """
        for source in self.sources:
            if (source.folder / ANSWER_LIST).exists():
                return json.loads((source.folder / ANSWER_LIST).read_text())
        counts = collections.Counter(answer for people in self.columns.get("answers", ()) for answer in set(people))
        return sorted(counts, key=lambda answer: (-counts[answer], answer))


def _parts(counts: list[int], weights: list[float], text_offsets: np.ndarray | None) -> tuple[Part, ...]:
    """The parts of sources with so many records; in pairs where the offsets of their texts are given."""
    ends = np.cumsum([0, *counts])
    if text_offsets is not None:
        ends = text_offsets[ends]
    starts, sizes = ends.tolist(), np.diff(ends).tolist()
    return tuple(Part.weighted(*part) for part in zip(starts, sizes, weights))


def records_in_memory(
    kind: str,
    images,
    texts: Sequence[list[str]],
    columns: dict | None = None,
    *,
    decode: bool = True,
    epoch_over: str = "images",
) -> Records:
    """Makes records without files.

    Args:
      kind: key of `schema.KINDS`.
      images: n encoded images, n pairs of them for records of two images, or pixels uint8 [n, h, w, 3].
      texts: n lists of texts.
      columns: see `Records`; by default records are named, and numbered where they have an id, by their places.
      decode: see `MemoryImages`.
      epoch_over: see `Records`.
    """
    _keep_off_accelerators()
    kind = KINDS[kind]
    if not isinstance(images, np.ndarray):
        tuples = [(image,) if isinstance(image, bytes) else tuple(image) for image in images]
        images = lambda: tuples  # noqa: E731
    numbered = {kind.identifier: [str(i) for i in range(len(texts))]}
    if "id" in kind.features:
        numbered["id"] = np.arange(len(texts), dtype=np.int32)
    return Records(kind, texts, numbered | (columns or {}), MemoryImages(images, decode=decode), epoch_over)


def open_records(
    kind: str,
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    missing: str = "refuse",
    plain_rgb: bool = False,
    epoch_over: str = "images",
) -> Records:
    """Opens a split of a data set, or of a mixture of them, without reading its images.

    Args:
      kind: key of `schema.KINDS`.
      name: as for `catalogue.prepare`, or a mixture, `A+B*0.5`, see `parse_mixture`.
      split: of each of them, a slice such as `train[:10%]`, or a sum such as `train+val`.
      data_dir: where built data sets are kept; TFDS's default if None.
      missing: "skip" leaves out the sources of a mixture that have no such split, as long as one has it.
      plain_rgb: how images are decoded, see `views.decode`.
      epoch_over: see `Records`.

    Raises:
      UserError: a name or the split is unknown, a data set is of another kind, or a file of it is missing or damaged.
    """
    _keep_off_accelerators()
    kind = KINDS[kind]
    builders = [(source, catalogue.prepare(source, data_dir), weight) for source, weight in parse_mixture(name)]
    if missing == "skip" and len(builders) > 1:
        builders = [entry for entry in builders if _bases(split) <= set(entry[1].info.splits)] or builders
    for source, builder, _ in builders:
        _check(kind, builder, source, split)
    sources = tuple(
        Source(name, load_index(builder, split), epath.Path(builder.data_path)) for name, builder, _ in builders
    )
    index = join([source.index for source in sources])
    small = sum(_bytes(builder, split) for _, builder, _ in builders) <= MEMORY_LIMIT
    images = (MemoryImages.of_index if small else StoredImages)(index, kind.images, plain_rgb=plain_rgb)
    columns = dict(index.columns)
    texts = columns.pop(kind.text)
    if "id" in kind.features:
        spaces = [catalogue.id_space(builder) for _, builder, _ in builders]
        columns["id"] = _distinct_ids([source.index.columns["id"] for source in sources], spaces)
    texts = StringLists.of_single(texts) if isinstance(texts, Strings) else texts
    records = Records(kind, texts, columns, images, epoch_over, sources=sources)
    counts, weights = [len(source.index) for source in sources], [weight for _, _, weight in builders]
    records.parts = _parts(counts, weights, records.text_offsets if records.over_pairs else None)
    for source, part in zip(sources, records.parts):
        if not part.count:
            raise UserError(f"none of the records of {source.name} has a caption: caption them, or leave it out")
    return records


def data_fingerprint(name: str, data_dir: str | None = None) -> dict[str, dict[str, dict]]:
    """{source: {split: see `split_index.split_fingerprint`}} of a data set or a mixture.

    Raises:
      UserError: as for `open_records`.
    """
    _keep_off_accelerators()
    builders = {source: catalogue.prepare(source, data_dir) for source, _ in parse_mixture(name)}
    return {
        source: {split: split_fingerprint(builder, split) for split in builder.info.splits}
        for source, builder in builders.items()
    }


def _bases(split: str) -> set[str]:
    """The splits that a slice or sum is made of."""
    return {part.partition("[")[0].strip() for part in split.split("+")}


def _check(kind: Kind, builder, name: str, split: str) -> None:
    lacking = [feature for feature in kind.features if feature not in builder.info.features]
    if lacking:
        raise UserError(
            f"{name} is not a data set of {kind.name}: it has no {', '.join(lacking)}; set data.name to one "
            "that the task can use"
        )
    if not _bases(split) <= set(builder.info.splits):
        raise UserError(f"{name} has no split {split}: give one of {', '.join(builder.info.splits)}")


def _bytes(builder, split: str) -> float:
    """Size of a split or slice; a slice is taken to be like the whole."""
    chosen = builder.info.splits[split]
    files = {epath.Path(file.filename).name for file in chosen.file_instructions}
    whole = [info for info in builder.info.splits.values() if set(info.filenames) & files]
    return sum(info.num_bytes for info in whole) * chosen.num_examples / sum(info.num_examples for info in whole)


def _distinct_ids(ids: list[np.ndarray], spaces: list[str]) -> np.ndarray:
    """Ids int32 of the records of several sources, one after another, such that sources of one space alone share ids.

    Ids that fit and are distinct remain, and are then the same in every mixture; else all are renumbered.

    Args:
      ids: of each source.
      spaces: of each source, see `catalogue.id_space`.
    """
    values = {
        space: np.unique(np.concatenate([part for part, own in zip(ids, spaces) if own == space])) for space in spaces
    }
    every = np.concatenate(list(values.values()))
    if np.array_equal(every, every.astype(np.int32)) and len(np.unique(every)) == len(every):
        return np.concatenate(ids).astype(np.int32)
    first = dict(zip(values, np.cumsum([0, *map(len, values.values())])))
    places = [first[space] + np.searchsorted(values[space], part) for part, space in zip(ids, spaces)]
    return np.concatenate(places).astype(np.int32)


@functools.cache
def _keep_off_accelerators() -> None:
    """Leaves the accelerators to JAX: tensorflow would take their memory at its first use."""
    tf.config.set_visible_devices([], "GPU")
