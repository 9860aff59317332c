"""Parameters passed from one task to the next: renames, what stays initialised, teacher, queues, and clear refusals."""

import flax
import jax
import numpy as np
import pytest

from cbalign.errors import UserError
from cbalign.models.alignment import teacher_subset
from cbalign.models.positions import resize_positions
from cbalign.tasks.nlvr2 import Nlvr2, TextAssignment
from cbalign.tasks.pretrain import Pretrain
from cbalign.tasks.snli_ve import SnliVe
from cbalign.tasks.transfer import (
    FOREIGN_ID,
    Transfer,
    find_transfer,
    flatten,
    transfer_params,
    transfer_state,
    vocabulary_rows,
    word_pieces,
)
from cbalign.tasks.vqa import Vqa
from cbalign.training.momentum_queue import enqueue, init_queue, newest
from cbalign.training.state import TrainState
from cbalign.weights.convert import match_checkpoint, param_shapes
from tests.tiny import tiny_config
from tests.weights.models import QUEUE, albef_checkpoint, as_tree, small_model

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 60}
PARTIAL = Transfer(fresh=(".*",))


def random_params(task_class, config=None, seed=0):
    """{name: array} of a task's parameters, every element another number."""
    config = config or tiny_config()
    shapes = jax.eval_shape(task_class(config, tokens=TOKENS).init_params, jax.random.key(0))
    shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
    return {
        name: np.random.default_rng([seed, i]).normal(size=x.shape).astype(np.float32)
        for i, (name, x) in enumerate(shapes.items())
    }


def tree(arrays):
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def state_of(params, *, teacher=None, queue=None):
    teacher = params if teacher is None else teacher
    return TrainState(
        step=np.zeros((), np.int32),
        seed=np.zeros((), np.uint32),
        params=params,
        teacher=teacher,
        queue={} if queue is None else queue,
        opt_state=(),
    )


@pytest.fixture(scope="module")
def pretrained():
    return random_params(Pretrain)


class TestRenames:
    """The ways between tasks that the tasks declare."""

    def test_decoder_starts_from_fusion_layers_and_words(self, pretrained):
        found, report = transfer_params(random_params(Vqa), pretrained, Vqa.starts_from["pretrain"])
        for ours, theirs in (
            (
                "answer_layers/layer_0/cross_attention/query/kernel",
                "fusion_encoder/layer_0/cross_attention/query/kernel",
            ),
            ("answer_embeddings/word/embedding", "text_encoder/embeddings/word/embedding"),
            ("answer_head/bias", "masked_token_head/bias"),
            ("fusion_encoder/layer_0/mlp/output/bias", "fusion_encoder/layer_0/mlp/output/bias"),
        ):
            np.testing.assert_array_equal(found[ours], pretrained[theirs])
        assert not report.fresh

    def test_pairs_start_from_copies_of_a_fusion_layer(self, pretrained):
        found, report = transfer_params(random_params(Nlvr2), pretrained, Nlvr2.starts_from["pretrain"])
        for side in ("first", "second"):
            np.testing.assert_array_equal(
                found[f"paired_encoder/layer_0_{side}/mlp/intermediate/kernel"],
                pretrained["fusion_encoder/layer_0/mlp/intermediate/kernel"],
            )
            np.testing.assert_array_equal(
                found[f"paired_encoder/layer_0_{side}/cross_attention/query/kernel"],
                pretrained["fusion_encoder/layer_0/cross_attention/query/kernel"],
            )
        assert not np.shares_memory(
            found["paired_encoder/layer_0_first/mlp/intermediate/kernel"],
            found["paired_encoder/layer_0_second/mlp/intermediate/kernel"],
        )
        np.testing.assert_array_equal(
            found["paired_encoder/layer_0_key/kernel"], pretrained["fusion_encoder/layer_0/cross_attention/key/kernel"]
        )
        assert report.fresh and all(name.startswith("class_head/") for name in report.fresh)

    def test_each_way_from_pretraining_to_a_task_is_declared(self, pretrained):
        for task in (Vqa, TextAssignment, Nlvr2, SnliVe):
            found, _ = transfer_params(random_params(task), pretrained, task.starts_from["pretrain"])
            assert set(found) == set(random_params(task))
        found, report = transfer_params(
            random_params(Nlvr2), random_params(TextAssignment), Nlvr2.starts_from["nlvr2_pretrain"]
        )
        assert {name.split("/")[0] for name in report.fresh} == {"class_head"}
        assert {name.split("/")[0] for name in report.unused} == {"assignment_head", "image_projection"}

    def test_an_undeclared_way_is_refused(self):
        assert find_transfer(Vqa.starts_from, "pretrain", task="vqa", path="x") is Vqa.starts_from["pretrain"]
        with pytest.raises(
            UserError, match="runs/ve was trained for snli_ve; vqa starts from weights of pretrain or vqa"
        ):
            find_transfer(Vqa.starts_from, "snli_ve", task="vqa", path="runs/ve")

    def test_what_is_missing_left_over_or_of_another_size_is_an_error(self, pretrained):
        way = Vqa.starts_from["pretrain"]
        lacking = {name: x for name, x in pretrained.items() if "fusion_encoder" not in name}
        with pytest.raises(UserError, match="lack answer_layers|lack fusion"):
            transfer_params(random_params(Vqa), lacking, way)
        with pytest.raises(UserError, match="hold extra/kernel, which the model of this config does not have"):
            transfer_params(random_params(Vqa), {**pretrained, "extra/kernel": np.zeros(3)}, way)
        wider = random_params(Vqa, tiny_config(model__text_width=48, model__mlp_ratio=2))
        with pytest.raises(
            UserError, match=r"do not fit: .* has the shape \(.*\) in the weights and \(.*\) in the model"
        ):
            transfer_params(wider, pretrained, way)


