"""Token columns of every kind of record, their cache beside the data, and the answers of questions."""

import collections

import numpy as np
import pytest
from tokenizers import decoders

tf = pytest.importorskip("tensorflow")

from cbalign.data import records as records_module
from cbalign.data import text
from cbalign.data.columns import Columns, answer_columns, encode_answers, text_columns
from cbalign.data.records import open_records, records_in_memory
from cbalign.errors import UserError
from tests.data import stored_sets


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    text.train_vocabulary(["what colour is the dog", "red blue light green", "yes no a box ball"], path, size=200)
    return text.load_tokenizer(path)


def in_memory(kind, texts, **columns):
    """Records that have no images."""
    return records_in_memory(kind, [b""] * len(texts), texts, columns)


def test_captions_are_cleaned_and_encoded_in_the_order_of_the_records(tokenizer):
    records = in_memory("captions", [["A red ball!", "a Blue-box"], ["a box"], ["red, red"]], id=np.array([4, 4, 9]))
    columns = text_columns(records, tokenizer, max_length=6)
    flat = ["a red ball", "a blue box", "a box", "red red"]
    np.testing.assert_array_equal(columns.text, text.encode(tokenizer, flat, max_length=6))
    assert columns.text_offsets.tolist() == [0, 2, 3, 4] and columns.text_offsets.dtype == np.int64
    assert columns.arrays["id"].tolist() == [4, 4, 9] and columns.arrays["id"].dtype == np.int32
    assert [list(columns.rows_of(i)) for i in range(3)] == [[0, 1], [2], [3]]
    np.testing.assert_array_equal(columns.first_text([2, 0]), columns.text[[3, 0]])
    assert columns.silent == 0


def test_captions_without_words_are_left_out(tokenizer):
    columns = text_columns(in_memory("captions", [["a", "?!"], [], ["?!"]]), tokenizer, max_length=6)
    assert columns.wordless.tolist() == [False, True, True] and columns.silent == 2
    offsets, rows = columns.drawable
    assert offsets.tolist() == [0, 1, 1, 1] and rows.tolist() == [0]
    first = columns.first_text([0, 1])
    np.testing.assert_array_equal(first[0], columns.text[0])
    assert first[1].tolist() == [tokenizer.cls_token_id, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="none of 3 records has a caption"):
        text_columns(in_memory("captions", [[], [], []]), tokenizer, max_length=6)


def test_questions_have_one_text_each(tokenizer):
    records = in_memory("questions", [["What colour?"], ["?"]])
    columns = text_columns(records, tokenizer, max_length=4, max_words=1)
    np.testing.assert_array_equal(columns.text, text.encode(tokenizer, ["what", ""], max_length=4))
    assert columns.text_offsets is None and columns.arrays == {} and columns.silent == 0
    assert list(columns.rows_of(1)) == [1]


def test_labels(tokenizer):
    columns = text_columns(in_memory("entailment", [["a"], ["a box"]], label=np.array([2, 0])), tokenizer, max_length=4)
    assert columns.arrays["label"].tolist() == [2, 0] and columns.arrays["label"].dtype == np.int32
    with pytest.raises(UserError, match="32 bits"):
        text_columns(in_memory("captions", [["a"], ["a"]], id=np.array([0, 2**40])), tokenizer, max_length=4)


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
def test_texts_on_disk_are_encoded_once(tmp_path, monkeypatch, kind):
    tokenizer = stored_sets.tokenizer(tmp_path)
    made = [stored_sets.MAKERS[kind](number) for number in range(9)]
    name = stored_sets.write(tmp_path, "set", {"train": made}, kind=kind)
    monkeypatch.setattr(records_module, "MEMORY_LIMIT", 0)
    records = open_records(kind, name, "train")
    first = text_columns(records, tokenizer, max_length=6)
    flat = [line for group in records.texts for line in group]
    np.testing.assert_array_equal(first.text, text.encode(tokenizer, flat, max_length=6))
    assert first.text.dtype == np.int16
    calls = []
    monkeypatch.setattr(text, "encode", lambda *a, real=text.encode, **k: calls.append(k) or real(*a, **k))
    again = text_columns(open_records(kind, name, "train"), tokenizer, max_length=6)
    np.testing.assert_array_equal(again.text, first.text)
    assert not calls
    # Another length, fewer words or other records are encoded anew.
    assert text_columns(records, tokenizer, max_length=4).text.shape == (len(flat), 4) and len(calls) == 1
    assert len(text_columns(records, tokenizer, max_length=6, max_words=1).text) == len(flat) and len(calls) == 2
    part = text_columns(open_records(kind, name, "train[2:5]"), tokenizer, max_length=6)
    assert len(calls) == 3
    rows = [row for record in range(2, 5) for row in first.rows_of(record)]
    np.testing.assert_array_equal(part.text, first.text[rows])


