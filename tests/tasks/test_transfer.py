"""What a task takes over from pretraining: renames, what is fresh, and that nothing goes silently."""

import flax
import jax
import numpy as np
import pytest

from cbalign.errors import UserError
from cbalign.tasks.nlvr2 import Nlvr2, TextAssignment
from cbalign.tasks.pretrain import Pretrain
from cbalign.tasks.snli_ve import SnliVe
from cbalign.tasks.transfer import Rules, take_over
from cbalign.tasks.vqa import Vqa
from tests.tiny import tiny_config

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 60}


def flat(task_class, config=None):
    """{name: array} of a task's parameters, every element another number."""
    config = config or tiny_config()
    shapes = jax.eval_shape(task_class(config, tokens=TOKENS).init_params, jax.random.key(0))
    shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
    return {name: np.random.default_rng(i).normal(size=x.shape).astype(np.float32)
            for i, (name, x) in enumerate(shapes.items())}


@pytest.fixture(scope="module")
def pretrained():
    return flat(Pretrain)


def test_decoder_starts_from_fusion_layers_and_words(pretrained):
    found, report = take_over(flat(Vqa), pretrained, Vqa.rules["pretrain"])
    for ours, theirs in (("answer_layers/layer_0/cross_attention/query/kernel",) * 2,
                         ("answer_embeddings/word/embedding", "text_encoder/embeddings/word/embedding"),
                         ("answer_head/bias", "masked_token_head/bias"),
                         ("fusion_encoder/layer_0/mlp/output/bias",) * 2):
        theirs = theirs.replace("answer_layers", "fusion_encoder")
        np.testing.assert_array_equal(found[ours], pretrained[theirs])
    assert not report["fresh"]


def test_pairs_start_from_copies_of_a_fusion_layer(pretrained):
    found, report = take_over(flat(Nlvr2), pretrained, Nlvr2.rules["pretrain"])
    for side in ("first", "second"):
        np.testing.assert_array_equal(found[f"paired_encoder/layer_0_{side}/mlp/intermediate/kernel"],
                                      pretrained["fusion_encoder/layer_0/mlp/intermediate/kernel"])
        np.testing.assert_array_equal(found[f"paired_encoder/layer_0_{side}/cross_attention/query/kernel"],
                                      pretrained["fusion_encoder/layer_0/cross_attention/query/kernel"])
    np.testing.assert_array_equal(found["paired_encoder/layer_0_key/kernel"],
                                  pretrained["fusion_encoder/layer_0/cross_attention/key/kernel"])
    assert all(name.startswith("class_head/") for name in report["fresh"])


def test_each_way_from_pretraining_to_a_task_is_declared(pretrained):
    for task in (Vqa, TextAssignment, Nlvr2, SnliVe):
        found, _ = take_over(flat(task), pretrained, task.rules["pretrain"])
        assert set(found) == set(flat(task))
    found, report = take_over(flat(Nlvr2), flat(TextAssignment), Nlvr2.rules["nlvr2_pretrain"])
    assert {name.split("/")[0] for name in report["fresh"]} == {"class_head"}
    assert {name.split("/")[0] for name in report["unused"]} == {"assignment_head", "image_projection"}


def test_what_is_missing_left_over_or_of_another_size_is_an_error(pretrained):
    lacking = {name: x for name, x in pretrained.items() if "fusion_encoder" not in name}
    with pytest.raises(UserError, match="lack answer_layers|lack fusion"):
        take_over(flat(Vqa), lacking, Vqa.rules["pretrain"])
    with pytest.raises(UserError, match="extra/kernel, which this task has no use for"):
        take_over(flat(Vqa), {**pretrained, "extra/kernel": np.zeros(3)}, Vqa.rules["pretrain"])
    wider = flat(Vqa, tiny_config(model__text_width=48, model__mlp_ratio=2))
    with pytest.raises(UserError, match="other sizes"):
        take_over(wider, pretrained, Vqa.rules["pretrain"])


def test_new_words_and_shorter_texts():
    ours = {"text_encoder/embeddings/word/embedding": np.zeros((3, 2)), "answer_head/bias": np.zeros(3),
            "text_encoder/embeddings/position/embedding": np.zeros((2, 2))}
    theirs = {"text_encoder/embeddings/word/embedding": np.array([[1.0, 2], [3, 6]]),
              "answer_head/bias": np.array([4.0, 8]), "text_encoder/embeddings/position/embedding": np.arange(8.0).reshape(4, 2)}
    rows = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    found, _ = take_over(ours, theirs, Rules(), vocabulary=rows)
    np.testing.assert_allclose(found["text_encoder/embeddings/word/embedding"], [[1, 2], [3, 6], [2, 4]])
    np.testing.assert_allclose(found["answer_head/bias"], [4, 8, 6])
    np.testing.assert_allclose(found["text_encoder/embeddings/position/embedding"], [[0, 1], [2, 3]])


def test_larger_images_get_interpolated_positions(pretrained):
    found, _ = take_over(flat(SnliVe, tiny_config(data__image_size=48)), pretrained, SnliVe.rules["pretrain"])
    array = found["image_encoder/position_embedding"]
    assert array.shape == (1, 37, 32)
    np.testing.assert_array_equal(array[:, 0], pretrained["image_encoder/position_embedding"][:, 0])
