"""How much what a pair is aligned by moves from one checkpoint to the next.

The paper holds that assignments to codes move more slowly than similarities between instances do. Both are compared
here as each pair's profile over a set of candidates: the codes, or as many other pairs. All three measures are free of
the profile's scale, so that the two kinds can stand beside one another.
"""

import numpy as np


def nearest_changed(before, after) -> float:
    """The share of rows whose largest entry is another one.

    Args:
      before, after: [n, m] profiles of the same n pairs over the same m candidates; -inf leaves a candidate out.
    """
    return float(np.mean(np.argmax(before, axis=1) != np.argmax(after, axis=1)))


def relative_movement(before, after) -> float:
    """Total variation between a row's two distributions, relative to that between different rows.

        movement = mean_i TV(p_i, q_i),  spread = mean_i (TV(p_i, p_j(i)) + TV(q_i, q_j(i))) / 2,  TV = |p - q|_1 / 2

    with j(i) = i - n // 2 modulo n. 0 is a row that stays as it is, 1 one that moves as far as another pair is.

    Args:
      before, after: [n, m] rows are distributions.

    Returns:
      movement / spread; NaN where all rows are alike.
    """
    shift = len(before) // 2

    def variation(p, q):
        return float(np.mean(np.sum(np.abs(p - q), axis=1)) / 2)

    spread = (variation(before, np.roll(before, shift, axis=0)) + variation(after, np.roll(after, shift, axis=0))) / 2
    return variation(before, after) / spread if spread else float("nan")


def decorrelation(before, after) -> float:
    """1 - the mean over rows of Pearson's correlation between a row before and after.

    Args:
      before, after: [n, m] similarities; entries that are not finite in both are left out.
    """
    correlations = []
    for p, q in zip(np.asarray(before, np.float64), np.asarray(after, np.float64)):
        kept = np.isfinite(p) & np.isfinite(q)
        p, q = p[kept] - p[kept].mean(), q[kept] - q[kept].mean()
        norm = np.linalg.norm(p) * np.linalg.norm(q)
        correlations.append(p @ q / norm if norm else 0.0)
    return 1.0 - float(np.mean(correlations))


def softmax(scores):
    """Rows of scores [n, m] as distributions; -inf is 0."""
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
