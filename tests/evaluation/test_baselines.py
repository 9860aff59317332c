import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cbalign.evaluation import baselines
from cbalign.evaluation.baselines import bag_of_words, pixel_nearest_neighbour
from cbalign.evaluation.metrics import directed_recall, recall


def random_images(rng, n, side=4):
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("block", [48, 48 * 7, 1 << 22])
def test_nearest_neighbour_against_all_distances(monkeypatch, block):
    monkeypatch.setattr(baselines, "_BLOCK_ELEMENTS", block)
    rng = np.random.default_rng(0)
    train, train_ids = random_images(rng, 60), rng.integers(0, 25, 60)
    images, image_ids = random_images(rng, 30), rng.integers(0, 30, 30)
    text_ids = np.arange(3, 30)
    distance = cdist(images.reshape(30, -1).astype(float), train.reshape(60, -1).astype(float), "sqeuclidean")
    concepts = sorted(set(train_ids.tolist()) & set(text_ids.tolist()))
    nearest = np.stack([distance[:, train_ids == concept].min(axis=1) for concept in concepts], axis=1)
    expected = directed_recall(-nearest, image_ids, concepts, prefix="tr")
    assert pixel_nearest_neighbour(train, train_ids, images, image_ids, text_ids) == expected


def test_nearest_neighbour_finds_what_it_has_seen():
    rng = np.random.default_rng(1)
    train = random_images(rng, 40)
    noisy = np.clip(train[:20].astype(int) + rng.integers(-9, 10, train[:20].shape), 0, 255).astype(np.uint8)
    ids = np.arange(40)
    found = pixel_nearest_neighbour(train, ids, noisy, ids[:20], np.repeat(ids, 3))
    assert found == {"tr@1": 100.0, "tr@5": 100.0, "tr@10": 100.0}


def test_nearest_neighbour_distances_are_exact():
    # Full images that differ by one step in one byte.
    train = np.full((2, 32, 32, 3), 255, np.uint8)
    train[1, 3, 3, 0] = 254
    found = pixel_nearest_neighbour(train, [0, 1], train, [0, 1], [0, 1])
    assert found["tr@1"] == 100.0


def test_concepts_without_training_image_are_never_found():
    rng = np.random.default_rng(2)
    train = random_images(rng, 4)
    found = pixel_nearest_neighbour(train, [0, 1, 2, 3], train[[0, 1]], [0, 9], [0, 1, 2, 3, 9])
    assert found == {"tr@1": 50.0, "tr@5": 50.0, "tr@10": 50.0}
    assert pixel_nearest_neighbour(train, [0, 1, 2, 3], train[:2], [8, 9], [8, 9]) is None


