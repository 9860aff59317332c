"""How much the alignment targets of a pair change from one checkpoint to the next.

The paper claims that codebook assignments change more slowly than instance similarities. Both are represented here as a
profile of each pair over a set of candidates: the codes, or an equal number of other pairs. All three measures are
invariant to the scale of the profile, which makes the two kinds comparable.
"""

import numpy as np


def nearest_changed(before, after) -> float:
    """The fraction of rows whose largest entry changes.

    Args:
      before, after: [n, m] profiles of the same n pairs over the same m candidates; -inf excludes a candidate.
    """
    return float(np.mean(np.argmax(before, axis=1) != np.argmax(after, axis=1)))


def relative_movement(before, after) -> float:
    """Total variation distance between a row's two distributions, relative to that between different rows.

        movement = mean_i TV(p_i, q_i),  spread = mean_i (TV(p_i, p_j(i)) + TV(q_i, q_j(i))) / 2,  TV = |p - q|_1 / 2

    with j(i) = i - n // 2 modulo n. 0 means no change; 1 means that rows move as far as different pairs are apart.

    Args:
      before, after: [n, m]; each row is a distribution.

    Returns:
      movement / spread; NaN if all rows are equal.
    """
    shift = len(before) // 2

    def variation(p, q):
        return float(np.mean(np.sum(np.abs(p - q), axis=1)) / 2)

    spread = (variation(before, np.roll(before, shift, axis=0)) + variation(after, np.roll(after, shift, axis=0))) / 2
    return variation(before, after) / spread if spread else float("nan")


def decorrelation(before, after) -> float:
    """1 - the mean over rows of Pearson's correlation between a row before and after.

    Args:
      before, after: [n, m] similarities; entries that are not finite in both are ignored.
    """
    correlations = []
    for p, q in zip(np.asarray(before, np.float64), np.asarray(after, np.float64)):
        kept = np.isfinite(p) & np.isfinite(q)
        p, q = p[kept] - p[kept].mean(), q[kept] - q[kept].mean()
        norm = np.linalg.norm(p) * np.linalg.norm(q)
        correlations.append(p @ q / norm if norm else 0.0)
    return 1.0 - float(np.mean(correlations))


def softmax(scores):
    """Softmax over each row of scores [n, m]; -inf gives 0."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def compare(before: dict, after: dict) -> dict:
    """The three measures between two profiles of one kind.

    Args:
      before, after: {"similarities": [n, m], "distributions": [n, m]}.

    Returns:
      {"changed", "moved", "decorrelated"}: see `nearest_changed`, `relative_movement`, `decorrelation`.
    """
    return {
        "changed": nearest_changed(before["distributions"], after["distributions"]),
        "moved": relative_movement(before["distributions"], after["distributions"]),
        "decorrelated": decorrelation(before["similarities"], after["similarities"]),
    }
