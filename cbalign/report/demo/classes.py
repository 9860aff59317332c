"""Zero-shot classification: the classes are texts, typed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbalign.inference.model import Images, Model


def classify(model: Model, images: Images, classes: Sequence[str], templates: Sequence[str] = ("{}",)) -> np.ndarray:
    """Probabilities of classes: softmax over the cosines with their texts, at the model's temperature.

    Args:
      model: with a shared embedding space.
      images: n, as for `Model.encode_image`.
      classes: m names.
      templates: texts with {} for the class; the features of a class are their mean, of unit length.

    Returns:
      float32 [n, m], rows that sum to one.
    """
    texts = [template.replace("{}", name) for name in classes for template in templates]
    features = model.encode_text(texts).reshape(len(classes), len(templates), -1).mean(axis=1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    temperature = float(np.asarray(model._source.params["temperature"]["value"]))
    logits = model.encode_image(images) @ features.T / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
