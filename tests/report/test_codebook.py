"""What the report says of codes and of the embedding space, against numpy on the same features."""

import itertools
import shutil

import numpy as np
import pytest

from cbalign.report.codebook_view import codebook_view
from cbalign.report.embedding_map import HEIGHT, WIDTH, EmbeddingMap, Point, embedding_map, gaps
from cbalign.report.encoded_split import encode_split
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from tests.tiny import STILL, tiny_config


@pytest.fixture(scope="module")
def encoded(tiny_run):
    return encode_split(open_run(tiny_run), "val")


def test_codes_are_described_by_their_neighbours(encoded, tiny_run):
    codes = np.asarray(open_run(tiny_run).params()["codebook"]["codes"], np.float64)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    view = codebook_view(encoded, cards=2, images=4, words=3)
    # The likeliest code is that of the largest cosine, whatever the temperature.
    np.testing.assert_array_equal(view.image_codes, np.argmax(encoded.image_features @ codes.T, axis=1))
    np.testing.assert_array_equal(view.text_codes, np.argmax(encoded.text_features @ codes.T, axis=1))
    logits = encoded.text_features @ codes.T / 0.1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert len(view.cards) == 2
    for card in view.cards:
        assert card.images == np.sum(view.image_codes == card.code) and card.texts == np.sum(
            view.text_codes == card.code
        )
        nearest = np.sort(encoded.image_features @ codes[card.code])[::-1][:4]
        np.testing.assert_allclose(encoded.image_features[card.nearest] @ codes[card.code], nearest, atol=1e-5)
        for word, load in card.words:
            rows = [word in text.replace(",", "").split() for text in encoded.gallery.texts]
            assert sum(rows) >= 3 and load == pytest.approx(probabilities[rows, card.code].mean(), rel=1e-3)


def test_the_map_holds_what_is_drawn_and_is_the_same_each_time(encoded):
    view = codebook_view(encoded)
    drawn = embedding_map(encoded, view)
    assert len(drawn.images) == len(drawn.texts) == 64
    used = np.unique(np.concatenate([view.image_codes, view.text_codes]))
    assert len(drawn.codes) == len(used) and set(drawn.numbers.values()) == {card.code for card in view.cards}
    for place, code in drawn.numbers.items():
        assert drawn.codes[place].label.startswith(f"code {code}")
    everything = [*drawn.images, *drawn.texts, *drawn.codes]
    assert all(0 <= point.x <= 1000 and 0 <= point.y <= 680 for point in everything)
    assert drawn == embedding_map(encoded, view)
    for image, text in zip(drawn.images, drawn.texts):
        assert image.label.removeprefix("image: ") == text.label.removeprefix("text: ")  # one caption an image here
    assert embedding_map(encoded, None).codes == []


@pytest.mark.parametrize("x, y", [(500.0, 300.0), (990.0, 10.0), (10.0, 670.0)])
def test_numbers_of_codes_that_lie_close_are_not_written_on_one_another(x, y):
    codes = [Point(x, y, "a"), Point(x - 3, y + 2, "b"), Point(x + 2, y - 4, "c")]
    labels = EmbeddingMap([], [], codes, {0: 12, 1: 345, 2: 6}).labels
    assert [label.code for label in labels] == [12, 345, 6]
    boxes = [(label.x, label.y - 17, label.x + 11 * len(str(label.code)), label.y) for label in labels]
    assert all(left >= 0 and top >= 0 and right <= WIDTH and low <= HEIGHT for left, top, right, low in boxes)
    for a, b in itertools.combinations(boxes, 2):
        if (x, y) == (500, 300):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.slow
@pytest.mark.parametrize("from_weights", [False, True])
def test_the_gap_before_training_is_that_of_the_runs_own_start(from_weights, tiny_run, tfds_dir, tmp_path):
    """At a learning rate of zero nothing changes, so both rows are the same."""
    options = dict(data__dir=str(tfds_dir), data__rand_augment=False, data__second_view=False, seed=5)
    if from_weights:
        shutil.copytree(tiny_run, tmp_path / "weights", ignore=shutil.ignore_patterns("search", "report*"))
        options["init__weights"] = (str(tmp_path / "weights"),)
    train_run(tiny_config(**options, **STILL), tmp_path / "run")
    run = open_run(tmp_path / "run")
    encoded = encode_split(run, "val")
    before, after = gaps(encoded, run)
    start = f" (the weights {tmp_path / 'weights'})" if from_weights else ""
    assert (before.label, after.label) == (f"before training{start}", "after training")
    for name in ("gap", "own", "other"):
        assert getattr(before, name) == pytest.approx(getattr(after, name), abs=1e-5)
    expected = np.linalg.norm(encoded.image_features.mean(axis=0) - encoded.text_features.mean(axis=0))
    assert after.gap == pytest.approx(expected, abs=1e-5)
    if from_weights:
        shutil.rmtree(tmp_path / "weights")
        random, _ = gaps(encoded, run)
        assert random.label == "random parameters (the weights the run started from are gone)"
        assert abs(random.own - after.own) > 1e-3
