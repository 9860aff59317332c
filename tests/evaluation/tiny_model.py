"""A small model with random weights, the evaluator's functions of it, and galleries for it."""

import jax
import numpy as np

from cbalign.evaluation import encoders
from cbalign.models.alignment import AlignmentModel
from cbalign.models.towers import Sizes

SIZE, LENGTH = 24, 7


def model_and_params(*, seed=0, **changes):
    """An `AlignmentModel` with all parameters far from their initial values, float32."""
    sizes = dict(
        image_size=SIZE,
        patch_size=8,
        image_width=16,
        image_depth=1,
        image_heads=2,
        vocab_size=50,
        max_positions=LENGTH,
        text_width=16,
        text_depth=1,
        text_heads=2,
        fusion_depth=2,
        dropout=0.0,
    )
    model = AlignmentModel(Sizes(**{**sizes, **changes}), embed_dim=8, num_codes=4)
    size = model.sizes.image_size
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, size, size, 3), np.uint8), np.ones((1, 2), np.int32)
    )["params"]
    rng = np.random.default_rng(seed)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: ((path[-1].key == "scale") + 0.3 * rng.normal(size=x.shape)).astype(np.float32), shapes
    )
    return model, {**params, "temperature": {"value": np.float32(0.07)}}


def gallery(n_images, n_texts, *, size=SIZE, seed=0):
    """(images uint8 [n_i, S, S, 3], ids int32 [n_t, L] with padding, image ids, text ids)."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 50, (n_texts, LENGTH)).astype(np.int32)
    ids[np.arange(LENGTH)[None, :] >= rng.integers(3, LENGTH + 1, n_texts)[:, None]] = 0
    images = rng.integers(0, 256, (n_images, size, size, 3)).astype(np.uint8)
    return images, ids, np.arange(n_images), np.arange(n_texts) % n_images


def functions(model, params):
    """The evaluator's functions, over the devices there are."""
    return encoders.bind(encoders.compiled_methods(model), params)


def batches(images, size):
    """Batches of a fixed size with the number of their valid rows."""
    for start in range(0, len(images), size):
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        yield images[rows], min(size, len(images) - start)
