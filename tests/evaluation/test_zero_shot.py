"""Zero-shot classification against PyTorch and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from cbalign.evaluation.zero_shot import class_features, class_probabilities, class_texts, top_accuracy


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_texts_of_classes():
    assert class_texts(["cat", "dog"], ["{}", "a {} or {}"]) == ["cat", "a cat or cat", "dog", "a dog or dog"]


def test_features_are_normalized_means_over_templates():
    features = unit(np.random.default_rng(0), 6, 4)
    found = class_features(lambda texts: features, ["a", "b"], ["{}", "x {}", "y {}"])
    expected = torch.nn.functional.normalize(torch.tensor(features).reshape(2, 3, 4).mean(1), dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_probabilities(temperature):
    rng = np.random.default_rng(1)
    images, classes = unit(rng, 5, 8), unit(rng, 3, 8)
    found = class_probabilities(images, classes, temperature=temperature)
    expected = torch.softmax(torch.tensor(images).double() @ torch.tensor(classes).double().T / temperature, dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_accuracy(k):
    rng = np.random.default_rng(2)
    scores, labels = rng.random((40, 7)), rng.integers(0, 7, 40)
    expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert top_accuracy(scores, labels, k) == pytest.approx(100 * expected)
