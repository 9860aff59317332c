"""How far apart the images' and the texts' regions of a shared embedding space lie."""

import numpy as np


def modality_gap(images, texts) -> float:
    """The distance between the mean image and the mean text, |mean_i z_i - mean_j z_j| (Liang et al., NeurIPS 2022).

    Args:
      images, texts: [n, d] and [m, d], rows of unit length.

    Returns:
      A figure in [0, 2]; 0 where the two means coincide.
    """
    return float(np.linalg.norm(np.mean(images, axis=0) - np.mean(texts, axis=0)))


def mean_cosines(images, texts, pairs) -> tuple[float, float]:
    """(mean cosine of the pairs, mean cosine of all other combinations of an image and a text).

    Args:
      images, texts: [n, d] and [m, d], rows of unit length.
      pairs: int [p, 2], places of an image and of a text that belong together.
    """
    own = float(np.sum(images[pairs[:, 0]] * texts[pairs[:, 1]]))
    sums = [np.sum(side, axis=0, dtype=np.float64) for side in (images, texts)]
    everything = float(np.dot(sums[0], sums[1]))
    others = len(images) * len(texts) - len(pairs)
    return own / max(1, len(pairs)), (everything - own) / max(1, others)
