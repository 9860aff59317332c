"""Recomputing activations changes neither parameters nor gradients, in any stack of any model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.models.alignment import AlignmentModel
from cbalign.models.nlvr2 import AssignmentModel, PairModel
from cbalign.models.snli_ve import EntailmentModel
from cbalign.models.towers import Sizes
from cbalign.models.vqa import AnswerModel

SIZES = Sizes(
    image_size=16,
    patch_size=8,
    image_width=16,
    image_depth=2,
    image_heads=2,
    vocab_size=20,
    max_positions=6,
    text_width=8,
    text_depth=1,
    text_heads=2,
    fusion_depth=2,
    dropout=0.2,
    init_std=0.3,
)
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
IDS = np.array([[2, 5, 6, 7], [2, 9, 0, 0]], np.int32)


def alignment(model):
    image, text = model.encode_image(IMAGE), model.encode_text(IDS, deterministic=False)
    return model.match(model.fuse(text["tokens"], IDS, image["tokens"], deterministic=False))


def answers(model):
    states = model.question_states(IMAGE, IDS, deterministic=False)
    return model.answer_logits(states, IDS, IDS[:, :3], deterministic=False)


def entailment(model):
    return model.classify((IMAGE,), IDS, deterministic=False)


def pairs(model):
    return model.classify((IMAGE, IMAGE[::-1]), IDS, deterministic=False)


def assignment(model):
    first = model.encode_image(IMAGE)["tokens"]
    return model.assign(model.fuse_pair(IDS, first, first[::-1], deterministic=False))


MODELS = [
    (AlignmentModel, alignment, 2 + 1 + 2),
    pytest.param(AnswerModel, answers, 2 + 1 + 2 + 2, marks=pytest.mark.slow),
    pytest.param(EntailmentModel, entailment, 2 + 1 + 2, marks=pytest.mark.slow),
    pytest.param(PairModel, pairs, 2 + 1 + 2 * 2, marks=pytest.mark.slow),
    pytest.param(AssignmentModel, assignment, 2 + 1 + 2 * 2, marks=pytest.mark.slow),
]


def both(model_class):
    """The model that stores its activations, and the one that recomputes them."""
    return model_class(SIZES), model_class(dataclasses.replace(SIZES, remat=True))


def loss(model, outputs):
    def value(params):
        found = model.apply({"params": params}, method=outputs, rngs={"dropout": jax.random.key(1)})
        return jnp.sum(jnp.square(found))

    return value


@pytest.mark.parametrize("model_class, outputs, blocks", MODELS)
def test_every_block_recomputes(model_class, outputs, blocks):
    counts = []
    for model in both(model_class):
        params = jax.eval_shape(model.init, jax.random.key(0), IMAGE, IDS)["params"]
        counts.append(str(jax.make_jaxpr(loss(model, outputs))(params)).count("prevent_cse="))
    assert counts == [0, blocks]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_class, outputs",
    [
        (AlignmentModel, alignment),
        (EntailmentModel, entailment),
        # The same blocks, in models that take twice as long.
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((AnswerModel, answers), (PairModel, pairs), (AssignmentModel, assignment))
        ),
    ],
)
def test_parameters_and_gradients_are_the_same(model_class, outputs):
    stored, recomputed = both(model_class)
    params, again = (jax.jit(model.init)(jax.random.key(0), IMAGE, IDS)["params"] for model in (stored, recomputed))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    expected, found = (jax.jit(jax.value_and_grad(loss(model, outputs)))(params) for model in (stored, recomputed))
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), expected, found)
