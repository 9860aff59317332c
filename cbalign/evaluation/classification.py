"""Accuracy over classes: overall, of each class, the confusion matrix, and consistency over groups (NLVR2)."""

import collections

import numpy as np


def classification_scores(predicted, labels, classes) -> dict:
    """Figures of a classifier.

    Args:
      predicted, labels: int [n], numbers of classes.
      classes: their names.

    Returns:
      {"accuracy": {"overall": per cent, class: per cent of that class's examples found, None without any},
      "confusion": [[count]], row the true class, column the predicted one}.

    Raises:
      ValueError: no example, or numbers out of range.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    k = len(classes)
    if not len(labels) or len(labels) != len(predicted) or min(labels.min(), predicted.min()) < 0 or max(
            labels.max(), predicted.max()) >= k:
        raise ValueError(f"{len(predicted)} predictions and {len(labels)} labels of {k} classes do not fit")
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    found, there = np.diag(confusion), confusion.sum(axis=1)
    by_class = {name: float(100 * hit / n) if n else None for name, hit, n in zip(classes, found, there)}
    return {"accuracy": {"overall": float(100 * found.sum() / len(labels)), **by_class},
            "confusion": confusion.tolist()}


def blind_guess(train_texts, train_answers, texts) -> list:
    """For each text the most frequent answer to that very text in training; to an unknown one, to any.

    Ties go to what came first.
    """
    overall, of_text = collections.Counter(train_answers), collections.defaultdict(collections.Counter)
    for text, answer in zip(train_texts, train_answers, strict=True):
        of_text[text][answer] += 1
    return [(of_text[text] if text in of_text else overall).most_common(1)[0][0] for text in texts]


def consistency(predicted, labels, identifiers) -> float:
    """Share of the statements that were judged right for every pair of images they stand with, in per cent.

    An identifier is split-set-pair-sentence; those that differ in the pair alone are of one statement (NLVR2's
    `metrics.py`).

    Raises:
      ValueError: an identifier of another form.
    """
    right: dict[tuple, bool] = {}
    for guess, label, identifier in zip(predicted, labels, identifiers, strict=True):
        parts = identifier.split("-")
        if len(parts) != 4:
            raise ValueError(f"{identifier!r} is no identifier of the form split-set-pair-sentence")
        statement = (parts[0], parts[1], parts[3])
        right[statement] = right.get(statement, True) and guess == label
    return 100 * sum(right.values()) / len(right)
