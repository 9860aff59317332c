"""A model's two encoders with the parameters of one checkpoint: images and texts in, unit vectors out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cbalign.data import text
from cbalign.data.image_files import BadImage, ImageSource, read_resized
from cbalign.errors import UserError
from cbalign.evaluation import encoders
from cbalign.inference.source import Source, open_source
from cbalign.runs.workdir import Run
from cbalign.storage import user_cache
from cbalign.tasks import TASKS
from cbalign.tasks.base import text_limits

BATCH = 32
"""Images or texts encoded together; the last batch is filled up, so that each encoder is compiled once."""
FORMAT = 2
"""To be raised when the same file is decoded to other pixels than before."""

# Modules that an image's feature depends on.
_IMAGE_MODULES = ("image_encoder", "image_projection")
# The least recently used compiled programs are deleted beyond this size.
_COMPILED_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Texts:
    """Encoded texts, and what the model does not see of them.

    Attributes:
      features: float32 [n, d], rows of unit length.
      unknown: rows without a single word of the vocabulary.
      cut: rows of which only the first tokens were used.
    """

    features: np.ndarray
    unknown: list[int]
    cut: list[int]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Both encoders of a model that has a shared embedding space.

    Attributes:
      image_size: side S of its images in pixels.
      max_tokens: length of a text, [CLS] included.
      max_words: words a text is cut to before.
      tokenizer: of the run's vocabulary.
      functions: the evaluator's `Functions`.
      fingerprint: digest of all that an image's feature depends on.
    """

    image_size: int
    max_tokens: int
    max_words: int
    tokenizer: Any
    functions: Any
    fingerprint: str

    @classmethod
    def of(cls, source: Run | Source, *, checkpoint: str = "best") -> Encoder:
        """The encoders of an opened run or of a `Source`; `checkpoint`, of a run, as for `Run.params`.

        Raises:
          UserError: the run has no such checkpoint, or its task has no shared embedding space.
        """
        source = open_source(source, checkpoint=checkpoint)
        task, config = source.task, source.task.config
        if not task.shares_embedding_space:
            others = " or ".join(name for name, other in TASKS.items() if other.shares_embedding_space)
            raise UserError(
                f"{source.name} is a run of the task {task.name}, which has no shared embedding space; use "
                f"a run of {others}"
            )
        functions = encoders.bind(encoders.compiled_methods(task.model), source.params)
        size, (length, words) = config.data.image_size, text_limits(config)
        return cls(size, length, words, source.tokenizer, functions, _fingerprint(source.params, config))

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [b, d] of unit length, of 1 to `BATCH` images uint8 [b, S, S, 3]."""
        return np.asarray(self.encoded_images(pixels)["feature"], np.float32)

    def encoded_images(self, pixels: np.ndarray) -> dict:
        """The same with the tokens: {"feature": [b, d], "tokens": [b, n, w]}."""
        rows = np.minimum(np.arange(BATCH), len(pixels) - 1)
        return {name: x[: len(pixels)] for name, x in self.functions.encode_image(pixels[rows]).items()}

    def image(self, source: ImageSource | np.ndarray) -> np.ndarray:
        """The feature float32 [d] of an image; `source` as for `image_files.read_resized`.

        Raises:
          UserError: it cannot be read.
        """
        return self.images(usable_image(source, self.image_size)[np.newaxis])[0]

    def text(self, caption: str) -> tuple[np.ndarray, list[str]]:
        """The feature of one text.

        Returns:
          (float32 [d] of unit length, warnings: sentences on what the model does not see of the text).
        """
        encoded, warnings = self.texts([caption]), []
        if encoded.unknown:
            warnings.append(
                f"no word of {shortened(caption)!r} is in the run's vocabulary: its feature is meaningless; it knows "
                f"{', '.join(map(repr, known_words(self.tokenizer)))} and others"
            )
        elif unknown := unknown_words(self.tokenizer, caption, max_words=self.max_words):
            warnings.append(f"not in the run's vocabulary: {shortened(', '.join(map(repr, unknown)))}")
        if encoded.cut and not encoded.unknown:
            warnings.append(
                f"only the first {self.max_tokens - 1} tokens of the text's first {self.max_words} words are used"
            )
        return encoded.features[0], warnings

    def texts(self, captions: list[str], *, progress: Callable[[int, int], None] | None = None) -> Texts:
        """The features of n >= 1 texts, cleaned as captions are in training.

        Args:
          captions: what to encode.
          progress: called as progress(done, total).
        """
        ids, unknown, cut = self.token_ids(captions)
        # A single text, the usual query, does not wait for the rest of a batch.
        size, features = BATCH if len(ids) > 1 else 1, []
        for start in range(0, len(ids), size):
            rows = np.minimum(np.arange(start, start + size), len(ids) - 1)
            features.append(np.asarray(self.functions.encode_text(ids[rows])["feature"], np.float32))
            if progress:
                progress(min(start + size, len(ids)), len(ids))
        return Texts(np.concatenate(features)[: len(ids)], unknown, cut)

    def token_ids(self, captions: list[str]) -> tuple[np.ndarray, list[int], list[int]]:
        """(ids int32 [n, L] of texts, rows without a known word, rows that are cut)."""
        return token_ids(self.tokenizer, captions, max_tokens=self.max_tokens, max_words=self.max_words)


def shortened(text: str) -> str:
    """A text for a message: its first 60 characters."""
    return text if len(text) <= 60 else f"{text[:60]}…"


def known_words(tokenizer: Any, count: int = 4) -> list[str]:
    """Some whole words of a vocabulary, the first ones of three letters or more."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [token for token, _ in tokens if token.isalpha() and len(token) > 2][:count]


