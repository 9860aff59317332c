"""How one tensor lies in a PyTorch checkpoint and how it lies here; each layout goes both ways without loss."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# ALBEF marks slots of its id queue that were never written so; here they are -1.
_ALBEF_EMPTY = -100


class Layout(NamedTuple):
    """A pair of functions that undo each other.

    Attributes:
      to_ours: a tensor of the checkpoint -> the tensors here that it holds (views where possible).
      to_theirs: those tensors -> the checkpoint's.
    """

    to_ours: Callable[[np.ndarray], tuple]
    to_theirs: Callable[..., np.ndarray]


def _patch_kernel(x):
    """[width, 3, p, p] of a convolution -> [p * p * 3, width], in a patch's order of row, column, channel."""
    return (x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),)


def _patch_convolution(x):
    side = round((x.shape[0] / 3) ** 0.5)
    return x.reshape(side, side, 3, x.shape[1]).transpose(3, 2, 0, 1)


def _thirds(x):
    if x.shape[0] % 3:
        raise ValueError(f"queries, keys and values in one tensor, but its shape {x.shape} does not split in three")
    return tuple(np.split(x, 3, axis=0))


SAME = Layout(lambda x: (x,), lambda x: x)
TRANSPOSED = Layout(lambda x: (x.T,), lambda x: x.T)
PATCHES = Layout(_patch_kernel, _patch_convolution)
FUSED_KERNELS = Layout(lambda x: tuple(part.T for part in _thirds(x)),
                       lambda *x: np.concatenate([part.T for part in x]))
FUSED_BIASES = Layout(_thirds, lambda *x: np.concatenate(x))
# `queue_ptr` is int64 [1] there and an int32 scalar here.
POINTER = Layout(lambda x: (x.reshape(()).astype(np.int32),), lambda x: x.reshape(1).astype(np.int64))
# `idx_queue` is int64 [1, Q].
IDS = Layout(
    lambda x: (np.where(x[0] == _ALBEF_EMPTY, -1, x[0]).astype(np.int32),),
    lambda x: np.where(x == -1, _ALBEF_EMPTY, x).astype(np.int64)[None],
)
