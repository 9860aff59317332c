"""A run's encoders with the parameters of one checkpoint: images and texts in, unit vectors out."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from cbalign.runs import ranking
from cbalign.runs.workdir import Run
from cbalign.config_checks import QUEUE_TASKS
from cbalign.data import text
from cbalign.data.image_files import pillow_limit
from cbalign.errors import UserError
from cbalign.inference.image_files import FORMAT, MAX_PIXELS, UnreadableImage, read_image

BATCH = 32
"""Images or texts encoded together; the last batch is filled up, so that the encoder is compiled once."""

# The towers whose weights an image's feature depends on.
_IMAGE_MODULES = ("image_encoder", "image_projection")
# Compiled encoders that were used least recently go when there are more bytes than this.
_COMPILED_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Texts:
    """Encoded texts, and what the model does not see of them.

    Attributes:
      features: float32 [n, d], rows of unit length.
      unknown: rows of which no word is in the vocabulary.
      cut: rows of which only the first tokens were used.
    """

    features: np.ndarray
    unknown: list[int]
    cut: list[int]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A run's encoders with the parameters of one checkpoint.

    Attributes:
      image_size: side S of the images it takes, in pixels.
      max_tokens: length of a text, [CLS] included.
      tokenizer: the run's.
      functions: the evaluator's `Functions`.
      fingerprint: digest of all that an image's feature depends on.
    """

    image_size: int
    max_tokens: int
    tokenizer: object
    functions: object
    fingerprint: str

    @classmethod
    def of(cls, run: Run, *, checkpoint: str = "best") -> "Encoder":
        """The encoder of a run; `checkpoint` as for `Run.params`.

        Raises:
          UserError: the run has no such checkpoint, or its task leaves no space that images and texts share.
        """
        if run.config.task not in QUEUE_TASKS:
            raise UserError(f"{run.workdir} is a run of the task {run.config.task}, which compares no features; name one "
                            f"of {' or '.join(QUEUE_TASKS)}")
        params = run.params(checkpoint=checkpoint)
        functions = ranking.bind(ranking.model_functions(run.task.model), params)
        size = run.config.data.image_size
        return cls(size, run.config.data.max_tokens, run.tokenizer, functions, _fingerprint(params, run.config))

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [b, d] of unit length, of at most `BATCH` images uint8 [b, S, S, 3]."""
        rows = np.minimum(np.arange(BATCH), len(pixels) - 1)
        return np.asarray(self.functions.encode_image(pixels[rows])["feature"], np.float32)[:len(pixels)]

    def image(self, path) -> np.ndarray:
        """The feature float32 [d] of an image file.

        Raises:
          UserError: it cannot be read.
        """
        with pillow_limit(MAX_PIXELS):
            try:
                pixels = read_image(path, self.image_size)
            except UnreadableImage as error:
                raise UserError(f"the image {path} cannot be used ({error}); name another one") from error
        return self.images(pixels[np.newaxis])[0]

    def text(self, caption: str) -> tuple[np.ndarray, list[str]]:
        """The feature of one text.

        Returns:
          (float32 [d] of unit length, warnings: sentences on what the model does not see of the text).
        """
        encoded, warnings = self.texts([caption]), []
        if encoded.unknown:
            warnings.append(f"no word of {caption!r} is in the run's vocabulary: the ranking means nothing")
        elif encoded.cut:
            warnings.append(f"only the first {self.max_tokens - 1} tokens of the text are used")
        return encoded.features[0], warnings

    def texts(self, captions: list[str], *, progress: Callable[[int, int], None] | None = None) -> Texts:
        """The features of n >= 1 texts, cleaned as the captions were; progress(done, total) is called on the way."""
        # One more token than the model takes, to see whether anything is cut off.
        cleaned = [text.clean_caption(caption) for caption in captions]
        ids = text.encode(self.tokenizer, cleaned, max_length=self.max_tokens + 1)
        words, unknown = ids[:, 1:], self.tokenizer.unk_token_id
        padding = words == self.tokenizer.pad_token_id
        ids = ids[:, :self.max_tokens]
        # A single text, the usual query, is not to wait for the rest of a batch.
        size, features = BATCH if len(ids) > 1 else 1, []
        for start in range(0, len(ids), size):
            rows = np.minimum(np.arange(start, start + size), len(ids) - 1)
            features.append(np.asarray(self.functions.encode_text(ids[rows])["feature"], np.float32))
            if progress:
                progress(min(start + size, len(ids)), len(ids))
        return Texts(
            np.concatenate(features)[:len(ids)],
            np.flatnonzero(np.all(padding | (words == unknown), axis=1)).tolist(),
            np.flatnonzero(~padding[:, -1]).tolist(),
        )


def keep_compiled() -> None:
    """Keeps what XLA compiles in the user's cache folder from now on, for the next process that needs the same.

    `JAX_COMPILATION_CACHE_DIR` names another folder; nothing is kept where there is no home.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cbalign" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_compilation_cache_max_size", _COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _fingerprint(params, config) -> str:
    """Digest of the image tower: a step's number alone would not tell a run from one trained anew in its place."""
    digest = hashlib.blake2b(f"{FORMAT} {config.data.image_size} {config.model.to_dict()}".encode(), digest_size=16)
    leaves, _ = jax.tree_util.tree_flatten_with_path({name: params[name] for name in _IMAGE_MODULES})
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf.addressable_data(0)).data)
    return digest.hexdigest()