class TestAdaptation:
    """Vocabularies, lengths and resolutions that differ."""

    def test_new_words_and_shorter_texts(self):
        target = {
            "text_encoder/embeddings/word/embedding": np.zeros((3, 2)),
            "answer_head/bias": np.zeros(3),
            "text_encoder/embeddings/position/embedding": np.zeros((2, 2)),
        }
        source = {
            "text_encoder/embeddings/word/embedding": np.array([[1.0, 2], [3, 6]]),
            "answer_head/bias": np.array([4.0, 8]),
            "text_encoder/embeddings/position/embedding": np.arange(8.0).reshape(4, 2),
        }
        rows = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
        found, _ = transfer_params(target, source, Transfer(), vocabulary=rows)
        np.testing.assert_allclose(found["text_encoder/embeddings/word/embedding"], [[1, 2], [3, 6], [2, 4]])
        np.testing.assert_allclose(found["answer_head/bias"], [4, 8, 6])
        np.testing.assert_allclose(found["text_encoder/embeddings/position/embedding"], [[0, 1], [2, 3]])

    def test_new_words_are_means_of_their_pieces(self):
        there = ["[PAD]", "[UNK]", "foot", "##ball", "##b", "red"]
        rows = vocabulary_rows(["red", "football", "zebra"], there)
        np.testing.assert_array_equal(rows, [[0, 0, 0, 0, 0, 1], [0, 0, 0.5, 0.5, 0, 0], [0, 1, 0, 0, 0, 0]])

    def test_word_pieces_are_those_of_transformers(self):
        transformers = pytest.importorskip("transformers")
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "a", "##a", "##f", "##b", "b"]
        tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        for word in ("unaffable", "unaff", "ab", "aaf", "unx", "baf"):
            assert word_pieces(word, set(words)) == tokenizer.tokenize(word)

    def test_larger_images_get_interpolated_positions(self, pretrained):
        found, _ = transfer_params(
            random_params(SnliVe, tiny_config(data__image_size=48)), pretrained, SnliVe.starts_from["pretrain"]
        )
        array = found["image_encoder/position_embedding"]
        assert array.shape == (1, 37, 32)
        np.testing.assert_array_equal(array[:, 0], pretrained["image_encoder/position_embedding"][:, 0])


