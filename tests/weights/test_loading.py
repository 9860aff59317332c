"""Several sets of weights merged into one: arrays, tasks and vocabularies."""

import numpy as np
import pytest

from cbalign.errors import UserError
from cbalign.weights.loading import combine
from cbalign.weights.weights_folder import Weights, read_weights, vocabulary_info, write_weights


class Words:
    """A tokenizer, as far as its vocabulary goes."""

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}


def image():
    return Weights("a", {"params/image_encoder/cls_token": np.ones(1)}, {"vocabulary": None})


def text(words=None, **options):
    return Weights(
        "b",
        {"params/text_encoder/x": np.ones(2)},
        {"vocabulary": vocabulary_info(Words("x", "y"))},
        words=words,
        **options,
    )


def test_sources_are_merged():
    merged = combine([image(), text()], tokenizer=Words("x", "y"))
    assert set(merged.arrays) == {"params/image_encoder/cls_token", "params/text_encoder/x"}
    assert (merged.folder, merged.task, merged.words) == ("a, b", "pretrain", None)


def test_an_array_of_two_sources_is_refused():
    with pytest.raises(UserError, match="a and c both hold params/image_encoder/cls_token"):
        combine([image(), Weights("c", image().arrays, {})], tokenizer=Words("x", "y"))


def test_sources_of_two_tasks_are_refused():
    with pytest.raises(UserError, match="a was trained for pretrain, b for vqa"):
        combine([image(), text(task="vqa")], tokenizer=Words("x", "y"))


@pytest.mark.parametrize("words, accepted", [(None, False), (None, True), (["x", "y"], False)])
def test_another_vocabulary_is_refused_unless_accepted_and_known(words, accepted):
    with pytest.raises(UserError, match="b was made for another vocabulary .*; set data.vocabulary"):
        combine([image(), text(words)], tokenizer=Words("y", "x"), other_vocabulary=accepted)


def test_another_vocabulary_is_handed_on_where_it_is_accepted():
    found = combine([image(), text(["x", "y"])], tokenizer=Words("y", "x", "z"), other_vocabulary=True)
    assert found.words == ["x", "y"]
    assert combine([text(["x", "y"])], tokenizer=Words("x", "y"), other_vocabulary=True).words is None


def test_a_folder_keeps_task_and_vocabulary(tmp_path):
    words = ["[PAD]", "a\x85b", "c"]  # as a vocabulary may hold it, a character at which splitlines() splits
    info = {"config": {"task": "vqa"}, "vocabulary": vocabulary_info(Words(*words))}
    write_weights(tmp_path / "out", {"params/x": np.ones(2, np.float32)}, info, words)
    read = read_weights(tmp_path / "out")
    assert read.task == "vqa" and read.words == words
    assert vocabulary_info(Words(*read.words)) == read.info["vocabulary"]
