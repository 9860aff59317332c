"""The loss of answers against a loop in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.losses.answers import answer_losses


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    ids = np.array([[[2, 7, 9, 3, 0], [2, 5, 3, 0, 0]], [[2, 6, 6, 8, 3], [0, 0, 0, 0, 0]]])
    weights = np.array([[0.7, 0.3], [0.5, 0.0]])
    return rng.normal(size=(2, 2, 4, 11)), ids, weights, rng.normal(size=(2, 2, 4, 11))


def by_hand(logits, ids, weights, teacher, alpha):
    total = 0.0
    for i in range(2):
        for a in range(2):
            for t in range(4):
                label = ids[i, a, t + 1]
                if label == 0:
                    continue
                log_p, q = log_softmax(logits[i, a, t]), np.exp(log_softmax(teacher[i, a, t]))
                total += weights[i, a] * ((1 - alpha) * -log_p[label] + alpha * -(q * log_p).sum())
    return total / 2


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_against_a_loop(case, alpha):
    logits, ids, weights, teacher = case
    found = answer_losses(
        jnp.asarray(logits), jnp.asarray(ids), jnp.asarray(weights), jnp.asarray(teacher), alpha=alpha
    )
    np.testing.assert_allclose(found["vqa"], by_hand(logits, ids, weights, teacher, alpha), rtol=1e-5)


def test_without_a_teacher_alpha_does_nothing(case):
    logits, ids, weights, teacher = case
    found = answer_losses(jnp.asarray(logits), jnp.asarray(ids), jnp.asarray(weights), alpha=0.4)
    np.testing.assert_allclose(found["vqa"], by_hand(logits, ids, weights, teacher, 0.0), rtol=1e-5)


def test_padding_and_empty_slots_get_no_gradient(case):
    logits, ids, weights, teacher = (jnp.asarray(x) for x in case)
    gradient = jax.grad(lambda x: answer_losses(x, ids, weights, teacher, alpha=0.4)["vqa"])(logits)
    silent = (np.asarray(ids)[..., 1:] == 0) | (np.asarray(weights)[..., None] == 0)
    assert np.all(np.asarray(gradient)[silent] == 0) and np.all(np.abs(np.asarray(gradient)[~silent]).sum(-1) > 0)


def test_no_gradient_to_the_teacher(case):
    logits, ids, weights, teacher = (jnp.asarray(x) for x in case)
    gradient = jax.grad(lambda x: answer_losses(logits, ids, weights, x, alpha=0.4)["vqa"])(teacher)
    assert not np.any(np.asarray(gradient))


def test_accuracy_counts_by_weight():
    ids = jnp.array([[[2, 5, 3], [2, 6, 3]]])
    # Right for the first answer's both tokens and the second one's closing token.
    logits = jax.nn.one_hot(jnp.array([[[5, 3], [5, 3]]]), 9)
    found = answer_losses(logits, ids, jnp.array([[0.6, 0.4]]), alpha=0.0)
    np.testing.assert_allclose(found["token_accuracy"], (0.6 * 2 + 0.4) / 2.0, rtol=1e-6)
