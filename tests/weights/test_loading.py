"""A fresh state with weights from elsewhere in it."""

import flax
import jax
import numpy as np
import pytest

from cbalign.errors import UserError
from cbalign.models.alignment import teacher_subset
from cbalign.weights import loading
from cbalign.weights.convert import match_checkpoint, param_shapes
from cbalign.models.positions import resize_positions
from cbalign.weights.folder import Weights, vocabulary_info
from cbalign.training.momentum_queue import init_queue
from cbalign.training.state import TrainState
from tests.weights.models import QUEUE, albef_checkpoint, as_tree, small_model


class Words:
    """A tokenizer as far as its vocabulary goes."""

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}


def fresh(model=None):
    flat = {name: np.full(shape, 0.5, np.float32) for name, shape in param_shapes(model or small_model()).items()}
    params = as_tree(flat, "params/")
    return TrainState(step=np.zeros((), np.int32), seed=np.zeros((), np.uint32), params=params,
                      teacher=teacher_subset(params), queue=init_queue(jax.random.key(0), size=QUEUE, width=8), opt_state=())


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def albef_arrays(**options):
    return match_checkpoint("albef", albef_checkpoint(**options), small_model(), queue_size=QUEUE).arrays


def test_what_is_given_is_taken_and_the_rest_stays():
    arrays = albef_arrays()
    state = loading.start_from(fresh(), arrays)
    for name, leaf in flat(state.params).items():
        np.testing.assert_array_equal(leaf, arrays.get(f"params/{name}", 0.5), err_msg=name)
    for name, leaf in flat(state.teacher).items():
        np.testing.assert_array_equal(leaf, arrays[f"teacher/{name}"], err_msg=name)


def test_teacher_is_a_copy_of_the_student_after_loading():
    arrays = {name: array for name, array in albef_arrays().items() if name.startswith("params/image_encoder/")}
    state = loading.start_from(fresh(), arrays)
    students = flat(state.params)
    assert flat(state.teacher)
    for name, leaf in flat(state.teacher).items():
        np.testing.assert_array_equal(leaf, students[name], err_msg=name)
        assert not np.shares_memory(leaf, students[name])


@pytest.mark.parametrize("retrieval, written", [(False, QUEUE), (True, 3)])
def test_queues_keep_features_and_lose_foreign_ids(retrieval, written):
    arrays = albef_arrays(retrieval=retrieval)
    queue = loading.start_from(fresh(), arrays).queue
    np.testing.assert_array_equal(queue.image, arrays["queue/image"])
    np.testing.assert_array_equal(queue.text, arrays["queue/text"])
    assert queue.pointer == 3
    np.testing.assert_array_equal(queue.ids, [loading.FOREIGN_ID] * written + [-1] * (QUEUE - written))


def test_positions_are_interpolated_in_student_and_teacher():
    arrays = albef_arrays()
    state = loading.start_from(fresh(small_model(image_size=48)), arrays)
    for tree, root in ((state.params, "params"), (state.teacher, "teacher")):
        expected = resize_positions(arrays[f"{root}/image_encoder/position_embedding"], 6)
        np.testing.assert_array_equal(tree["image_encoder"]["position_embedding"], expected)


@pytest.mark.parametrize("arrays, message", [
    ({"params/image_encoder/layer_7/mlp/output/bias": np.zeros(24, np.float32)}, "layer_7.* does not have"),
    ({"params/image_projection/bias": np.zeros(9, np.float32)}, r"the shape \(9,\), the model .* has \(8,\)"),
    ({"queue/image": np.zeros((2 * QUEUE, 8), np.float32)}, r"queues of shape \(16, 8\)"),
])
def test_weights_that_do_not_fit_are_named(arrays, message):
    with pytest.raises(UserError, match=message):
        loading.start_from(fresh(), arrays)


def test_sources_are_combined():
    image = Weights("a", {"params/image_encoder/cls_token": np.ones(1)}, {"vocabulary": None})
    text = Weights("b", {"params/text_encoder/x": np.ones(2)}, {"vocabulary": vocabulary_info(Words("x", "y"))})
    assert set(loading.combine([image, text], tokenizer=Words("x", "y"))) == {*image.arrays, *text.arrays}
    with pytest.raises(UserError, match="a and c both give params/image_encoder/cls_token"):
        loading.combine([image, Weights("c", image.arrays, {})], tokenizer=Words("x", "y"))
    with pytest.raises(UserError, match="b was made for another vocabulary"):
        loading.combine([image, text], tokenizer=Words("y", "x"))
