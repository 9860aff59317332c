"""Classification loss against torch, and the draw of text assignment against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.losses.classes import assign_images, class_losses


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_loss_against_torch(alpha):
    """(1 - alpha) cross_entropy - alpha sum(log_softmax * softmax of the teacher).mean(), as ALBEF's tasks have it."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, teacher, labels = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng.integers(3, size=8)
    found = class_losses(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(teacher), alpha=alpha)
    x, t = torch.tensor(logits), torch.tensor(teacher)
    hard = torch.nn.functional.cross_entropy(x, torch.tensor(labels))
    soft = -(torch.log_softmax(x, 1) * torch.softmax(t, 1)).sum(1).mean()
    np.testing.assert_allclose(found["class"], ((1 - alpha) * hard + alpha * soft).item(), rtol=1e-5)
    assert float(found["class_accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == labels))


def test_no_gradient_to_the_teacher():
    logits, labels = jnp.ones((2, 3)), jnp.array([0, 1])
    gradient = jax.grad(lambda t: class_losses(logits, labels, t, alpha=0.4)["class"])(jnp.eye(3)[:2])
    assert not np.any(np.asarray(gradient))


B = 5


@pytest.fixture(scope="module")
def many():
    """20,000 draws of the same batch of five images, of which rows 3 and 4 show the same."""
    similarity = jnp.asarray(np.random.default_rng(1).normal(size=(B, B)))
    ids = jnp.array([0, 1, 2, 3, 3])
    draws = jax.vmap(
        lambda step: assign_images(
            jax.random.fold_in(jax.random.key(0), step), similarity, ids, sample_index=jnp.arange(B)
        )
    )(jnp.arange(4000))
    return np.asarray(similarity), {name: np.asarray(x) for name, x in draws.items()}


def test_labels_are_equally_frequent(many):
    counts = np.bincount(many[1]["label"].ravel(), minlength=3)
    # Chi squared with 2 degrees of freedom: above 13.8 once in a thousand.
    assert ((counts - counts.sum() / 3) ** 2 / (counts.sum() / 3)).sum() < 13.8


def test_the_own_image_is_where_the_label_says(many):
    own = np.broadcast_to(np.arange(B), many[1]["label"].shape)
    first, second, label = many[1]["first"], many[1]["second"], many[1]["label"]
    assert np.all((first == own) == (label == 0)) and np.all((second == own) == (label == 1))
    assert np.all(first != second)


def test_images_of_the_same_id_are_no_distractors(many):
    first, second = many[1]["first"], many[1]["second"]
    assert not np.any(first[:, 3] == 4) and not np.any(second[:, 3] == 4)
    assert not np.any(first[:, 4] == 3) and not np.any(second[:, 4] == 3)


def test_distractors_are_drawn_by_similarity(many):
    similarity, draws = many
    for row in (0, 3):
        allowed = [j for j in range(B) if j != row and {j, row} != {3, 4}]
        wanted = np.exp(similarity[row, allowed])
        wanted /= wanted.sum()
        drawn = draws["second"][:, row][draws["label"][:, row] == 0]
        np.testing.assert_allclose(np.bincount(drawn, minlength=B)[allowed] / len(drawn), wanted, atol=0.05)


def test_neither_draws_two_without_replacement(many):
    similarity, draws = many
    row, allowed = 0, [1, 2, 3, 4]
    p = np.exp(similarity[row, allowed]) / np.exp(similarity[row, allowed]).sum()
    # Second draw j: sum over first draws i of p_i p_j / (1 - p_i).
    wanted = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    drawn = draws["second"][:, row][draws["label"][:, row] == 2]
    np.testing.assert_allclose(np.bincount(drawn, minlength=B)[1:] / len(drawn), wanted, atol=0.05)


def test_a_batch_of_one_image_falls_back():
    drawn = assign_images(jax.random.key(0), jnp.zeros((4, 4)), jnp.zeros(4, jnp.int32), sample_index=jnp.arange(4))
    assert np.all(np.asarray(drawn["first"]) != np.asarray(drawn["second"]))


def test_the_draw_belongs_to_the_sample():
    """A row draws the same wherever in the batch it stands, among the same similarities."""
    similarity, ids = jnp.zeros((4, 4)), jnp.arange(4)
    a = assign_images(jax.random.key(0), similarity, ids, sample_index=jnp.array([0, 1, 2, 3]))
    b = assign_images(jax.random.key(0), similarity, ids, sample_index=jnp.array([0, 9, 2, 3]))
    assert np.asarray(a["label"])[[0, 2, 3]].tolist() == np.asarray(b["label"])[[0, 2, 3]].tolist()
