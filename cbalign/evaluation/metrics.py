"""Recall@k of image-text retrieval, and what a random ranking would score."""

import numpy as np

KS = (1, 5, 10)

# Elements of the score matrix looked at together; the working memory is about ten bytes per element.
_CHUNK_ELEMENTS = 1 << 22


def recall(scores, image_ids, text_ids, *, ks=KS, scores_ir=None):
    """Recall@k in both directions, in per cent.

    Text j is right for image i iff text_ids[j] == image_ids[i]; both may have several right partners.

        rank(query) = number of wrong candidates whose score is >= the best score of a right candidate
        recall@k    = 100 * share of queries with rank < k

    So a query is a hit at k when its best-ranked right candidate is among the first k. Ties are pessimistic: a wrong
    candidate of equal score goes first, so that a constant model finds nothing instead of everything. A query without
    any right candidate is never a hit, and counts. -inf and inf are scores like others.

    Args:
      scores: [n_images, n_texts] float; larger is better. Texts are ranked for each image ("tr").
      image_ids: [n_images] ids, integers or strings.
      text_ids: [n_texts] ids of the same kind.
      ks: cut-offs, at least 1.
      scores_ir: [n_images, n_texts] float; images are ranked for each text ("ir") by its columns. Default: scores.

    Returns:
      {"tr@k": ..., "ir@k": ...} for every k: Python floats in per cent.

    Raises:
      ValueError: a NaN among the scores, shapes that do not fit, no image or no text, or a cut-off below 1.
    """
    scores_ir = scores if scores_ir is None else scores_ir
    found = directed_recall(scores, image_ids, text_ids, prefix="tr", ks=ks)
    return {**found, **directed_recall(np.asarray(scores_ir).T, text_ids, image_ids, prefix="ir", ks=ks)}


def directed_recall(scores, query_ids, candidate_ids, *, prefix, ks=KS):
    """Recall@k of one direction, in per cent; ranks, ties and errors as in `recall`.

    Args:
      scores: [n_queries, n_candidates] float; larger is better. n_candidates may be 0: nothing is found.
      query_ids: [n_queries] ids.
      candidate_ids: [n_candidates] ids.
      prefix: "tr" or "ir", for the names.
      ks: cut-offs, at least 1.

    Returns:
      {f"{prefix}@{k}": float in per cent}.
    """
    scores, query_ids, candidate_ids = np.asarray(scores), np.asarray(query_ids), np.asarray(candidate_ids)
    if scores.shape != (len(query_ids), len(candidate_ids)):
        raise ValueError(
            f"scores of shape {scores.shape} do not fit {len(query_ids)} queries and {len(candidate_ids)} candidates"
        )
    _check(query_ids, ks)
    rank = _ranks(scores, query_ids, candidate_ids)
    return {f"{prefix}@{k}": 100.0 * float(np.mean(rank < k)) for k in ks}


def chance(image_ids, text_ids, ks=KS):
    """Expected recall@k of a ranking drawn at random, exact, in per cent.

        1 - C(n - m, k) / C(n, k),  averaged over the queries,

    with n candidates of which m are right for the query: the chance that k draws without replacement hit one.

    Args:
      image_ids: [n_images] ids.
      text_ids: [n_texts] ids.
      ks: cut-offs, at least 1; larger ones than n count as n.

    Returns:
      {"tr@k": ..., "ir@k": ...} as `recall`.

    Raises:
      ValueError: no image or no text, or a cut-off below 1.
    """
    image_ids, text_ids = np.asarray(image_ids), np.asarray(text_ids)
    expected = {}
    for prefix, queries, candidates in (("tr", image_ids, text_ids), ("ir", text_ids, image_ids)):
        _check(queries, ks)
        right = _count_right(queries, candidates)
        expected.update({f"{prefix}@{k}": 100.0 * float(np.mean(_hit_chance(len(candidates), right, k))) for k in ks})
    return expected


def mean_recall(recalls):
    """The mean of all recalls of a dictionary that `recall` or `chance` returned, in per cent (a float)."""
    return float(np.mean(list(recalls.values())))


def _check(queries, ks):
    """Raises ValueError when there is no query or a cut-off below 1."""
    if len(queries) == 0:
        raise ValueError("recall needs at least one image and one text")
    if not ks or min(ks) < 1:
        raise ValueError(f"cut-offs must be at least 1, got {ks}")


def _ranks(scores, query_ids, candidate_ids):
    """Wrong candidates before the best right one: int64 [n_queries]; the largest int64 without a right one."""
    n_queries, n_candidates = scores.shape
    rank = np.full(n_queries, np.iinfo(np.int64).max)
    rows = max(1, _CHUNK_ELEMENTS // max(1, n_candidates))
    for start in range(0, n_queries, rows):
        part = scores[start:start + rows]
        if np.isnan(part).any():
            raise ValueError("the scores hold NaN: there is no ranking")
        right = query_ids[start:start + rows, None] == candidate_ids[None, :]
        best = np.max(part, axis=1, where=right, initial=-np.inf)
        before = np.count_nonzero((part >= best[:, None]) & ~right, axis=1)
        known = right.any(axis=1)
        rank[start:start + rows][known] = before[known]
    return rank


def _count_right(queries, candidates):
    """m of every query: int64 [n_queries]."""
    values, counts = np.unique(candidates, return_counts=True)
    if len(values) == 0:
        return np.zeros(len(queries), np.int64)
    place = np.minimum(np.searchsorted(values, queries), len(values) - 1)
    return np.where(values[place] == queries, counts[place], 0)


def _hit_chance(n, right, k):
    """1 - C(n - m, k) / C(n, k) for every m of `right`: float64 [n_queries]."""
    # The quotient is a product of k factors, so that no binomial of 25,000 texts is ever formed.
    draws = np.arange(min(k, n))
    miss = np.maximum(n - right[:, None] - draws, 0) / (n - draws)
    return 1.0 - np.prod(miss, axis=1)
