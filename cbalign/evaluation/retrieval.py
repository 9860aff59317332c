"""Image-text retrieval: contrastive ranking of all pairs, then re-ranking of top candidates by the matching head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from cbalign.evaluation.metrics import chance, recall
from cbalign.evaluation.reranking import match_pairs, one_behind, padded_rows, rerank

TOKEN_BYTES = 2 << 30
"""The tokens of a gallery's images, or of its texts, are stored in bfloat16 if they take more bytes than this."""


@dataclasses.dataclass(frozen=True)
class Functions:
    """The functions of a model that the evaluator calls, compiled and with bound parameters.

    Attributes:
      encode_image: uint8 [b, S, S, 3] -> {"tokens": [b, n, w], "feature": [b, d]}.
      encode_text: int32 [b, L] -> {"tokens": [b, L, v], "feature": [b, d]}.
      hold: (text tokens [m, L, v], ids int32 [m, L]) -> the texts in the form `match` expects, on every device.
      match: (texts from `hold`, their rows int32 [g, t], image tokens [g, n, w]) -> logits [g, t, 2] of (no match,
        match) for each of the g images with its t texts.
      temperature: divisor of the cosine in the sum of both scores, above 0.
      process: (index of this process, number of processes); each process matches a part of the pairs.
      devices: number of devices `match` spreads images over; each gets as many in a call.
      combine: sums an array over the processes.
    """

    encode_image: Callable[[Any], dict]
    encode_text: Callable[[Any], dict]
    hold: Callable[[Any, Any], Any]
    match: Callable[[Any, Any, Any], Any]
    temperature: float
    process: tuple[int, int] = (0, 1)
    devices: int = 1
    combine: Callable[[np.ndarray], np.ndarray] = lambda x: x


def evaluate_retrieval(
    functions,
    image_batches,
    text_ids_tokens,
    *,
    image_ids,
    text_ids,
    top_k,
    batch_size,
    reranking=True,
    token_bytes=TOKEN_BYTES,
    progress=None,
):
    """Recall@1, 5 and 10 for three scores, in percent (`metrics.recall`).

        contrastive  s[i, j] = cosine of the features of image i and text j, float32
        itm          l1[i, j], the raw "match" logit                          for re-ranked pairs
        sum          s[i, j] / temperature + (l1[i, j] - l0[i, j])            for re-ranked pairs

    For each image its top_k texts by s are re-ranked, and for each text its top_k images; each direction ranks only its
    own candidates. All other pairs score -inf, below every re-ranked pair. A pair needed by both directions (or by the
    accuracy below) passes through the fusion layers once: at most top_k * (n_i + n_t) + 2 * n_i forward passes. Pairs
    are processed image by image, so that the fusion layers compute an image's keys and values once for many texts.

    The accuracy of the matching head is balanced: the mean of the fraction of images whose own (first) text it accepts
    and the fraction whose random negative text it rejects. The negative is the text of the next image in a fixed
    permutation; equal logits count as rejection.

    All batches are padded to a fixed size, so that each function is compiled once.

    Memory, in bytes, for n_i images of n tokens of width w, n_t texts of L tokens of width v, features of width d,
    P re-ranked pairs, t bytes per token value (its own size, or 2 if that would take more than token_bytes):

        host    t * (n_i * n * w + n_t * L * v)      tokens; 0 without re-ranking
                + 4 * d * (n_i + n_t)                features
                + 8 * n_i * n_t                      similarity and one re-ranked matrix (4 without re-ranking)
                + 64 * P + 16 * top_k * (n_i + n_t)  pairs, their logits, candidates
        device  min(t * n_t * L * v, token_bytes)    the texts' tokens, if they are kept there
                + 4 * parameters + the larger of: a batch of images in the image encoder, a batch of pairs in the fusion
                layers, with b images or pairs on the device, h heads and a hidden layer 4 times as wide:
                    4 * b * (2 * h * n * n + 4 * n * w)
                    4 * b * (3 * h * L * n + 4 * L * v) + 16 * b / g * n * w   for g texts per image

    COCO 5K at 384 px (n_i = 5,000, n_t = 25,010, n = 577, w = v = 768, L = 30, top_k = 256, P <= 7.7 M): the host
    needs 4.4 + 1.2 GB for tokens in bfloat16 and 1.6 GB for the rest, 7.2 GB in total; a device with 64 images and 256
    pairs (h = 12) needs 1.2 GB for texts, 0.9 GB for parameters and 2.5 GB in the image encoder, 4.6 GB in total.

    Args:
      functions: `Functions`.
      image_batches: iterable of (uint8 [B, S, S, 3], number of valid rows); the remaining rows are padding. Images
        are in the order of image_ids, and B is the same in all batches.
      text_ids_tokens: int32 [n_t, L] token ids.
      image_ids: [n_i] ids; text j matches image i iff their ids are equal.
      text_ids: [n_t] ids.
      top_k: candidates to re-rank per query; all if there are fewer.
      batch_size: texts, and pairs, per call; see `reranking.match_pairs` for several devices.
      reranking: whether to use the matching head; if not, "itm", "sum" and "itm_accuracy" are None.
      token_bytes: the tokens of the images, or of the texts, are stored in bfloat16 if they take more; texts that
        still exceed it are sent to the devices as needed.
      progress: called as progress(stage, done, total), stage one of "images", "texts", "pairs".

    Returns:
      {"images": n_i, "texts": n_t, "chance", "contrastive", "itm", "sum": dictionaries in percent,
      "itm_accuracy": float in 0..1 or None, "notes": list of remarks on the results}.

    Raises:
      ValueError: the number of images is not n_i, the number of texts is not n_t, a score is NaN, or top_k, batch_size
        or temperature is not positive.
    """
    image_ids, text_ids = np.asarray(image_ids), np.asarray(text_ids)
    text_ids_tokens = np.asarray(text_ids_tokens, np.int32)
    _check(functions, text_ids_tokens, image_ids, text_ids, top_k, batch_size)
    progress = progress or (lambda stage, done, total: None)
    limit = token_bytes if reranking else None
    images = _collect(_encoded_images(functions, image_batches), len(image_ids), limit, "images", progress)
    texts = _collect(_encoded_texts(functions, text_ids_tokens, batch_size), len(text_ids), limit, "texts", progress)
    similarity = _unit(images["feature"]) @ _unit(texts["feature"]).T
    result: dict[str, Any] = {
        "images": len(image_ids),
        "texts": len(text_ids),
        "chance": chance(image_ids, text_ids),
        "contrastive": recall(similarity, image_ids, text_ids),
        "itm": None,
        "sum": None,
        "itm_accuracy": None,
        "notes": [],
    }
    if reranking:

        def match(pairs):
            return match_pairs(
                functions,
                images["tokens"],
                texts["tokens"],
                text_ids_tokens,
                pairs,
                batch_size=batch_size,
                token_bytes=token_bytes,
                progress=progress,
            )

        result.update(rerank(match, similarity, image_ids, text_ids, top_k, functions.temperature))
    return result