def test_nearest_neighbour_of_unusable_images():
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="evaluation images"):
        pixel_nearest_neighbour(random_images(rng, 3), [0, 1, 2], random_images(rng, 3, side=5), [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="uint8"):
        pixel_nearest_neighbour(random_images(rng, 3) / 255, [0, 1, 2], random_images(rng, 3), [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="2 labels"):
        pixel_nearest_neighbour(random_images(rng, 3), [0, 1], random_images(rng, 3), [0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("n", [200, 30])
def test_ridge_is_least_squares_with_penalty_rows(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 48)).astype(np.float32), rng.normal(size=(n, 7)).astype(np.float32)
    strength = 0.3 * np.sum(x**2) / 48
    stacked = np.concatenate([x, np.sqrt(strength) * np.eye(48)])
    expected = np.linalg.lstsq(stacked, np.concatenate([y, np.zeros((48, 7))]))[0]
    np.testing.assert_allclose(baselines._ridge(x, y, 0.3), expected, atol=1e-5)


def test_caption_vectors_by_hand():
    words = baselines._vocabulary([["red cat", "Cat, cat!"], ["blue dog"]])
    # Four words, cat in two captions of three, the others in one.
    assert {word: column for word, (column, _) in words.items()} == {"cat": 0, "blue": 1, "dog": 2, "red": 3}
    common, rare = np.log(4 / 3) + 1, np.log(4 / 2) + 1
    expected = np.array([[2 * common, 0, 0, rare], [0, 0, 0, 0]])
    expected[0] /= np.sqrt(4 * common**2 + rare**2)
    np.testing.assert_allclose(baselines._vectors(["cat red CAT", "unknown"], words), expected, rtol=1e-6)


def test_targets_are_means_of_captions():
    lists = [["red cat", "cat"], ["blue dog"], ["red", "red dog", "dog"]]
    words = baselines._vocabulary(lists)
    expected = [baselines._vectors(several, words).mean(axis=0) for several in lists]
    np.testing.assert_allclose(baselines._targets(lists, words), expected, rtol=1e-6)


def test_vocabulary_is_bounded(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_WORDS", 2)
    assert set(baselines._vocabulary([["a b c"], ["c d"], ["b"]])) == {"b", "c"}


def colours(rng, n):
    """Noisy images of one of 8 colours on one half, and what they show; id = colour and half."""
    ids = rng.integers(0, 16, n)
    images = rng.integers(0, 60, (n, 8, 8, 3))
    for row, number in enumerate(ids):
        half = slice(0, 4) if number < 8 else slice(4, 8)
        images[row, :, half] += np.array([number >> 2 & 1, number >> 1 & 1, number & 1]) * 180
    return images.astype(np.uint8), ids


def caption(number):
    parts = [name for bit, name in ((4, "red"), (2, "green"), (1, "blue")) if number & bit]
    return " and ".join(parts or ["black"]) + (" left" if number < 8 else " right")


def test_bag_of_words_against_normal_equations():
    rng = np.random.default_rng(4)
    train, train_ids = colours(rng, 300)
    images, image_ids = colours(rng, 40)
    gallery = [caption(number) for number in range(16)]
    found = bag_of_words(
        train, [[caption(number)] for number in train_ids], images, gallery, image_ids, np.arange(16), ridge=0.1
    )
    words = baselines._vocabulary([[caption(number)] for number in train_ids])
    x = train.reshape(300, -1) / 255.0
    y = baselines._vectors([caption(number) for number in train_ids], words)
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred
    weights = np.linalg.inv(gram + 0.1 * np.trace(gram) / 192 * np.eye(192)) @ centred.T @ y
    predicted = (images.reshape(40, -1) / 255.0 - x.mean(axis=0)) @ weights
    texts = baselines._vectors(gallery, words)
    cosine = predicted @ texts.T / np.linalg.norm(predicted, axis=1, keepdims=True)
    assert found == pytest.approx(recall(cosine, image_ids, np.arange(16)))
    assert found["tr@5"] > 60


def test_bag_of_words_is_the_same_twice_and_thins_rows(monkeypatch):
    rng = np.random.default_rng(5)
    train, train_ids = colours(rng, 120)
    captions = [[caption(number), caption(number)] for number in train_ids]
    gallery = [caption(number) for number in range(16)]

    def run(kept):
        return bag_of_words(
            train[kept], [captions[row] for row in kept], train[:20], gallery, train_ids[:20], np.arange(16), ridge=1.0
        )

    whole = run(np.arange(120))
    assert whole == run(np.arange(120))
    monkeypatch.setattr(baselines, "MAX_ROWS", 60)
    assert run(np.arange(120)) == run(np.linspace(0, 119, 60).astype(int))


def test_large_images_are_averaged(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_SIDE", 3)
    image = np.random.default_rng(6).integers(0, 256, (2, 7, 6, 3), dtype=np.uint8)
    found = baselines._pixels(image).reshape(2, 3, 3, 3)
    for row, (top, bottom) in enumerate([(0, 2), (2, 4), (4, 7)]):
        for column in range(3):
            cell = image[:, top:bottom, 2 * column : 2 * column + 2] / 255
            np.testing.assert_allclose(found[:, row, column], cell.mean(axis=(1, 2)), rtol=1e-5)


def test_images_all_alike_find_nothing():
    same = np.full((30, 4, 4, 3), 100, np.uint8)
    found = bag_of_words(same, [["a"], ["b"]] * 15, same, ["a", "b"] * 15, np.arange(30), np.arange(30), ridge=1.0)
    assert set(found.values()) == {0.0}


def test_bag_of_words_of_unusable_arguments():
    rng = np.random.default_rng(7)
    images = random_images(rng, 3)
    good = dict(
        train_images=images,
        train_captions=[["a"]] * 3,
        images=images,
        captions=["a"] * 3,
        image_ids=[0, 1, 2],
        text_ids=[0, 1, 2],
        ridge=1.0,
    )
    for change in (
        {"ridge": 0.0},
        {"train_captions": [["a"], [], ["a"]]},
        {"train_captions": [["a"]] * 2},
        {"images": random_images(rng, 3, side=5)},
        {"text_ids": [0, 1]},
    ):
        with pytest.raises(ValueError):
            bag_of_words(**{**good, **change})
