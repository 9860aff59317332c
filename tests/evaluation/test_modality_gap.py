"""The modality gap and mean cosines, against loops in numpy."""

import numpy as np
import pytest

from cbalign.evaluation.modality_gap import mean_cosines, modality_gap


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_gap():
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(7, 5)) + 1), unit(rng.normal(size=(9, 5)) - 1)
    difference = sum(images) / 7 - sum(texts) / 9
    assert modality_gap(images, texts) == pytest.approx(sum(x**2 for x in difference) ** 0.5)
    assert modality_gap(images, images[::-1]) == pytest.approx(0)
    assert modality_gap(np.eye(2)[:1], -np.eye(2)[:1]) == pytest.approx(2)


def test_mean_cosines():
    rng = np.random.default_rng(1)
    images, texts, pairs = unit(rng.normal(size=(4, 3))), unit(rng.normal(size=(5, 3))), [(0, 0), (1, 2), (3, 4)]
    own = [images[i] @ texts[j] for i, j in pairs]
    other = [images[i] @ texts[j] for i in range(4) for j in range(5) if (i, j) not in pairs]
    assert mean_cosines(images, texts, np.array(pairs)) == pytest.approx((np.mean(own), np.mean(other)))
