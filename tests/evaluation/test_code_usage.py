"""Use of codes and words that load on them, against counts by hand."""

import numpy as np
import pytest

from cbalign.evaluation.code_usage import code_usage, texts_with_words, word_loadings, words_of


def test_usage_by_hand():
    # Images 0-3, texts 0-4; text 4 has no image of its own.
    image_codes, text_codes = np.array([2, 2, 0, 5]), np.array([2, 0, 0, 1, 1])
    pairs = np.array([[0, 0], [1, 1], [2, 2], [3, 3]])
    found = code_usage(image_codes, text_codes, pairs, num_codes=7)
    assert found.images.tolist() == [1, 0, 2, 0, 0, 1, 0] and found.texts.tolist() == [2, 2, 1, 0, 0, 0, 0]
    # Code 0: pair 2 on both sides, pair 1 on the text's; 2 * 1 / (1 + 2). Code 2: 2 * 1 / (2 + 1).
    np.testing.assert_allclose(found.agreement, [2 / 3, 0, 2 / 3, np.nan, np.nan, 0, np.nan])
    assert found.agreeing == 0.5
    assert found.agreeing_by_chance == pytest.approx(1 / 4 * 2 / 5 + 2 / 4 * 1 / 5)
    assert (found.dead, found.shared, found.one_sided) == (3, 2, (1, 1))
    expected = [np.exp(-sum(p * np.log(p) for p in shares)) for shares in ((0.25, 0.5, 0.25), (0.4, 0.4, 0.2))]
    np.testing.assert_allclose(found.effective, expected)
    assert found.most_used(9) == [2, 0, 1, 5]  # shares 0.7, 0.65, 0.4, 0.25; dead codes are not used


def test_one_code_for_all_and_no_pairs():
    found = code_usage(np.zeros(3, int), np.zeros(2, int), np.zeros((0, 2), int), num_codes=4)
    assert found.effective == (1.0, 1.0) and found.dead == 3 and np.isnan(found.agreeing)


def test_words_load_by_the_mean_over_their_texts():
    texts = ["A red circle", "a red, RED square", "a blue circle", "a star"]
    assert words_of(texts[1]) == ["a", "red", "red", "square"]
    words = texts_with_words(texts, least=2)
    assert {word: rows.tolist() for word, rows in words.items()} == {"circle": [0, 2], "red": [0, 1]}  # "a" is in all
    found = word_loadings(np.array([0.1, 0.5, 0.3, 0.9]), words, top=1)
    assert found == [("red", pytest.approx(0.3))]
