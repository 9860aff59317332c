"""Interpolation of position embeddings against PyTorch's."""

import numpy as np
import pytest
import torch

from cbalign.models.positions import grid_side, resize_positions


def albefs(table, grid):
    """What ALBEF's `interpolate_pos_embed` computes, with PyTorch."""
    old = int((table.shape[1] - 1) ** 0.5)
    patches = torch.tensor(table[:, 1:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return np.concatenate([table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2).numpy()], axis=1)


@pytest.mark.parametrize("old, new", [(14, 16), (16, 24), (14, 24), (24, 16), (4, 5), (3, 2), (2, 7), (1, 3)])
def test_equals_torch(old, new):
    table = np.random.default_rng(old).normal(size=(1, 1 + old * old, 6)).astype(np.float32)
    resized = resize_positions(table, new)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, albefs(table, new), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(resized[:, 0], table[:, 0])


def test_same_grid_is_left_bit_for_bit():
    table = np.random.default_rng(0).normal(size=(1, 17, 6)).astype(np.float32)
    assert np.array_equal(resize_positions(table, 4), table)


@pytest.mark.parametrize("patches", [0, 15, 17])
def test_no_square_is_refused(patches):
    with pytest.raises(ValueError, match=f"{patches} patches"):
        grid_side(patches)
