"""Queue and teacher against tables computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.training.momentum_queue import enqueue, fill, init_queue, newest
from cbalign.training.state import update_teacher


def rows(*values):
    return jnp.asarray([[v, -v] for v in values], jnp.float32)


def test_queue_starts_with_unit_vectors_that_count_as_empty():
    queue = init_queue(jax.random.key(0), size=6, width=16)
    np.testing.assert_allclose(np.linalg.norm(queue.image, axis=1), 1.0, rtol=1e-5)
    assert not np.allclose(queue.image, queue.text)
    assert list(queue.ids) == [-1] * 6 and int(queue.pointer) == 0 and float(fill(queue)) == 0.0


def test_queue_content_pointer_and_wrap():
    queue = init_queue(jax.random.key(0), size=6, width=2)
    for batch in ((1, 2), (3, 4), (5, 6), (7, 8)):
        ids = jnp.asarray(batch, jnp.int32)
        queue = enqueue(queue, image=rows(*batch), text=rows(*(10 * x for x in batch)), ids=ids)
    assert list(queue.ids) == [7, 8, 3, 4, 5, 6]
    assert int(queue.pointer) == 2 and float(fill(queue)) == 1.0
    np.testing.assert_array_equal(queue.image[:, 0], [7, 8, 3, 4, 5, 6])
    np.testing.assert_array_equal(queue.text[:, 1], [-70, -80, -30, -40, -50, -60])
    assert list(newest(queue, 3)["ids"]) == [8, 7, 6]


def test_no_gradient_reaches_the_queue():
    queue = init_queue(jax.random.key(0), size=4, width=2)

    def total(x):
        return jnp.sum(enqueue(queue, image=x, text=x, ids=jnp.zeros(2, jnp.int32)).image)

    np.testing.assert_array_equal(jax.grad(total)(rows(1, 2)), np.zeros((2, 2)))


def test_teacher_is_the_moving_average_of_what_it_names():
    teacher = {"image_encoder": {"w": jnp.asarray([1.0, 0.0])}}
    params = {"image_encoder": {"w": jnp.asarray([0.0, 4.0])}, "codebook": {"codes": jnp.ones(3)}}
    for expected in ([0.75, 1.0], [0.5625, 1.75], [0.421875, 2.3125]):
        teacher = update_teacher(teacher, params, momentum=0.75)
        assert list(teacher) == ["image_encoder"]
        np.testing.assert_allclose(teacher["image_encoder"]["w"], expected)


def test_no_gradient_reaches_the_student_through_the_teacher():
    teacher = {"image_encoder": {"w": jnp.ones(2)}}
    gradient = jax.grad(
        lambda w: jnp.sum(update_teacher(teacher, {"image_encoder": {"w": w}}, momentum=0.5)["image_encoder"]["w"])
    )(jnp.ones(2))
    np.testing.assert_array_equal(gradient, np.zeros(2))


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_teacher_at_the_ends_of_momentum(momentum):
    updated = update_teacher({"a": jnp.zeros(1)}, {"a": jnp.ones(1)}, momentum=momentum)
    assert float(updated["a"][0]) == 1.0 - momentum