def unknown_words(tokenizer: Any, line: str, *, max_words: int, cleaning: str = "caption") -> list[str]:
    """The words of a text that hold something a vocabulary does not have; otherwise as for `token_ids`."""
    words = list(dict.fromkeys(text.CLEANERS[cleaning](line, max_words=max_words).split()))
    return [word for word, ids in zip(words, tokenizer.ids(words)) if tokenizer.unk_token_id in ids]


def token_ids(
    tokenizer: Any, texts: list[str], *, max_tokens: int, max_words: int, cleaning: str = "caption"
) -> tuple[np.ndarray, list[int], list[int]]:
    """Cleans and encodes texts as evaluation does.

    Args:
      tokenizer: of the run.
      texts: as a user types them.
      max_tokens, max_words: see `cbalign.tasks.base.text_limits`.
      cleaning: a key of `text.CLEANERS`.

    Returns:
      (ids int32 [n, max_tokens], rows without a single word of the vocabulary, rows of which only the first tokens
      are used).
    """
    # One more token than the model takes, to see whether anything is cut off.
    clean = text.CLEANERS[cleaning]
    cleaned = [clean(line, max_words=max_words) for line in texts]
    longer = [i for i, line in enumerate(texts) if clean(line, max_words=max_words + 1) != cleaned[i]]
    ids = text.encode(tokenizer, cleaned, max_length=max_tokens + 1)
    words = ids[:, 1:]
    padding = words == tokenizer.pad_token_id
    unknown = np.all(padding | (words == tokenizer.unk_token_id), axis=1)
    cut = sorted({*longer, *np.flatnonzero(~padding[:, -1]).tolist()})
    return ids[:, :max_tokens], np.flatnonzero(unknown).tolist(), cut


def usable_image(source: ImageSource | np.ndarray, size: int) -> np.ndarray:
    """`image_files.read_resized`, uint8 [size, size, 3], for an image that a user named.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return read_resized(source, size)
    except BadImage as error:
        name = f"image {os.fspath(source)}" if isinstance(source, str | os.PathLike) else "given image"
        raise UserError(f"the {name} cannot be used ({error}); name another one") from error


def keep_compiled() -> None:
    """From now on stores what XLA compiles in the user's cache folder, where later processes find it.

    `JAX_COMPILATION_CACHE_DIR` names another folder; nothing is stored where there is no home folder.
    """
    # pyrefly: ignore[missing-attribute]
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        cache = user_cache() / "xla"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_compilation_cache_max_size", _COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _fingerprint(params, config) -> str:
    """Digest of the image tower and of the codes that features are mixed of.

    A step number alone would not distinguish a run from one trained in its place.
    """
    digest = hashlib.blake2b(f"{FORMAT} {config.data.image_size} {config.model.to_dict()}".encode(), digest_size=16)
    modules = _IMAGE_MODULES
    if config.codebook.embed:
        digest.update(f"embed {config.codebook.embed_temperature}".encode())
        modules = (*modules, "codebook")
    leaves, _ = jax.tree_util.tree_flatten_with_path({name: params[name] for name in modules})
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        leaf = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
