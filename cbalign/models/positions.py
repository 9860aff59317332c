"""Position embeddings of a vision transformer at another resolution."""

import numpy as np

# Parameter a of the cubic kernel, as in PyTorch (Keys 1981 and TensorFlow: -0.5).
_A = -0.75


def resize_positions(table, grid: int) -> np.ndarray:
    """Interpolates position embeddings to another patch grid.

    As in ALBEF (`models/vit.py`, `interpolate_pos_embed`): bicubic with a = -0.75, corners not aligned, no
    antialiasing, replicated borders; the row of [CLS] is kept.

    Args:
      table: [1, 1 + n * n, width]; row 0 belongs to [CLS].
      grid: patches per side of the new grid.

    Returns:
      float32 [1, 1 + grid * grid, width]; the table itself if it has that grid already.

    Raises:
      ValueError: the table has no square grid.
    """
    old = grid_side(table.shape[1] - 1)
    if old == grid:
        return table
    cls, patches = table[:, :1], table[0, 1:].reshape(old, old, -1)
    weights = bicubic_weights(old, grid)
    resized = np.einsum("yi,xj,ijd->yxd", weights, weights, patches.astype(np.float64), optimize=True)
    return np.concatenate([cls, resized.reshape(1, grid * grid, -1)], axis=1).astype(np.float32)


def grid_side(patches: int) -> int:
    """Patches per side of a square grid of that many patches; ValueError if there is no such grid."""
    side = round(patches**0.5)
    if side * side != patches or not side:
        raise ValueError(f"{patches} patches are not a square grid")
    return side


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """float64 [new, old]: the weight of each old sample in each new one, along one axis."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        sample = first + offset
        np.add.at(weights, (np.arange(new), np.clip(sample, 0, old - 1)), _cubic(np.abs(centres - sample)))
    return weights


def _cubic(x) -> np.ndarray:
    """Keys' cubic convolution kernel at distances 0 <= x <= 2."""
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