class TestTeacher:
    """The source's teacher under the same renames, else a copy of the new student."""

    def weights(self, pretrained):
        teacher = teacher_subset(tree(random_params(Pretrain, seed=1)))
        return {f"params/{name}": x for name, x in pretrained.items()} | {
            f"teacher/{name}": x for name, x in flatten(teacher).items()
        }

    def test_decoder_of_the_teacher_starts_from_the_teachers_fusion_layers(self, pretrained):
        weights = self.weights(pretrained)
        state, report = transfer_state(state_of(tree(random_params(Vqa, seed=2))), weights, Vqa.starts_from["pretrain"])
        teacher = flatten(state.teacher)
        for ours, theirs in (
            ("answer_layers/layer_0/mlp/output/kernel", "fusion_encoder/layer_0/mlp/output/kernel"),
            ("answer_head/transform/kernel", "masked_token_head/transform/kernel"),
            ("image_encoder/cls_token", "image_encoder/cls_token"),
        ):
            np.testing.assert_array_equal(teacher[ours], weights[f"teacher/{theirs}"])
            np.testing.assert_array_equal(flatten(state.params)[ours], weights[f"params/{theirs}"])
        assert report.teacher == "weights" and "teacher from the weights" in str(report)

    def test_a_new_head_of_the_teacher_is_a_copy_of_the_students(self, pretrained):
        fresh = random_params(SnliVe, seed=2)
        state, report = transfer_state(state_of(tree(fresh)), self.weights(pretrained), SnliVe.starts_from["pretrain"])
        name = "class_head/output/kernel"
        np.testing.assert_array_equal(flatten(state.params)[name], fresh[name])
        np.testing.assert_array_equal(flatten(state.teacher)[name], fresh[name])
        assert report.teacher == "weights" and "initialised (class_head)" in str(report)

    def test_without_a_teacher_in_the_weights_it_is_a_copy(self, pretrained):
        weights = {name: x for name, x in self.weights(pretrained).items() if name.startswith("params/")}
        state, report = transfer_state(state_of(tree(random_params(Vqa, seed=2))), weights, Vqa.starts_from["pretrain"])
        jax.tree.map(np.testing.assert_array_equal, state.teacher, state.params)
        assert report.teacher == "student"

    def test_a_task_without_a_teacher_gets_none(self, pretrained):
        state, report = transfer_state(
            state_of(tree(random_params(Vqa, seed=2)), teacher={}),
            self.weights(pretrained),
            Vqa.starts_from["pretrain"],
        )
        assert state.teacher == {} and report.teacher == ""

    def test_an_unknown_array_of_the_teacher_is_refused(self, pretrained):
        weights = self.weights(pretrained) | {"teacher/extra/kernel": np.zeros(3)}
        with pytest.raises(UserError, match="hold extra/kernel"):
            transfer_state(state_of(tree(random_params(Vqa))), weights, Vqa.starts_from["pretrain"])

    def test_the_vocabulary_of_the_teacher_follows_too(self, pretrained):
        rows = np.zeros((62, 60), np.float32)
        rows[:60] = np.eye(60)
        rows[60, 7] = rows[61, 8] = 1
        target = {
            name: np.zeros((62, *x.shape[1:]), np.float32) if x.shape[:1] == (60,) else x
            for name, x in random_params(Vqa, seed=2).items()
        }
        weights = self.weights(pretrained)
        state, _ = transfer_state(state_of(tree(target)), weights, Vqa.starts_from["pretrain"], vocabulary=rows)
        theirs = weights["teacher/text_encoder/embeddings/word/embedding"]
        np.testing.assert_allclose(
            state.teacher["answer_embeddings"]["word"]["embedding"], [*theirs, theirs[7], theirs[8]]
        )


def alignment_state(model=None, queue_size=QUEUE):
    """A state of the small pretraining model, every parameter 0.5."""
    flat = {name: np.full(shape, 0.5, np.float32) for name, shape in param_shapes(model or small_model()).items()}
    params = as_tree(flat, "params/")
    return state_of(
        params, teacher=teacher_subset(params), queue=init_queue(jax.random.key(0), size=queue_size, width=8)
    )


def albef_arrays(**options):
    return match_checkpoint("albef", albef_checkpoint(**options), small_model(), queue_size=QUEUE).arrays


