"""Memory layouts of a tensor in a PyTorch checkpoint and in this project; each converts both ways without loss."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# ALBEF's mark of a slot of its id queue that was never written; in this project it is -1.
_ALBEF_EMPTY = -100


class Layout(NamedTuple):
    """A pair of functions that are inverse to each other.

    Attributes:
      to_ours: a tensor of the checkpoint -> the parameters of this project that it holds (views where possible).
      to_theirs: these parameters -> the checkpoint's tensor.
    """

    to_ours: Callable[[np.ndarray], tuple]
    to_theirs: Callable[..., np.ndarray]


def _patch_kernel(x):
    """[width, 3, p, p] of a convolution -> [p * p * 3, width], pixels of a patch by row, column and channel."""
    return (x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),)


def _patch_convolution(x):
    side = round((x.shape[0] / 3) ** 0.5)
    return x.reshape(side, side, 3, x.shape[1]).transpose(3, 2, 0, 1)


def _thirds(x):
    if x.shape[0] % 3:
        raise ValueError(f"it should hold queries, keys and values, but its shape {x.shape} does not split into three")
    return tuple(np.split(x, 3, axis=0))


SAME = Layout(lambda x: (x,), lambda x: x)
TRANSPOSED = Layout(lambda x: (x.T,), lambda x: x.T)
PATCHES = Layout(_patch_kernel, _patch_convolution)
FUSED_KERNELS = Layout(
    lambda x: tuple(part.T for part in _thirds(x)), lambda *x: np.concatenate([part.T for part in x])
)
FUSED_BIASES = Layout(_thirds, lambda *x: np.concatenate(x))
# `queue_ptr` is int64 [1] in ALBEF and an int32 scalar in this project.
POINTER = Layout(lambda x: (x.reshape(()).astype(np.int32),), lambda x: x.reshape(1).astype(np.int64))
# `idx_queue` is int64 [1, Q] in ALBEF.
IDS = Layout(
    lambda x: (np.where(x[0] == _ALBEF_EMPTY, -1, x[0]).astype(np.int32),),
    lambda x: np.where(x == -1, _ALBEF_EMPTY, x).astype(np.int64)[None],
)
