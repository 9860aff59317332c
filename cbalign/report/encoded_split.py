"""A split as a trained model encodes it: what the report's examples, codes and maps are made of."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from PIL import Image

from cbalign.data.image_files import BadImage, load_plain, load_rgb
from cbalign.evaluation import encoders
from cbalign.evaluation.gallery import Gallery
from cbalign.evaluation.reranking import match_pairs
from cbalign.inference.source import Source, open_source
from cbalign.report.inline import reduced
from cbalign.runs.workdir import Run

THUMBNAIL_SIDE = 112


@dataclasses.dataclass(eq=False)
class EncodedSplit:
    """The images and texts of a split with their features.

    Attributes:
      source: the model.
      data, split: what was encoded.
      ranked: its records and columns.
      gallery: its images and texts.
      image_features, text_features: float32 [n, d] and [m, d], rows of unit length.
    """

    source: Source
    data: str
    split: str
    ranked: Any
    gallery: Gallery
    image_features: np.ndarray
    text_features: np.ndarray

    @property
    def options(self) -> Any:
        """The config's section `eval`."""
        return self.source.task.config.eval

    @property
    def trains_matching(self) -> bool:
        """Whether the model has a trained matching head."""
        return self.source.task.trains_matching

    @functools.cached_property
    def functions(self) -> Any:
        """The compiled methods with the model's parameters."""
        return encoders.bind(encoders.compiled_methods(self.source.task.model), self.source.params)

    @property
    def temperature(self) -> float:
        """Of the sum of both scores."""
        return self.functions.temperature

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """Cosines float32 [n, m]."""
        return self.image_features @ self.text_features.T

    @functools.cached_property
    def pairs(self) -> np.ndarray:
        """int64 [p, 2], each text with the first image of its id."""
        first: dict[int, int] = {}
        for place, number in enumerate(self.gallery.image_ids.tolist()):
            first.setdefault(number, place)
        return np.array(
            [(first[number], text) for text, number in enumerate(self.gallery.text_ids.tolist()) if number in first],
            np.int64,
        ).reshape(-1, 2)

    @functools.cached_property
    def captions(self) -> dict[int, str]:
        """{image: its first text in the gallery}."""
        by_id: dict[int, str] = {}
        for number, text in zip(self.gallery.text_ids.tolist(), self.gallery.texts):
            by_id.setdefault(number, text)
        return {i: by_id.get(number, "") for i, number in enumerate(self.gallery.image_ids.tolist())}

    def row(self, place: int, *, texts: bool) -> tuple[np.ndarray, np.ndarray]:
        """(scores, whether they are correct) of all candidates for one text, or for one image."""
        if texts:
            return self.scores[:, place], self.gallery.image_ids == self.gallery.text_ids[place]
        return self.scores[place], self.gallery.text_ids == self.gallery.image_ids[place]

    def ranks(self, *, texts: bool) -> np.ndarray:
        """int64 [m] or [n], the rank of the first correct candidate of each query, as `metrics.recall` counts it."""
        count = len(self.text_features if texts else self.image_features)
        return np.array([rank(*self.row(place, texts=texts)) for place in range(count)], np.int64)

    def match_margins(self, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """{(image, text): logit of match minus that of no match} of some pairs, sorted."""
        images, texts = (np.unique(side) for side in np.array(pairs).T)
        image_tokens = np.concatenate(
            [
                np.asarray(self.functions.encode_image(batch["image"])["tokens"])[:valid]
                for batch, valid in self.image_batches(images)
            ]
        )
        ids = self.gallery.token_ids[texts]
        text_tokens = np.concatenate(
            [
                np.asarray(self.functions.encode_text(ids[rows])["tokens"])[:valid]
                for rows, valid in _batches(len(ids), self.options.batch_size)
            ]
        )
        numbers = np.array(
            [np.searchsorted(images, i) * len(texts) + np.searchsorted(texts, j) for i, j in pairs], np.int64
        )
        logits = match_pairs(
            self.functions,
            image_tokens,
            text_tokens,
            ids,
            numbers,
            batch_size=self.options.batch_size,
            token_bytes=self.options.token_megabytes << 20,
            progress=lambda stage, done, total: None,
        )
        return {pair: float(both[1] - both[0]) for pair, both in zip(pairs, logits)}

    def image_batches(self, rows: np.ndarray):
        """Yields (batch with "image" uint8 [B, S, S, 3], valid rows) of some images."""
        from cbalign.data.pipeline import eval_batches

        size = self.source.task.config.data.image_size
        return eval_batches(self.ranked.records, None, image_size=size, batch_size=self.options.batch_size, rows=rows)

    def thumbnail(self, image: int) -> Image.Image:
        """An image reduced to the size at which it is shown."""
        return reduced(self.pixels(image), THUMBNAIL_SIDE)

    def pixels(self, image: int) -> np.ndarray:
        """An image uint8 [h, w, 3]."""
        records = self.ranked.records
        return rgb(records.image(image), plain_rgb=records.images.plain_rgb)


def encode_split(run: Run, split: str, *, data: str = "", checkpoint: str = "best") -> EncodedSplit:
    """Encodes a split with a run's model.

    Args:
      run: of a task with a shared embedding space.
      split: of the run's data set, or of `data`.
      data: another data set.
      checkpoint: see `Run.params`.

    Raises:
      UserError: the data set, the split or the checkpoint does not exist.
    """
    source, ranked = open_source(run, checkpoint=checkpoint), run.split(split, data=data)
    gallery = Gallery.of(ranked.records, ranked.columns, captions_per_image=run.config.eval.captions_per_image)
    empty = np.zeros((0, 0), np.float32)
    encoded = EncodedSplit(source, data or run.config.data.name, split, ranked, gallery, empty, empty)
    rows = np.arange(len(gallery.image_ids))
    encoded.image_features, encoded.text_features = encode(encoded, encoded.functions, rows, gallery.token_ids)
    return encoded


def encode(encoded: EncodedSplit, functions: Any, images: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, d] of some images of a split, by their rows, and [m, d] of texts int32 [m, L]."""
    found = [
        np.asarray(functions.encode_image(batch["image"])["feature"])[:valid]
        for batch, valid in encoded.image_batches(images)
    ]
    texts = [
        np.asarray(functions.encode_text(ids[rows])["feature"])[:valid]
        for rows, valid in _batches(len(ids), encoded.options.batch_size)
    ]
    return np.concatenate(found), np.concatenate(texts)


def _batches(count: int, size: int):
    """Yields (rows int64 [size], valid rows), the last batch filled up with its last row."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1), min(size, count - start)


def rank(scores: np.ndarray, correct: np.ndarray) -> int:
    """The rank as `metrics.recall` counts it: wrong candidates of equal score come before the best correct one."""
    return 1 + int(np.sum(scores[~correct] >= scores[correct].max())) if correct.any() else len(scores) + 1


def rgb(encoded: bytes, *, plain_rgb: bool = False) -> np.ndarray:
    """An encoded image as uint8 [h, w, 3], read as evaluation does; grey where it cannot be decoded."""
    try:
        return (load_plain if plain_rgb else load_rgb)(encoded)
    except BadImage:
        return np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), 128, np.uint8)
