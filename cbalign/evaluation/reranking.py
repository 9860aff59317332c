"""Re-ranking by the matching head: selecting the pairs, computing their logits, and recall of the new rankings."""

import numpy as np

from cbalign.evaluation.metrics import KS, directed_recall

# Balanced accuracy below which the matching head counts as untrained; constant predictions score 0.5.
PRIOR_ACCURACY = 0.55

# Elements of the similarity matrix that are partitioned at a time (an index of eight bytes each).
_CHUNK_ELEMENTS = 1 << 22


def rerank(match, similarity, image_ids, text_ids, top_k, temperature):
    """Computes the part of the result that depends on the matching head.

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
        # One matrix at a time: it is the largest array.
        tr = directed_recall(_matrix(similarity.shape, pairs, scores, wanted["tr"]), image_ids, text_ids, prefix="tr")
        ir = directed_recall(_matrix(similarity.shape, pairs, scores, wanted["ir"]).T, text_ids, image_ids, prefix="ir")
        return {**tr, **ir}

    accuracy = _accuracy(pairs, margin, wanted)
    return {
        "itm": recall_by(logits[:, 1]),
        "sum": recall_by(similarity.ravel()[pairs] / np.float32(temperature) + margin),
        "itm_accuracy": accuracy,
        "notes": _notes(accuracy, margin, top_k, max(n_images, n_texts)),
    }


def _top(similarity, top_k):
    """Columns of the top_k largest values of each row, unordered: int64 [n, min(top_k, columns)]."""
    n, columns = similarity.shape
    k = min(top_k, columns)
    best = np.empty((n, k), np.int64)
    rows = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, n, rows):
        part = -similarity[start : start + rows]
        best[start : start + rows] = np.argpartition(part, k - 1, axis=1)[:, :k]
    return best


def _accuracy_pairs(image_ids, text_ids):
    """Pairs on which the matching head is evaluated: {"positive", "negative"}, int64 arrays of image * n_t + text.

    Images without a text are skipped; an image without any non-matching text has no negative.
    """
    values, first = np.unique(text_ids, return_index=True)
    place = np.minimum(np.searchsorted(values, image_ids), len(values) - 1)
    images = np.flatnonzero(values[place] == image_ids)
    # A fixed permutation, since neighbors in a data set are often similar.
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


def match_pairs(functions, image_tokens, text_tokens, text_ids_tokens, pairs, *, batch_size, token_bytes, progress):
    """Computes the logits of the matching head for sorted pairs: float32 [P, 2].

    Args:
      functions: `retrieval.Functions`.
      image_tokens, text_tokens: [n_i, n, w] and [n_t, L, v], on the host.
      text_ids_tokens: int32 [n_t, L].
      pairs: int64 [P], image * n_t + text, sorted.
      batch_size: pairs per call; with several devices so many more that each gets an image of its own with its texts.
      token_bytes: texts are kept on the devices if their tokens take no more, else sent with each call.
      progress: as in `retrieval.evaluate_retrieval`.

    Raises:
      ValueError: a logit is NaN.
    """
    size, width = call_shape(len(pairs), len(image_tokens), batch_size, functions.devices)
    images, texts, place = _units(pairs, len(text_tokens), width)
    starts = range(0, len(images), size)
    held = functions.hold(text_tokens, text_ids_tokens) if text_tokens.nbytes <= token_bytes else None
    number, count = functions.process

    def dispatched():
        for start in starts[number::count]:
            units = padded_rows(start, len(images), size)
            known, rows = held, texts[units]
            if known is None:
                known = functions.hold(text_tokens[rows.ravel()], text_ids_tokens[rows.ravel()])
                rows = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
            yield start, functions.match(known, rows, image_tokens[images[units]])

    # Entries that belong to other processes stay 0 here.
    logits = np.zeros((*texts.shape, 2), np.float32)
    for start, batch in one_behind(dispatched()):
        end = min(start + size, len(images))
        logits[start:end] = np.asarray(batch)[: end - start]
        progress("pairs", min(len(pairs), int(np.searchsorted(place, end * width))), len(pairs))
    logits = functions.combine(logits).reshape(-1, 2)[place]
    if np.isnan(logits).any():
        raise ValueError("the logits of the matching head contain NaN and cannot be ranked")
    return logits


def call_shape(n_pairs: int, n_images: int, batch_size: int, devices: int = 1) -> tuple[int, int]:
    """(images, texts for each of them) of one call of `match`; each device gets as many images."""
    width = _texts_per_image(n_pairs, n_images, batch_size)
    # A unit is never split: one for 8 devices would be computed 8 times.
    return -(-max(1, batch_size // width) // devices) * devices, width


def most_pairs(n_images: int, n_texts: int, top_k: int) -> int:
    """The most pairs that `rerank` can need: both directions' candidates, and two for each image's accuracy."""
    wanted = min(top_k, n_texts) * n_images + min(top_k, n_images) * n_texts + 2 * n_images
    return min(wanted, n_images * n_texts)


def _texts_per_image(n_pairs, n_images, batch_size):
    """Number of texts matched with an image in one unit: a power of two, at most batch_size.

    About a quarter of an image's texts, which keeps the padding of its last unit small.
    """
    wanted = min(64, batch_size, max(1, n_pairs // (4 * n_images)))
    return 1 << (wanted.bit_length() - 1)


def _units(pairs, n_texts, width):
    """Groups sorted pairs into units of one image and `width` texts; short units are padded with their first text.

    Returns:
      (images int64 [U], texts int32 [U, width], place int64 [P]: the position of each pair in [U * width], ascending).
    """
    image_of, text_of = np.divmod(pairs, n_texts)
    starts = np.flatnonzero(np.diff(image_of, prepend=-1))
    within = np.arange(len(pairs)) - np.repeat(starts, np.diff(starts, append=len(pairs)))
    column = within % width
    unit = np.cumsum(column == 0) - 1
    first = np.flatnonzero(column == 0)
    texts = np.repeat(text_of[first, None], width, axis=1).astype(np.int32)
    texts[unit, column] = text_of
    return image_of[first], texts, unit * width + column


def _matrix(shape, pairs, scores, chosen):
    """float32 matrix with the scores of the chosen pairs (a subset of the sorted `pairs`) and -inf elsewhere."""
    matrix = np.full(shape, -np.inf, np.float32)
    matrix.ravel()[chosen] = scores[np.searchsorted(pairs, chosen)]
    return matrix


def _accuracy(pairs, margin, wanted):
    """Balanced accuracy on wanted["positive"] and wanted["negative"], in 0..1; None if either is empty."""
    if not len(wanted["positive"]) or not len(wanted["negative"]):
        return None
    accepted = {name: margin[np.searchsorted(pairs, wanted[name])] > 0 for name in ("positive", "negative")}
    return float((np.mean(accepted["positive"]) + np.mean(~accepted["negative"])) / 2)


def _notes(accuracy, margin, top_k, candidates):
    """Remarks on the re-ranked results: list of sentences."""
    notes = []
    if np.ptp(margin) == 0:
        notes.append("ITM assigns the same logits to all pairs: rank by the contrastive score")
    elif accuracy is not None and accuracy < PRIOR_ACCURACY:
        notes.append(f"ITM is at chance level (balanced accuracy {accuracy:.2f}): rank by the contrastive score")
    if top_k < min(max(KS), candidates):
        notes.append(f"only the top {top_k} candidates were re-ranked: recall@k with k > {top_k} ignores the others")
    return notes


def padded_rows(start, n, size):
    """Indices start, start + 1, ... of a batch of fixed size, padded with the last row."""
    # A real row rather than an artificial one: a text of padding only, for instance, might not give finite values.
    return np.minimum(np.arange(start, start + size), n - 1)


def one_behind(dispatched):
    """Yields the same items, each one only after the next one has been dispatched.

    The device thus computes the next batch while the host waits for and copies the current one.
    """
    waiting = []
    for item in dispatched:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
