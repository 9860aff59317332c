"""Recall@k of image-text retrieval, and its expected value for a random ranking."""

import numpy as np

KS = (1, 5, 10)

# Elements of the score matrix processed at a time; the working memory is about ten bytes per element.
_CHUNK_ELEMENTS = 1 << 22


def recall(scores, image_ids, text_ids, *, ks=KS, scores_ir=None):
    """Recall@k in both directions, in percent.

    Text j matches image i iff text_ids[j] == image_ids[i]; both may have several matches.

        rank(query) = number of non-matching candidates whose score is >= the best score of a matching candidate
        recall@k    = 100 * fraction of queries with rank < k

    A query is thus a hit at k when its best-ranked match is among the top k. Ties are resolved pessimistically: a
    non-matching candidate with an equal score ranks first, so that a constant model scores 0 instead of 100. A query
    without any match is a miss and is included in the average. -inf and inf are valid scores.

    Args:
      scores: [n_images, n_texts] float; larger is better. Texts are ranked for each image ("tr").
      image_ids: [n_images] ids, integers or strings.
      text_ids: [n_texts] ids of the same kind.
      ks: cutoffs, at least 1.
      scores_ir: [n_images, n_texts] float; its columns rank the images for each text ("ir"). Default: scores.

    Returns:
      {"tr@k": ..., "ir@k": ...} for every k: Python floats in percent.

    Raises:
      ValueError: NaN scores, mismatched shapes, no image or no text, or a cutoff below 1.
    """
    scores_ir = scores if scores_ir is None else scores_ir
    found = directed_recall(scores, image_ids, text_ids, prefix="tr", ks=ks)
    return {**found, **directed_recall(np.asarray(scores_ir).T, text_ids, image_ids, prefix="ir", ks=ks)}


def directed_recall(scores, query_ids, candidate_ids, *, prefix, ks=KS):
    """Recall@k of one direction, in percent; ranks, ties and errors as in `recall`.

    Args:
      scores: [n_queries, n_candidates] float; larger is better. n_candidates may be 0, which gives 0.
      query_ids: [n_queries] ids.
      candidate_ids: [n_candidates] ids.
      prefix: "tr" or "ir", used in the keys.
      ks: cutoffs, at least 1.

    Returns:
      {f"{prefix}@{k}": float in percent}.
    """
    scores, query_ids, candidate_ids = np.asarray(scores), np.asarray(query_ids), np.asarray(candidate_ids)
    if scores.shape != (len(query_ids), len(candidate_ids)):
        raise ValueError(
            f"scores of shape {scores.shape} do not match {len(query_ids)} queries and {len(candidate_ids)} candidates"
        )
    _check(query_ids, ks)
    rank = _ranks(scores, query_ids, candidate_ids)
    return {f"{prefix}@{k}": 100.0 * float(np.mean(rank < k)) for k in ks}


def chance(image_ids, text_ids, ks=KS):
    """Exact expected recall@k of a uniformly random ranking, in percent.

        1 - C(n - m, k) / C(n, k),  averaged over the queries,

    with n candidates of which m match the query: the probability that k draws without replacement include a match.

    Args:
      image_ids: [n_images] ids.
      text_ids: [n_texts] ids.
      ks: cutoffs, at least 1; values above n count as n.

    Returns:
      {"tr@k": ..., "ir@k": ...} as `recall`.

    Raises:
      ValueError: no image or no text, or a cutoff below 1.
    """
    image_ids, text_ids = np.asarray(image_ids), np.asarray(text_ids)
    expected = {}
    for prefix, queries, candidates in (("tr", image_ids, text_ids), ("ir", text_ids, image_ids)):
        _check(queries, ks)
        right = _count_right(queries, candidates)
        expected.update({f"{prefix}@{k}": 100.0 * float(np.mean(_hit_chance(len(candidates), right, k))) for k in ks})
    return expected


def mean_recall(recalls):
    """The mean over the values that `recall` or `chance` returned, in percent (a float)."""
    return float(np.mean(list(recalls.values())))


def _check(queries, ks):
    """Raises ValueError if there are no queries or a cutoff is below 1."""
    if len(queries) == 0:
        raise ValueError("recall needs at least one image and one text")
    if not ks or min(ks) < 1:
        raise ValueError(f"cutoffs must be at least 1, got {ks}")


def _ranks(scores, query_ids, candidate_ids):
    """Non-matching candidates ranked before the best match: int64 [n_queries]; the largest int64 without a match."""
    n_queries, n_candidates = scores.shape
    rank = np.full(n_queries, np.iinfo(np.int64).max)
    rows = max(1, _CHUNK_ELEMENTS // max(1, n_candidates))
    for start in range(0, n_queries, rows):
        part = scores[start : start + rows]
        if np.isnan(part).any():
            raise ValueError("the scores contain NaN and cannot be ranked")
        right = query_ids[start : start + rows, None] == candidate_ids[None, :]
        best = np.max(part, axis=1, where=right, initial=-np.inf)
        before = np.count_nonzero((part >= best[:, None]) & ~right, axis=1)
        known = right.any(axis=1)
        rank[start : start + rows][known] = before[known]
    return rank


def _count_right(queries, candidates):
    """The number m of matches of each query: int64 [n_queries]."""
    values, counts = np.unique(candidates, return_counts=True)
    if len(values) == 0:
        return np.zeros(len(queries), np.int64)
    place = np.minimum(np.searchsorted(values, queries), len(values) - 1)
    return np.where(values[place] == queries, counts[place], 0)


def _hit_chance(n, right, k):
    """1 - C(n - m, k) / C(n, k) for each m in `right`: float64 [n_queries]."""
    # The quotient as a product of k factors, which avoids binomial coefficients of 25,000 texts.
    draws = np.arange(min(k, n))
    miss = np.maximum(n - right[:, None] - draws, 0) / (n - draws)
    return 1.0 - np.prod(miss, axis=1)
