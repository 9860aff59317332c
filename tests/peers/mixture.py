"""Features mixed of codes in float64: sparsemax by bisection for its threshold, without sorting."""

import numpy as np

from tests.peers.transport import unit


def sparsemax(x):
    """Rows of x [..., K] less the threshold at which what lies above it sums to one."""
    x = np.asarray(x, np.float64)
    low, high = x.max(axis=-1) - 1, x.max(axis=-1)
    for _ in range(100):
        middle = (low + high) / 2
        above = np.maximum(x - middle[..., None], 0).sum(axis=-1) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.maximum(x - low[..., None], 0)


def mixture(z, codes, temperature):
    """z [n, d] and codes [K, d], of any length -> unit vectors [n, d]."""
    codes = unit(np.asarray(codes, np.float64))
    return unit(sparsemax(unit(np.asarray(z, np.float64)) @ codes.T / temperature) @ codes)