class TestPretraining:
    """Partial weights, as of converted checkpoints."""

    def test_what_is_given_is_taken_and_the_rest_stays(self):
        arrays = albef_arrays()
        state, report = transfer_state(alignment_state(), arrays, PARTIAL, global_batch=1)
        for name, leaf in flatten(state.params).items():
            np.testing.assert_array_equal(leaf, arrays.get(f"params/{name}", 0.5), err_msg=name)
        for name, leaf in flatten(state.teacher).items():
            np.testing.assert_array_equal(leaf, arrays[f"teacher/{name}"], err_msg=name)
        assert report.fresh == ("codebook/codes",) and report.queue == "weights"

    def test_teacher_is_a_copy_of_the_student_after_loading(self):
        arrays = {name: array for name, array in albef_arrays().items() if name.startswith("params/image_encoder/")}
        state, report = transfer_state(alignment_state(), arrays, PARTIAL, global_batch=1)
        students = flatten(state.params)
        assert flatten(state.teacher)
        for name, leaf in flatten(state.teacher).items():
            np.testing.assert_array_equal(leaf, students[name], err_msg=name)
            assert not np.shares_memory(leaf, students[name])
        assert report.teacher == "student" and report.queue == "initial"
        assert "initialised (" in str(report) and "fusion_encoder" in str(report) and "image_encoder" not in str(report)

    def test_positions_are_interpolated_in_student_and_teacher(self):
        arrays = albef_arrays()
        state, _ = transfer_state(alignment_state(small_model(image_size=48)), arrays, PARTIAL, global_batch=1)
        for params, root in ((state.params, "params"), (state.teacher, "teacher")):
            expected = resize_positions(arrays[f"{root}/image_encoder/position_embedding"], 6)
            np.testing.assert_array_equal(params["image_encoder"]["position_embedding"], expected)

    @pytest.mark.parametrize(
        "arrays, message",
        [
            ({"params/image_encoder/layer_7/mlp/output/bias": np.zeros(24, np.float32)}, "layer_7.* does not have"),
            (
                {"params/image_projection/bias": np.zeros(9, np.float32)},
                r"image_projection/bias has the shape \(9,\) in the weights and \(8,\) in the model",
            ),
            (
                {"teacher/image_projection/bias": np.zeros(9, np.float32)},
                r"image_projection/bias has the shape \(9,\) in the weights and \(8,\) in the model",
            ),
        ],
    )
    def test_weights_that_do_not_fit_are_named(self, arrays, message):
        with pytest.raises(UserError, match=message):
            transfer_state(alignment_state(), arrays, PARTIAL, global_batch=1)


class TestQueues:
    """Features are kept, foreign ids are not, and the oldest entries are overwritten first."""

    @pytest.mark.parametrize("retrieval, written", [(False, QUEUE), (True, 3)])
    def test_features_are_kept_and_ids_become_foreign(self, retrieval, written):
        arrays = albef_arrays(retrieval=retrieval)
        queue = transfer_state(alignment_state(), arrays, PARTIAL, global_batch=1)[0].queue
        np.testing.assert_array_equal(queue.image, arrays["queue/image"])
        np.testing.assert_array_equal(queue.text, arrays["queue/text"])
        assert queue.pointer == 3
        np.testing.assert_array_equal(queue.ids, [FOREIGN_ID] * written + [-1] * (QUEUE - written))

    def test_a_pointer_off_the_batch_grid_rotates_the_queue(self):
        arrays = albef_arrays()
        state, report = transfer_state(alignment_state(), arrays, PARTIAL, global_batch=4)
        assert state.queue.pointer == 0 and "queues rotated by 3 entries" in str(report)
        np.testing.assert_array_equal(state.queue.image, np.roll(arrays["queue/image"], -3, axis=0))
        new = np.full((4, 8), 2.0, np.float32)
        after = enqueue(state.queue, image=new, text=new, ids=np.arange(4, dtype=np.int32))
        # Slots 3 to 6 were the oldest; what is left are 7 and, newer, 0 to 2.
        left = newest(after, QUEUE)["image"][4:]
        np.testing.assert_array_equal(left, arrays["queue/image"][[2, 1, 0, 7]])

    def test_queues_of_another_size_are_left_out_with_a_note(self):
        state, report = transfer_state(alignment_state(queue_size=2 * QUEUE), albef_arrays(), PARTIAL, global_batch=4)
        assert state.queue.size == 2 * QUEUE and np.all(state.queue.ids == -1)
        assert report.queue == "initial" and "queues of shape (8, 8) are left out" in str(report)

    def test_a_task_without_queues_ignores_them(self):
        state, report = transfer_state(alignment_state().replace(queue={}), albef_arrays(), PARTIAL)
        assert state.queue == {} and report.queue == ""
