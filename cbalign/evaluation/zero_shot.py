"""Zero-shot classification: each class is the mean feature of texts that name it, and images take the nearest class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def class_texts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The texts of k classes by t templates, those of one class next to one another: k * t strings."""
    return [template.replace("{}", name) for name in classes for template in templates]


def class_features(encode: Callable[[list[str]], np.ndarray], classes: Sequence[str], templates: Sequence[str]):
    """The features of classes (CLIP, arXiv 2103.00020, section 3.1.4): means over templates, of unit length.

    Args:
      encode: n texts -> float32 [n, d], rows of unit length.
      classes: k names.
      templates: texts with "{}" in the place of the name.

    Returns:
      float32 [k, d], rows of unit length.
    """
    features = np.asarray(encode(class_texts(classes, templates)), np.float32)
    means = features.reshape(len(classes), len(templates), -1).mean(axis=1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def class_probabilities(images: np.ndarray, classes: np.ndarray, *, temperature: float) -> np.ndarray:
    """softmax(z c^T / temperature) of images z over classes c.

    Args:
      images: float32 [n, d], rows of unit length.
      classes: float32 [k, d], rows of unit length.
      temperature: above 0.

    Returns:
      float32 [n, k], rows that sum to one.
    """
    logits = images.astype(np.float64) @ classes.T.astype(np.float64) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def top_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Percentage of images whose class is among the k likeliest; of equal probabilities the first class counts.

    Args:
      probabilities: [n, c], n at least 1.
      labels: int [n].
      k: at least 1.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(100 * (order == np.asarray(labels)[:, np.newaxis]).any(axis=1).mean())
