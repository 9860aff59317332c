"""Image-text retrieval: contrastive ranking of everything, then re-ranking of the best by the matching head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from cbalign.evaluation.metrics import KS, chance, recall

# Balanced accuracy below which the matching head is taken to know nothing: 0.5 is what any constant answer gets.
PRIOR_ACCURACY = 0.55

# Elements of the similarity matrix that are partitioned together (eight bytes of index each).
_CHUNK_ELEMENTS = 1 << 22


@dataclasses.dataclass(frozen=True)
class Functions:
    """What the evaluator needs of a model; the caller binds the parameters and compiles.

    Attributes:
        encode_image: uint8 [b, S, S, 3] -> {"tokens": [b, n, w], "feature": [b, d]}.
        encode_text: int32 [b, L] -> {"tokens": [b, L, v], "feature": [b, d]}.
        match: (text tokens [b, L, v], ids int32 [b, L], image tokens [b, n, w]) -> logits [b, 2] of (no match,
            match).
        temperature: divisor of the cosine in the sum of both scores, above 0.
    """

    encode_image: Callable[[Any], dict]
    encode_text: Callable[[Any], dict]
    match: Callable[[Any, Any, Any], Any]
    temperature: float


def evaluate_retrieval(functions, image_batches, text_ids_tokens, *, image_ids, text_ids, top_k, batch_size,
                       rerank=True, progress=None):
    """Recall@1, 5 and 10 by three scores, in per cent (`metrics.recall`).

        contrastive  s[i, j] = cosine of image i's and text j's feature, float32
        itm          l1[i, j], the raw "match" logit                          of the re-ranked pairs
        sum          s[i, j] / temperature + (l1[i, j] - l0[i, j])            of the re-ranked pairs

    Re-ranked are, for every image, its top_k texts by s and, for every text, its top_k images; either direction ranks
    its own candidates only. A pair outside them scores -inf, below any scored one. A pair wanted by both directions
    (or by the accuracy below) goes through the fusion layers once: at most top_k * (n_i + n_t) + 2 * n_i forwards.

    The accuracy of the matching head is balanced: the mean of the share of images whose own (first) text it accepts
    and the share whose random other text it rejects. The other text is that of the next image in a fixed permutation;
    equal logits reject.

    All batches are padded to a fixed size, so that each function is compiled once.

    Memory on the host, in bytes, for n_i images and n_t texts, tokens of t bytes per number, P re-ranked pairs:

        t * (n_i * n * w + n_t * L * v)       tokens; none without re-ranking
        + 4 * d * (n_i + n_t)                 features
        + 12 * n_i * n_t                      similarity and one re-ranked matrix per direction (4 without re-ranking)
        + 16 * P + 16 * top_k * (n_i + n_t)   pairs and candidates

    On the device: one batch of pairs beside the parameters.

    Args:
        functions: `Functions`.
        image_batches: iterable of (uint8 [B, S, S, 3], number of valid rows); the rows after them are padding. The
            order is that of image_ids, B is the same in all batches.
        text_ids_tokens: int32 [n_t, L] token ids.
        image_ids: [n_i] ids; text j is right for image i iff their ids are equal.
        text_ids: [n_t] ids.
        top_k: candidates to re-rank per query; more than there are means all.
        batch_size: texts, and pairs, per call.
        rerank: whether to use the matching head; without, "itm", "sum" and "itm_accuracy" are None.
        progress: called as progress(stage, done, total), stage one of "images", "texts", "pairs".

    Returns:
        {"images": n_i, "texts": n_t, "chance", "contrastive", "itm", "sum": dictionaries of per cent,
        "itm_accuracy": float of 0..1 or None, "notes": list of sentences for the reader of the figures}.

    Raises:
        ValueError: images that do not number n_i, texts that do not number n_t, NaN among the scores, or a top_k,
            batch_size or temperature that is not positive.
    """
    image_ids, text_ids = np.asarray(image_ids), np.asarray(text_ids)
    text_ids_tokens = np.asarray(text_ids_tokens, np.int32)
    _check(functions, text_ids_tokens, image_ids, text_ids, top_k, batch_size)
    progress = progress or (lambda stage, done, total: None)
    names = ("feature", "tokens") if rerank else ("feature",)
    images = _collect(_encoded_images(functions, image_batches), len(image_ids), names, "images", progress)
    texts = _collect(_encoded_texts(functions, text_ids_tokens, batch_size), len(text_ids), names, "texts", progress)
    similarity = _unit(images["feature"]) @ _unit(texts["feature"]).T
    result = {
        "images": len(image_ids),
        "texts": len(text_ids),
        "chance": chance(image_ids, text_ids),
        "contrastive": recall(similarity, image_ids, text_ids),
        "itm": None,
        "sum": None,
        "itm_accuracy": None,
        "notes": [],
    }
    if rerank:
        def match(pairs):
            return _match_pairs(functions, images["tokens"], texts["tokens"], text_ids_tokens, pairs, batch_size,
                                progress)

        result.update(_rerank(match, similarity, image_ids, text_ids, top_k, functions.temperature))
    return result


def _check(functions, text_ids_tokens, image_ids, text_ids, top_k, batch_size):
    """Raises ValueError for what would otherwise fail late."""
    if len(image_ids) == 0 or len(text_ids) == 0:
        raise ValueError("retrieval needs at least one image and one text")
    if text_ids_tokens.ndim != 2 or len(text_ids_tokens) != len(text_ids):
        raise ValueError(f"token ids of shape {text_ids_tokens.shape} do not fit {len(text_ids)} text ids")
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
        rows = _padded_rows(start, len(text_ids_tokens), batch_size)
        yield functions.encode_text(text_ids_tokens[rows]), min(batch_size, len(text_ids_tokens) - start)


def _padded_rows(start, n, size):
    """Indices start, start + 1, ... of a batch of fixed size."""
    # The last row is repeated: a made-up one, such as a text of nothing but padding, might not be finite.
    return np.minimum(np.arange(start, start + size), n - 1)


def _one_behind(dispatched):
    """The same items, each handed on only when the next one has been made.

    The device works on the next batch while the host waits for and copies the one handed on.
    """
    waiting = []
    for item in dispatched:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _collect(encoded, n, names, stage, progress):
    """Copies the valid rows of encoded batches to the host.

    Args:
        encoded: iterable of ({name: [B, ...]}, valid rows).
        n: rows expected in all.
        names: what to keep.
        stage: for the progress and the error.
        progress: as in `evaluate_retrieval`.

    Returns:
        {name: [n, ...] numpy array of the dtype it came in}.
    """
    kept, done = {}, 0
    for batch, valid in _one_behind(encoded):
        for name in names:
            rows = np.asarray(batch[name])
            if not 0 <= valid <= len(rows) or done + valid > n:
                raise ValueError(f"expected {n} {stage}, got a batch of {len(rows)} with {valid} valid after {done}")
            # Filled in place: joining a list at the end would hold all tokens twice.
            kept.setdefault(name, np.empty((n, *rows.shape[1:]), rows.dtype))[done:done + valid] = rows[:valid]
        done += valid
        progress(stage, done, n)
    if done != n:
        raise ValueError(f"expected {n} {stage}, got {done}")
    return kept


def _unit(features):
    """Rows of unit length, float32; a row of zeros stays zeros."""
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _rerank(match, similarity, image_ids, text_ids, top_k, temperature):
    """The part of the result that the matching head decides.

    Args:
        match: function of sorted pairs int64 [P] -> float32 logits [P, 2]; pair p is image p // n_t, text p % n_t.
        similarity: float32 [n_i, n_t].
        image_ids, text_ids, top_k, temperature: as in `evaluate_retrieval`.

    Returns:
        {"itm", "sum", "itm_accuracy", "notes"}.
    """
    n_images, n_texts = similarity.shape
    wanted = {
        "tr": (np.arange(n_images)[:, None] * n_texts + _top(similarity, top_k)).ravel(),
        "ir": (_top(similarity.T, top_k) * n_texts + np.arange(n_texts)[:, None]).ravel(),
        **_accuracy_pairs(image_ids, text_ids),
    }
    pairs = np.unique(np.concatenate(list(wanted.values())))
    logits = match(pairs)
    margin = logits[:, 1] - logits[:, 0]

    def recall_by(scores):
        matrices = {name: _matrix(similarity.shape, pairs, scores, wanted[name]) for name in ("tr", "ir")}
        return recall(matrices["tr"], image_ids, text_ids, scores_ir=matrices["ir"])

    accuracy = _accuracy(pairs, margin, wanted)
    return {
        "itm": recall_by(logits[:, 1]),
        "sum": recall_by(similarity.ravel()[pairs] / np.float32(temperature) + margin),
        "itm_accuracy": accuracy,
        "notes": _notes(accuracy, margin, top_k, max(n_images, n_texts)),
    }


def _top(similarity, top_k):
    """Columns of the top_k largest of each row, in no order: int64 [n, min(top_k, columns)]."""
    n, columns = similarity.shape
    k = min(top_k, columns)
    best = np.empty((n, k), np.int64)
    rows = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, n, rows):
        part = -similarity[start:start + rows]
        best[start:start + rows] = np.argpartition(part, k - 1, axis=1)[:, :k]
    return best


def _accuracy_pairs(image_ids, text_ids):
    """Pairs to measure the matching head on: {"positive", "negative"}, int64 arrays of image * n_t + text.

    Images without a text are left out; an image for which there is no other text has no negative.
    """
    values, first = np.unique(text_ids, return_index=True)
    place = np.minimum(np.searchsorted(values, image_ids), len(values) - 1)
    images = np.flatnonzero(values[place] == image_ids)
    # A fixed shuffle, as neighbours in a data set are often alike.
    images = np.random.default_rng(0).permutation(images)
    own = first[place[images]]
    other = own.copy()
    for shift in range(1, len(images)):
        same = text_ids[other] == image_ids[images]
        if not same.any():
            break
        other[same] = np.roll(own, -shift)[same]
    differs = text_ids[other] != image_ids[images]
    return {"positive": images * len(text_ids) + own, "negative": (images * len(text_ids) + other)[differs]}


def _match_pairs(functions, image_tokens, text_tokens, text_ids_tokens, pairs, batch_size, progress):
    """Logits of the matching head for pairs int64 [P] (image * n_t + text): float32 [P, 2]."""
    image_of, text_of = np.divmod(pairs, len(text_tokens))
    logits = np.empty((len(pairs), 2), np.float32)

    def dispatched():
        for start in range(0, len(pairs), batch_size):
            rows = _padded_rows(start, len(pairs), batch_size)
            text = text_of[rows]
            yield start, functions.match(text_tokens[text], text_ids_tokens[text], image_tokens[image_of[rows]])

    for start, batch in _one_behind(dispatched()):
        end = min(start + batch_size, len(pairs))
        logits[start:end] = np.asarray(batch)[:end - start]
        progress("pairs", end, len(pairs))
    return logits


def _matrix(shape, pairs, scores, chosen):
    """Float32 matrix of the scores of the chosen pairs (a subset of the sorted `pairs`), -inf elsewhere."""
    matrix = np.full(shape, -np.inf, np.float32)
    matrix.ravel()[chosen] = scores[np.searchsorted(pairs, chosen)]
    return matrix


def _accuracy(pairs, margin, wanted):
    """Balanced accuracy on wanted["positive"] and wanted["negative"], 0..1; None when either is empty."""
    if not len(wanted["positive"]) or not len(wanted["negative"]):
        return None
    accepted = {name: margin[np.searchsorted(pairs, wanted[name])] > 0 for name in ("positive", "negative")}
    return float((np.mean(accepted["positive"]) + np.mean(~accepted["negative"])) / 2)


def _notes(accuracy, margin, top_k, candidates):
    """What a reader of the re-ranked figures must know: list of sentences."""
    notes = []
    if np.ptp(margin) == 0:
        notes.append("ITM gives every pair the same logits: rank by the contrastive score")
    elif accuracy is not None and accuracy < PRIOR_ACCURACY:
        notes.append(f"ITM is at its prior (balanced accuracy {accuracy:.2f}): rank by the contrastive score")
    if top_k < min(max(KS), candidates):
        notes.append(f"only the first {top_k} were re-ranked: recall beyond {top_k} counts no others")
    return notes
