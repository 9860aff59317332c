"""Classification metrics: overall and per-class accuracy, confusion matrix, and consistency (NLVR2)."""

import collections

import numpy as np


def classification_scores(predicted, labels, classes) -> dict:
    """Accuracy and confusion matrix of a classifier.

    Args:
      predicted, labels: int [n], class indices.
      classes: the names of the classes.

    Returns:
      {"accuracy": {"overall": percent, class name: recall of that class in percent, None if it has no examples},
      "confusion": [[count]], rows are true classes, columns predicted classes}.

    Raises:
      ValueError: no examples, unequal lengths, or class indices out of range.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    k = len(classes)
    if (
        not len(labels)
        or len(labels) != len(predicted)
        or min(labels.min(), predicted.min()) < 0
        or max(labels.max(), predicted.max()) >= k
    ):
        raise ValueError(f"{len(predicted)} predictions and {len(labels)} labels of {k} classes do not match")
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    found, there = np.diag(confusion), confusion.sum(axis=1)
    by_class = {name: float(100 * hit / n) if n else None for name, hit, n in zip(classes, found, there)}
    return {
        "accuracy": {"overall": float(100 * found.sum() / len(labels)), **by_class},
        "confusion": confusion.tolist(),
    }


def blind_guess(train_texts, train_answers, texts) -> list:
    """The most frequent training answer to each text, or the most frequent answer overall for unseen texts.

    Ties are resolved in favor of the answer that occurs first.
    """
    overall, of_text = collections.Counter(train_answers), collections.defaultdict(collections.Counter)
    for text, answer in zip(train_texts, train_answers, strict=True):
        of_text[text][answer] += 1
    return [of_text.get(text, overall).most_common(1)[0][0] for text in texts]


def consistency(predicted, labels, identifiers) -> float:
    """Percentage of statements that are classified correctly for all of their image pairs.

    Identifiers have the form split-set-pair-sentence; those that differ only in the pair belong to one statement
    (NLVR2's `metrics.py`).

    Raises:
      ValueError: an identifier has a different form.
    """
    right: dict[tuple, bool] = {}
    for guess, label, identifier in zip(predicted, labels, identifiers, strict=True):
        parts = identifier.split("-")
        if len(parts) != 4:
            raise ValueError(f"identifier {identifier!r} does not have the form split-set-pair-sentence")
        statement = (parts[0], parts[1], parts[3])
        right[statement] = right.get(statement, True) and guess == label
    return 100 * sum(right.values()) / len(right)