def asked(*answers):
    return in_memory("questions", [["what"]] * len(answers), answers=list(answers))


def decoded(tokenizer, ids):
    return (
        decoders.WordPiece()
        .decode(tokenizer.convert_ids_to_tokens([int(i) for i in ids if i]))
        .replace("[CLS]", "")
        .replace("[SEP]", "|")
        .strip()
    )


def test_answers_weigh_by_how_many_gave_them(tokenizer):
    records = asked(["red"] * 6 + ["blue"] * 3 + ["light green"], ["yes"] * 10, ["no"])
    columns = answer_columns(records, tokenizer, slots=3, max_length=6)
    np.testing.assert_allclose(columns["answer_weights"], [[0.6, 0.3, 0.1], [1, 0, 0], [0.5, 0, 0]])
    words = [[decoded(tokenizer, row) for row in rows] for rows in columns["answers"]]
    assert words == [["red |", "blue |", "light green |"], ["yes |", "", ""], ["no |", "", ""]]
    # Against a plain count, for the record of three answers.
    counts = collections.Counter(records.columns["answers"][0])
    assert dict(zip(("red", "blue", "light green"), columns["answer_weights"][0])) == pytest.approx(
        {answer: n / 10 for answer, n in counts.items()}
    )


def test_few_slots_keep_the_most_frequent(tokenizer):
    columns = answer_columns(asked(["red", "blue", "blue", "no"]), tokenizer, slots=1, max_length=4)
    assert decoded(tokenizer, columns["answers"][0, 0]) == "blue |" and columns["answer_weights"].tolist() == [[0.5]]


def test_questions_without_answers_cannot_be_trained_on(tokenizer):
    with pytest.raises(UserError, match="1 of 2 questions"):
        answer_columns(asked(["red"], []), tokenizer, slots=1, max_length=4)


def test_answers_end_with_sep(tokenizer):
    ids = encode_answers(tokenizer, ["Red"], max_length=4)
    assert ids[0, 0] == tokenizer.cls_token_id and ids[0, 2] == tokenizer.sep_token_id and ids[0, 3] == 0


def test_answers_are_left_as_they_are(tmp_path):
    """Nothing is deleted, as ALBEF's `vqa_dataset` appends [SEP] to the answer as it stands: 10:30 is not 1030."""
    words = [*text.SPECIAL_TOKENS, "10", "30", "1030", "5", ".", ":", "55", "t", "-", "shirt"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    tokenizer = text.load_tokenizer(tmp_path)
    ids = encode_answers(tokenizer, ["10:30", "5.5", "T-shirt"], max_length=6)
    found = [[words[i] for i in row if i] for row in ids]
    assert found == [
        ["[CLS]", "10", ":", "30", "[SEP]"],
        ["[CLS]", "5", ".", "5", "[SEP]"],
        ["[CLS]", "t", "-", "shirt", "[SEP]"],
    ]


def test_long_answers_are_cut_and_counted(tokenizer, capsys):
    answers = ["red", "light green box", "a red light green dog"]
    ids = encode_answers(tokenizer, answers, max_length=5)
    np.testing.assert_array_equal(ids, text.encode(tokenizer, answers, max_length=5, add_sep=True))
    assert capsys.readouterr().out == "1 of 3 different answers are cut to 5 tokens (vqa.answer_tokens)\n"
    assert decoded(tokenizer, ids[1]) == "light green box |" and decoded(tokenizer, ids[2]) == "a red light |"
    encode_answers(tokenizer, answers, max_length=7)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stored", [True, False])
def test_questions_are_cleaned_as_questions(tmp_path, monkeypatch, tokenizer, stored):
    """Encoded texts are kept by how they were cleaned, too."""
    monkeypatch.setattr(records_module, "MEMORY_LIMIT", 0 if stored else records_module.MEMORY_LIMIT)
    made = [{**stored_sets.question(n), "question": "what  is red"} for n in range(4)]
    name = stored_sets.write(tmp_path, "asked", {"train": made}, kind="questions")
    records = open_records("questions", name, "train")
    found = {}
    for cleaning in ("caption", "question"):
        columns = text_columns(records, tokenizer, max_length=6, max_words=3, cleaning=cleaning)
        found[cleaning] = decoded(tokenizer, columns.text[0])
    # Between the two spaces ALBEF's `pre_question` sees an empty word.
    assert found == {"caption": "what is red", "question": "what is"}


def test_columns_without_offsets_draw_their_only_text():
    offsets, rows = Columns(np.zeros((3, 2), np.int32)).drawable
    assert offsets.tolist() == [0, 1, 2, 3] and rows is None
