"""The result of an evaluation as a plain-text table."""

from __future__ import annotations

from collections.abc import Mapping

from cbalign.evaluation.metrics import KS

COLUMNS = tuple(f"{direction}@{k}" for direction in ("tr", "ir") for k in KS)
# Names of the sizes in a result.
_COUNTS = ("images", "texts", "questions", "sentences", "captions")


def format_result(result: Mapping) -> str:
    """A table of an evaluation's figures in per cent, followed by its notes; a missing figure is "-".

    The figures are recalls, or accuracies where the result has "accuracy".

    Args:
      result: as `runs.evaluate.evaluate_run` returns it: {"data", "split": str, sizes: int, "notes": [str], ...} with
        either recalls in per cent {"tr@1": float, ...} or None under "chance", "contrastive", "itm", "sum" and each
        name in "baselines"; or "task", accuracies in per cent {"overall": float, part: float} or None under "chance",
        "accuracy" and each name in "baselines", and perhaps "confusion" [[count]].

    Returns:
      str without a trailing line break.
    """
    lines = _accuracy_lines(result) if "accuracy" in result else _recall_lines(result)
    return "\n".join([*lines, *(f"note: {note}" for note in result.get("notes") or ())])


def is_result(value: Mapping) -> bool:
    """Whether a JSON object is the result of an evaluation, with every part that the tables show of its type."""
    if not {"data", "split"} <= value.keys() or not all(isinstance(value[name], str) for name in ("data", "split")):
        return False
    if "accuracy" in value and not isinstance(value.get("task"), str):
        return False
    baselines, confusion = value.get("baselines") or {}, value.get("confusion") or []
    parts = [value.get(name) for name in ("chance", "contrastive", "itm", "sum", "accuracy", "question_types")]
    if not isinstance(baselines, Mapping) or not all(map(_is_figures, [*parts, *baselines.values()])):
        return False
    if not isinstance(confusion, list) or not all(
        isinstance(row, list) and all(map(_is_count, row)) for row in confusion
    ):
        return False
    classes = len(class_names(value)) if confusion and value.get("accuracy") else 0
    return (
        all(len(row) == len(confusion) == classes for row in confusion)
        and all(_is_count(value[name]) for name in _COUNTS if name in value)
        and isinstance(value.get("notes") or [], list)
        and isinstance(value.get("protocol") or {}, Mapping)
    )


def _is_figures(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and all(x is None or _is_number(x) for x in value.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300


def result_title(result: Mapping) -> str:
    """Data set, split and sizes of an evaluation, with the task where the figures are accuracies."""
    counts = ", ".join(f"{result[name]:,} {name}" for name in _COUNTS if name in result)
    task = f"{result['task']} on " if "accuracy" in result else ""
    return f"{task}{result['data']} {result['split']}: {counts}"


def _recall_lines(result) -> list[str]:
    """A row for each ranking method; the columns are TR@k (texts for an image) and IR@k (images for a text)."""
    header = [column.upper() for column in COLUMNS]
    return [f"{result_title(result)}; recall in %", *_table(recall_rows(result), COLUMNS, [8] * len(COLUMNS), header)]


def recall_rows(result: Mapping) -> list[tuple[str, Mapping | None]]:
    """[(label, recalls or None)] in the order of the table's rows."""
    baselines = result.get("baselines") or {}
    return [
        ("chance", result.get("chance")),
        ("pixel nearest neighbour", baselines.get("pixel_nearest_neighbour")),
        ("bag of words", baselines.get("bag_of_words")),
        ("contrastive", result.get("contrastive")),
        ("ITM re-ranking", result.get("itm")),
        ("contrastive + ITM", result.get("sum")),
    ]


def _accuracy_lines(result) -> list[str]:
    """Rows for chance, the guess from the text alone and the model, then the confusion matrix."""
    lines = [f"{result_title(result)}; accuracy in %"]
    accuracy = result["accuracy"]
    if accuracy:
        lines += _table(accuracy_rows(result), list(accuracy), [max(9, len(name) + 2) for name in accuracy])
    if result.get("confusion"):
        names = class_names(result)
        lines.append("confusion matrix (rows: true class, columns: predicted class):")
        lines.append(" " * 15 + "".join(f"{name:>15}" for name in names))
        lines += [
            f"{name:<15}" + "".join(f"{count:>15,}" for count in row)
            for name, row in zip(names, result["confusion"], strict=True)
        ]
    return lines


def accuracy_rows(result: Mapping) -> list[tuple[str, Mapping | None]]:
    """[(label, accuracies or None)] in the order of the table's rows."""
    baselines = result.get("baselines") or {}
    return [
        ("chance", result.get("chance")),
        ("blind guess", baselines.get("blind_guess")),
        ("model", result["accuracy"]),
    ]


def class_names(result: Mapping) -> list[str]:
    """The classes of a confusion matrix, in its order."""
    return [name for name in result["accuracy"] if name not in ("overall", "consistency")]


def _table(rows, columns, widths, header=None) -> list[str]:
    label_width = max(11, *(len(label) for label, _ in rows))
    names = zip(header or columns, widths, strict=True)
    lines = [" " * label_width + "".join(f"{name:>{width}}" for name, width in names)]
    for label, values in rows:
        cells = (f"{_figure(values, name):>{width}}" for name, width in zip(columns, widths, strict=True))
        lines.append(f"{label:<{label_width}}" + "".join(cells))
    return lines


def _figure(values, name: str) -> str:
    """A figure with two decimals, since chance among thousands is below 0.1 %; "-" where it is missing."""
    value = (values or {}).get(name)
    return "-" if value is None else f"{value:.2f}"
