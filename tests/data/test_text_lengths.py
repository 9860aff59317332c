"""Texts that lose words, have none, or do not fit the vocabulary are told before training."""

import types

import numpy as np
import pytest

from cbalign.config_fields import FIELDS
from cbalign.data.columns import text_columns
from cbalign.data.records import records_in_memory
from cbalign.data.text import load_tokenizer
from cbalign.data.text_lengths import MAX_TOKENS, MAX_WORDS, length_notes, text_lines

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "dog",
    "cat",
    "red",
    *"abcdefghij",
    *(f"##{c}" for c in "abcdefghij"),
]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return load_tokenizer(tmp_path / "vocab.txt")


def lines(texts, tokenizer, *, max_tokens=8, max_words=6):
    images = np.zeros((len(texts), 4, 4, 3), np.uint8)
    records = records_in_memory("captions", images, texts)
    columns = text_columns(records, tokenizer, max_length=max_tokens, max_words=max_words)
    split = types.SimpleNamespace(records=records, columns=columns)
    return text_lines(split, tokenizer, max_tokens=max_tokens, max_words=max_words)


def test_nothing_to_tell(tokenizer):
    assert lines([["dog cat"], ["red dog", "cat"]], tokenizer) == []


def test_share_of_texts_that_lose_words(tokenizer):
    texts = [["dog " * 7], ["dog " * 6], ["dog"], ["cat"]]
    (line,) = lines(texts, tokenizer, max_tokens=8)
    assert line.startswith("25.0% of the texts lose words to data.max_tokens=8 or data.max_words=6; ")
    assert line.endswith("; data.max_words=7 would keep 99% of them whole")
    (line,) = lines(texts, tokenizer, max_tokens=5, max_words=9)
    assert line.startswith("50.0%") and line.endswith("data.max_tokens=8 would keep 99% of them whole")


def test_captions_without_words(tokenizer):
    (line,) = lines([["dog", "?!"], ["..."], ["cat"]], tokenizer)
    assert line.startswith("2 of 4 captions have no words once cleaned (such as '?!' of 0)")


def test_a_vocabulary_that_does_not_fit(tokenizer):
    (line,) = lines([["dog 猫"], ["red"]], tokenizer)
    assert line.startswith("33.3% of the tokens are unknown to the vocabulary, such as '猫'")
    (line,) = lines([["abcdef jihgfe"]], tokenizer, max_tokens=20)
    assert line.startswith("the vocabulary splits a word into 6.0 pieces on average, such as in 'abcdef jihgfe'")


def test_defaults_are_those_of_the_config():
    assert FIELDS["data.max_tokens"].default == MAX_TOKENS and FIELDS["data.max_words"].default == MAX_WORDS


def test_import_and_show_count_words():
    assert length_notes(["a dog"] * 10) == []
    (note,) = length_notes(["a dog"] * 3 + ["w " * 40])
    assert note.startswith("25.0% of the texts have more than 24 words")
    assert "--config.data.max_words=40 and --config.data.max_tokens of 41" in note
