"""Batches of the tasks: order, resume, processes, answers and their weights, stored images."""

import collections
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from cbalign.data import task_records
from cbalign.data import text
from cbalign.data.task_batches import (
    EncodedTexts,
    encode_answers,
    encode_texts,
    eval_batches,
    train_batches,
    weighted_answers,
)
from cbalign.data.task_records import TaskRecords, load_records
from cbalign.errors import UserError

VIEW = dict(size=16, scale=(1.0, 1.0), flip=False, rand_augment=False)


def png(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def records():
    """Twelve records of two images each; record i shows shades 10 i and 10 i + 5."""
    images = [png(5 * i) for i in range(24)]
    return TaskRecords(images, np.arange(24).reshape(12, 2), [f"a{i}" for i in range(12)], list(range(12)))


@pytest.fixture(scope="module")
def encoded():
    return EncodedTexts({"text": np.arange(12, dtype=np.int32)[:, None], "label": np.arange(12, dtype=np.int32) % 2})


def take(records, encoded, count, **options):
    return list(itertools.islice(train_batches(records, encoded, seed=3, view=VIEW, **options), count))


def test_columns_belong_together_and_an_epoch_sees_each_record_once(records, encoded):
    seen = []
    for batch in take(records, encoded, 6, global_batch=4):
        number = batch["text"][:, 0]
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], 10 * number)
        np.testing.assert_array_equal(batch["image_second"][:, 0, 0, 0], 10 * number + 5)
        np.testing.assert_array_equal(batch["label"], number % 2)
        np.testing.assert_array_equal(batch["image"], 2 * number)
        np.testing.assert_array_equal(batch["index"], np.arange(4))
        seen += number.tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_any_start_and_any_number_of_processes_give_the_same(records, encoded):
    whole = take(records, encoded, 5, global_batch=4)
    late = take(records, encoded, 2, global_batch=4, start_step=3)
    halves = [take(records, encoded, 5, global_batch=4, process_index=i, process_count=2) for i in (0, 1)]
    for a, b in zip(whole[3:], late):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    for batch, first, second in zip(whole, *halves):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([first[name], second[name]]))


def test_evaluation_keeps_the_order_and_fills_up(records, encoded):
    batches = list(eval_batches(records, encoded, image_size=16, batch_size=5))
    assert [valid for _, _, valid in batches] == [5, 5, 2]
    assert all(len(images) == 2 and images[0].shape == (5, 16, 16, 3) for images, _, _ in batches)
    shades = np.concatenate([images[0][:valid, 0, 0, 0] for images, _, valid in batches])
    np.testing.assert_array_equal(shades, 10 * np.arange(12))
    np.testing.assert_array_equal(batches[-1][1][:, 0], [10, 11, 11, 11, 11])


def test_batches_that_do_not_fit(records, encoded):
    with pytest.raises(UserError, match="13"):
        take(records, encoded, 1, global_batch=13)
    with pytest.raises(UserError, match="divide"):
        take(records, encoded, 1, global_batch=4, process_count=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    text.train_vocabulary(["what colour is the dog", "red blue light green", "yes no"], path, size=200)
    return text.load_tokenizer(path)


def asked(*answers):
    return TaskRecords([], np.zeros((len(answers), 1), np.int64), ["what"] * len(answers), list(range(len(answers))),
                       answers=list(answers))


def decoded(tokenizer, ids):
    return tokenizer.decode([int(i) for i in ids if i]).replace("[CLS]", "").replace("[SEP]", "|").strip()


def test_answers_weigh_by_how_many_gave_them(tokenizer):
    records = asked(["red"] * 6 + ["blue"] * 3 + ["light green"], ["yes"] * 10, ["no"])
    columns = weighted_answers(records, tokenizer, slots=3, max_length=6)
    np.testing.assert_allclose(columns["answer_weights"], [[0.6, 0.3, 0.1], [1, 0, 0], [0.5, 0, 0]])
    words = [[decoded(tokenizer, row) for row in rows] for rows in columns["answers"]]
    assert words == [["red |", "blue |", "light green |"], ["yes |", "", ""], ["no |", "", ""]]
    # Against a plain count, for the record of three answers.
    counts = collections.Counter(records.answers[0])
    assert dict(zip(("red", "blue", "light green"), columns["answer_weights"][0])) == pytest.approx(
        {answer: n / 10 for answer, n in counts.items()})


def test_few_slots_keep_the_most_frequent(tokenizer):
    columns = weighted_answers(asked(["red", "blue", "blue", "no"]), tokenizer, slots=1, max_length=4)
    assert decoded(tokenizer, columns["answers"][0, 0]) == "blue |" and columns["answer_weights"].tolist() == [[0.5]]


def test_questions_without_answers_cannot_be_trained_on(tokenizer):
    with pytest.raises(UserError, match="1 of 2 questions"):
        weighted_answers(asked(["red"], []), tokenizer, slots=1, max_length=4)


def test_answers_end_with_sep(tokenizer):
    ids = encode_answers(tokenizer, ["Red!"], max_length=4)
    assert ids[0, 0] == tokenizer.cls_token_id and ids[0, 2] == tokenizer.sep_token_id and ids[0, 3] == 0


def test_records_from_disk_equal_those_in_memory(tfds_dir, tokenizer, monkeypatch):
    for kind, name, split in (("questions", "scenes_vqa/tiny", "val"),
                              ("image_pairs", "scenes_nlvr2/tiny", "val[:40]"),
                              ("entailment", "scenes_ve/tiny", "val+test"), ("captions", "scenes/tiny", "val")):
        memory = load_records(kind, name, split, str(tfds_dir))
        with monkeypatch.context() as patch:
            patch.setattr(task_records, "MEMORY_LIMIT", 0)
            disk = load_records(kind, name, split, str(tfds_dir))
        assert isinstance(memory.images, list) and isinstance(disk.images, tuple)
        assert memory.texts == disk.texts and memory.identifiers == disk.identifiers
        a, b = ([images[0].copy() for images, _, _ in eval_batches(
            x, encode_texts(x, tokenizer, max_length=8), image_size=32, batch_size=16)] for x in (memory, disk))
        np.testing.assert_array_equal(a, b)


def test_another_kind_of_data_set_is_refused(tfds_dir):
    with pytest.raises(UserError, match="no data set of questions"):
        load_records("questions", "scenes/tiny", "val", str(tfds_dir))
    with pytest.raises(UserError, match="has no split dev"):
        load_records("questions", "scenes_vqa/tiny", "dev", str(tfds_dir))


def test_weights_of_data_sets_are_refused(tfds_dir):
    with pytest.raises(UserError, match="weights"):
        load_records("captions", "scenes/tiny*0.5", "val", str(tfds_dir))