def _check(functions, text_ids_tokens, image_ids, text_ids, top_k, batch_size):
    """Raises ValueError for invalid arguments before any computation."""
    if len(image_ids) == 0 or len(text_ids) == 0:
        raise ValueError("retrieval needs at least one image and one text")
    if text_ids_tokens.ndim != 2 or len(text_ids_tokens) != len(text_ids):
        raise ValueError(f"token ids of shape {text_ids_tokens.shape} do not match {len(text_ids)} text ids")
    for name, value in (("top_k", top_k), ("batch_size", batch_size), ("temperature", functions.temperature)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _encoded_images(functions, image_batches):
    """Yields (encoded batch, valid rows)."""
    for batch, valid in image_batches:
        yield functions.encode_image(batch), int(valid)


def _encoded_texts(functions, text_ids_tokens, batch_size):
    """Yields (encoded batch, valid rows)."""
    for start in range(0, len(text_ids_tokens), batch_size):
        rows = padded_rows(start, len(text_ids_tokens), batch_size)
        yield functions.encode_text(text_ids_tokens[rows]), min(batch_size, len(text_ids_tokens) - start)


def _collect(encoded, n, token_bytes, stage, progress):
    """Copies the valid rows of encoded batches to the host.

    Args:
      encoded: iterable of ({"feature": [B, d], "tokens": [B, ...]}, valid rows).
      n: total number of rows expected.
      token_bytes: tokens that take more in total are stored in bfloat16; None discards the tokens.
      stage: name used for progress and errors.
      progress: as in `evaluate_retrieval`.

    Returns:
      {name: [n, ...] numpy array}.
    """
    kept, done = {}, 0
    for batch, valid in one_behind((_stored(batch, n, token_bytes), valid) for batch, valid in encoded):
        for name, rows in batch.items():
            rows = np.asarray(rows)
            if not 0 <= valid <= len(rows) or done + valid > n:
                raise ValueError(f"expected {n} {stage}, got a batch of {len(rows)} with {valid} valid after {done}")
            # Filled in place: concatenating a list at the end would need twice the memory.
            kept.setdefault(name, np.empty((n, *rows.shape[1:]), rows.dtype))[done : done + valid] = rows[:valid]
        done += valid
        progress(stage, done, n)
    if done != n:
        raise ValueError(f"expected {n} {stage}, got {done}")
    return kept


def _stored(batch, n, token_bytes):
    """{name: the part of a batch that is stored, in the dtype in which it is stored}."""
    if token_bytes is None:
        return {"feature": batch["feature"]}
    tokens = batch["tokens"]
    size = n * int(np.prod(tokens.shape[1:], dtype=np.int64)) * tokens.dtype.itemsize
    # Rounded on the device, which halves the transfer to the host.
    return {"feature": batch["feature"], "tokens": tokens if size <= token_bytes else tokens.astype(ml_dtypes.bfloat16)}


def _unit(features):
    """Normalizes rows to unit length, float32; rows of zeros stay zero."""
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
