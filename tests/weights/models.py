"""Small models and their checkpoints in public layouts."""

import dataclasses

import flax
import torch

from cbalign.models.alignment import AlignmentModel
from cbalign.models.towers import Sizes
from tests.peers.albef import Albef
from tests.peers.randomise import randomise

QUEUE = 8
EMBED_DIM, CODES = 8, 6
SIZES = Sizes(
    image_size=32,
    patch_size=8,
    image_width=24,
    image_depth=2,
    image_heads=4,
    vocab_size=40,
    max_positions=12,
    text_width=16,
    text_depth=2,
    text_heads=4,
    fusion_depth=2,
)


def small_model(*, embed_dim=EMBED_DIM, **changes) -> AlignmentModel:
    return AlignmentModel(dataclasses.replace(SIZES, **changes), embed_dim, CODES)


def albef_checkpoint(model=None, *, seed=0, **options) -> dict:
    """A state dict in ALBEF's layout, as numpy arrays."""
    torch.manual_seed(seed)
    albef = randomise(Albef(model or small_model(), queue_size=QUEUE, **options), seed=seed)
    return as_arrays(albef)


def as_arrays(module) -> dict:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def as_tree(arrays: dict, prefix: str) -> dict:
    """The tree under a prefix of flat names."""
    flat = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def assert_same(first: dict, second: dict) -> None:
    """Bit for bit, names, shapes and types included."""
    assert set(first) == set(second)
    for name, array in first.items():
        other = second[name]
        assert (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
