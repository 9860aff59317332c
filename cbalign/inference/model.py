"""A trained model as a Python object: features, similarities, matching, codes, search, predictions, explanations."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cbalign.data.image_files import ImageSource
from cbalign.errors import UserError
from cbalign.evaluation.reranking import match_pairs
from cbalign.inference.classification import TEMPLATES, checked_classes, encode_classes, rank_classes
from cbalign.inference.codebook import TrainedCodebook
from cbalign.inference.encoder import BATCH, Encoder, usable_image
from cbalign.inference.explanation import Explainer, Explanation
from cbalign.inference.image_index import Hit, Index, index_folder, search
from cbalign.inference.predictor import Predictor
from cbalign.inference.source import Source, open_source

Images = ImageSource | np.ndarray | Sequence[ImageSource | np.ndarray]
"""One image or several: paths, encoded bytes, Pillow images, or pixels uint8 [h, w, 3] or [n, h, w, 3]."""


def load(source: os.PathLike | str, *, checkpoint: str = "best") -> Model:
    """Loads a trained model.

    Args:
      source: the workdir of a run, a folder that `cbalign export` wrote, or the name of released weights.
      checkpoint: of a run: "best" (the newest where no metric chose one), "latest", or a step such as "2000".

    Raises:
      UserError: there is no such model or checkpoint, or it is damaged.

    >>> import cbalign
    >>> model = cbalign.load(workdir)
    >>> model.task_name, model.image_size
    ('pretrain', 32)
    """
    return Model(open_source(source, checkpoint=checkpoint))


class Model:
    """A trained model; `cbalign.load` makes one.

    Images are paths, encoded bytes, Pillow images, or arrays uint8 [h, w, 3] or [n, h, w, 3] of RGB pixels, one or a
    list of them. They are turned upright, composited onto white where they are transparent, and resized to
    `image_size` as in evaluation. Texts are one str or a list of them. For a single image or text the result has one
    row.

    Attributes:
      config: of the run that trained it.
      image_size: side of its images in pixels, S.
      task_name: the task it was trained for, such as "pretrain" or "vqa".
    """

    def __init__(self, source: Source):
        self._source = source
        self.config: Any = source.task.config
        self.image_size: int = source.task.config.data.image_size
        self.task_name: str = source.task.name

    def __repr__(self) -> str:
        return f"<cbalign.Model of {self._source.name}: {self.task_name}, images of {self.image_size} pixels>"

    def encode_image(self, images: Images) -> np.ndarray:
        """Features of n images in the embedding space that images and texts share.

        Args:
          images: one or several, see `Model`.

        Returns:
          float32 [n, d], rows of unit length.

        Raises:
          UserError: an image that cannot be read, or a model without a shared embedding space.

        >>> model.encode_image([image, image]).shape
        (2, 32)
        """
        encoder = self._encoder
        return _joined([encoder.images(pixels) for pixels in self._batches(images)], self.config.model.embed_dim)

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Features of n texts in the embedding space that images and texts share.

        Args:
          texts: one or several; cleaned as captions are in training. A Python warning names texts without a single word
            of the vocabulary, whose features are meaningless.

        Returns:
          float32 [n, d], rows of unit length.

        Raises:
          UserError: a model without a shared embedding space.

        >>> model.encode_text(["a red circle", "a blue square"]).dtype
        dtype('float32')
        """
        encoder, texts = self._encoder, _text_list(texts)
        if not texts:
            return np.zeros((0, self.config.model.embed_dim), np.float32)
        encoded = encoder.texts(texts)
        _warn_unknown(texts, encoded.unknown)
        return encoded.features

    def similarity(self, images: Images, texts: str | Sequence[str]) -> np.ndarray:
        """Cosine similarities of n images and m texts, by which retrieval ranks first.

        Args:
          images, texts: as for `encode_image` and `encode_text`.

        Returns:
          float32 [n, m], in [-1, 1].

        >>> model.similarity(image, ["a red circle", "a blue square"]).shape
        (1, 2)
        """
        return self.encode_image(images) @ self.encode_text(texts).T

    def match(self, images: Images, texts: str | Sequence[str], *, paired: bool = False) -> np.ndarray:
        """Probability, by the matching head, that a text describes an image.

        Each pair takes a pass through the fusion layers, so n images and m texts cost n * m of them; rank by
        `similarity` first where there are many.

        Args:
          images, texts: n and m, as for `encode_image` and `encode_text`.
          paired: match image i with text i alone; n and m must be equal.

        Returns:
          float32 [n, m], or [n] where `paired`, in [0, 1].

        Raises:
          UserError: the matching head was never trained, or `paired` with unequal numbers.

        >>> model.match(image, ["a red circle", "a blue square"]).shape
        (1, 2)
        >>> model.match([image, image], ["a red circle", "a blue square"], paired=True).shape
        (2,)
        """
        if not self._source.task.trains_matching:
            off = ", loss_weights.itm=0" if self._source.task.shares_embedding_space else ""
            raise UserError(
                f"the matching head of {self._source.name} was never trained (task {self.task_name}{off}); "
                "load a run that trained it"
            )
        images, texts, encoder = _image_list(images), _text_list(texts), self._encoder
        if paired and len(images) != len(texts):
            raise UserError(f"match(paired=True) takes as many images as texts; {len(images)} and {len(texts)} given")
        if not images or not texts:
            return np.zeros(len(images) if paired else (len(images), len(texts)), np.float32)
        ids, unknown, _ = encoder.token_ids(texts)
        _warn_unknown(texts, unknown)
        tokens = self._text_tokens(ids)
        rows = []
        for start, pixels in zip(range(0, len(images), BATCH), self._batches(images)):
            wanted = np.arange(start, start + len(pixels)) if paired else np.tile(np.arange(len(texts)), len(pixels))
            pairs = np.repeat(np.arange(len(pixels)), 1 if paired else len(texts)) * len(texts) + wanted
            logits = match_pairs(
                encoder.functions,
                np.asarray(encoder.encoded_images(pixels)["tokens"]),
                tokens,
                ids,
                pairs,
                batch_size=BATCH,
                token_bytes=1 << 30,
                progress=lambda stage, done, total: None,
            )
            # The softmax's second class, without overflow.
            matched = np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1]))
            rows.append(matched if paired else matched.reshape(len(pixels), len(texts)))
        return np.concatenate(rows).astype(np.float32)

    def codes(self, *, images: Images | None = None, texts: str | Sequence[str] | None = None) -> np.ndarray:
        """Code probabilities softmax(z C^T / tau_c) of n images or texts over the K codes of the codebook.

        z is the feature of `encode_image` or `encode_text`, itself a mixture of codes where `codebook.embed` is True.

        Args:
          images: as for `encode_image`, or
          texts: as for `encode_text`; exactly one of both.

        Returns:
          float32 [n, K], rows that sum to one.

        Raises:
          UserError: the codebook was never trained, or not exactly one of images and texts is given.

        >>> model.codes(texts="a red circle").shape
        (1, 32)
        """
        if (images is None) == (texts is None):
            raise UserError("codes takes either images=... or texts=...")
        features = self.encode_image(images) if images is not None else self.encode_text(texts or ())
        return self._codebook.probabilities(features)

    def code_neighbours(self, codes: int | Sequence[int] | np.ndarray, index: Index, top: int = 4) -> list[list[Hit]]:
        """The images that lie nearest to some codes, which show what the codes stand for.

        Args:
          codes: numbers of codes, such as `Explanation.image_codes.codes`.
          index: of a folder, from `Model.index`.
          top: images for each code; fewer where the folder has no more.

        Returns:
          For each code its hits (score, path), best first; the score is the cosine of image and code.

        Raises:
          UserError: there is no such code, or the codebook was never trained.

        >>> [len(hits) for hits in model.code_neighbours([3, 5], model.index(folder), top=2)]
        [2, 2]
        """
        return self._codebook.neighbours(codes, index, top)

    def explain(
        self, image: ImageSource | np.ndarray, text: str, *, layer: int | None = None, top: int = 5
    ) -> Explanation:
        """Why the model pairs an image with a text: attention over the image by word, scores, codes.

        What the model never learned is None, and a note says so: maps and `match` where the matching head was not
        trained, codes where the codebook was not.

        Args:
          image: one image, see `Model`.
          text: one text.
          layer: fusion layer of the attention maps, from 0; by default the third of the full model's six, the middle
            one of any model.
          top: codes of each side to return.

        Raises:
          UserError: an image that cannot be read, no such layer, or a model without a shared embedding space.

        >>> explanation = model.explain(image, "a red circle")
        >>> explanation.words, explanation.word_maps.shape
        (['a', 'red', 'circle'], (3, 4, 4))
        """
        if top < 1:
            raise UserError(f"top={top} must be 1 or more")
        return self._explainer(image, text, layer=layer, top=top)

    def index(self, folder: os.PathLike | str) -> Index:
        """The features of the images of a folder and its sub-folders, and which of its files were left out.

        They are stored, in the workdir of a run or else among the user's cache files, so that the next call reads new
        and changed files alone.

        Raises:
          UserError: no such folder, or no image in it that can be read.

        >>> len(model.index(folder).paths)
        2
        """
        return index_folder(folder, encoder=self._encoder, cache=self._source.cache)

    def search(self, folder: os.PathLike | str, query: str | ImageSource | np.ndarray, top: int = 5) -> list[Hit]:
        """The images of a folder and its sub-folders that fit a text, or resemble an image, best.

        Args:
          folder: of images in any format.
          query: a str is a text; an image is a `pathlib.Path`, encoded bytes, a Pillow image or uint8 [h, w, 3].
          top: how many images; fewer where the folder has no more.

        Returns:
          Hits (score, path), best first; the score is a cosine, equal ones are in the order of the paths. A Python
          warning names images that cannot be read.

        Raises:
          UserError: see `index`; or a query image that cannot be read.

        >>> [hit.path.endswith(".png") for hit in model.search(folder, "a red circle", top=1)]
        [True]
        """
        if top < 1:
            raise UserError(f"top={top} must be 1 or more")
        if isinstance(query, str):
            feature = self.encode_text(query)[0]
        else:
            feature = self._encoder.image(query)
        index = self.index(folder)
        if index.skipped:
            first = index.skipped[0]
            warnings.warn(
                f"{len(index.skipped)} images in {folder} cannot be read, such as {first.path} ({first.reason})",
                stacklevel=2,
            )
        return search(index, feature, top)

    def classify(
        self, images: Images, classes: Sequence[str], templates: Sequence[str] = TEMPLATES, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The likeliest of some classes for n images, without training for them (zero-shot).

        Args:
          images: as for `encode_image`.
          classes: their names, two or more.
          templates: texts with "{}" in the place of the name, over which a class's feature is averaged; for models
            trained on sentences about photographs "a photo of a {}" suits better than the name alone.
          top: how many classes; fewer where there are no more.

        Returns:
          n lists of (class, probability), best first; probabilities are softmax(cosine / temperature) over the classes,
          with the temperature that training learned.

        Raises:
          UserError: fewer than two classes, one named twice, or a template without "{}".

        >>> sorted(name for name, probability in model.classify(image, ["a red circle", "a blue square"])[0])
        ['a blue square', 'a red circle']
        """
        if top < 1:
            raise UserError(f"top={top} must be 1 or more")
        names = checked_classes(classes)
        features, notes = encode_classes(self._encoder, names, templates)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return rank_classes(self._encoder, self.encode_image(images), names, features, top)

    def predict(self, images: Images, text: str, top: int = 5) -> list[tuple[str, float]]:
        """What the model was trained to answer: a question, a statement's class, or whether a text matches an image.

        Args:
          images: as many as the task takes: two for nlvr2, the left one first, else one.
          text: the question (vqa), statement (nlvr2), hypothesis (snli_ve) or text (pretrain, retrieval).
          top: answers to return; fewer where there are no more.

        Returns:
          (answer, probability), best first. For vqa the probabilities are over the answers that were scored in full
          (`vqa.rank_top_k` of the list), for the others over the classes.

        Raises:
          UserError: a task without predictions, another number of images, or a text without a known word.

        >>> sorted(name for name, probability in model.predict(image, "a red circle"))
        ['match', 'no match']
        """
        if top < 1:
            raise UserError(f"top={top} must be 1 or more")
        return self._predictor(_image_list(images), text, top=top)

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder.of(self._source)

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self._source)

    def _batches(self, images: Images):
        """Yields uint8 [b, S, S, 3] of up to `BATCH` images."""
        images = _image_list(images)
        for start in range(0, len(images), BATCH):
            yield np.stack([usable_image(image, self.image_size) for image in images[start : start + BATCH]])

    def _text_tokens(self, ids: np.ndarray) -> np.ndarray:
        """Tokens [m, L, w] of the text encoder."""
        tokens = []
        for start in range(0, len(ids), BATCH):
            rows = np.minimum(np.arange(start, start + BATCH), len(ids) - 1)
            tokens.append(np.asarray(self._encoder.functions.encode_text(ids[rows])["tokens"]))
        return np.concatenate(tokens)[: len(ids)]

    @functools.cached_property
    def _codebook(self) -> TrainedCodebook:
        return TrainedCodebook.of(self._source)

    @functools.cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self._source)


def _image_list(images: Images) -> list:
    """One or several images as a list."""
    if isinstance(images, np.ndarray):
        if images.ndim not in (3, 4) or images.dtype != np.uint8 or images.shape[-1] != 3:
            raise UserError(
                f"an array of {images.dtype} {list(images.shape)} holds no images; give uint8 [h, w, 3] or [n, h, w, 3]"
            )
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        return [images]
    return list(images)


def _text_list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _joined(parts: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)


def _warn_unknown(texts: list[str], unknown: list[int]) -> None:
    if unknown:
        warnings.warn(
            f"{len(unknown)} of {len(texts)} texts have no word in the model's vocabulary, such as "
            f"{texts[unknown[0]]!r}: what the model says of them is meaningless",
            stacklevel=3,
        )
