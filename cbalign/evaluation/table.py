"""Retrieval results as a plain-text table."""

from cbalign.evaluation.metrics import KS
from cbalign.evaluation.task_table import format_task_table

COLUMNS = tuple(f"{direction}@{k}" for direction in ("tr", "ir") for k in KS)


def format_table(result):
    """A table of recalls in per cent: a title, one row per way of ranking, then the notes.

    Rows are chance, the baselines, the contrastive ranking, ITM re-ranking and the sum of both scores; columns are
    TR@1, 5, 10 (texts for an image) and IR@1, 5, 10 (images for a text). A figure that is missing or None is "-".
    A result with "accuracy" is of another task, see `format_task_table`.

    Args:
      result: {"data": str, "split": str, "images": int, "texts": int, "chance", "contrastive", "itm", "sum": recalls
        in per cent or None, "baselines": {"pixel_nearest_neighbour", "bag_of_words": recalls or None},
        "notes": [str]}. Recalls are {"tr@1": float, ...}, in whole or in part.

    Returns:
      str without a line break at the end.
    """
    if "accuracy" in result:
        return format_task_table(result)
    rows = recall_rows(result)
    width = max(len(label) for label, _ in rows)
    lines = [
        f"{result['data']} {result['split']}: {result['images']:,} images, {result['texts']:,} texts; recall in %",
        " " * width + "".join(f"{column.upper():>8}" for column in COLUMNS),
    ]
    for label, recalls in rows:
        lines.append(f"{label:<{width}}" + "".join(f"{_figure(recalls, column):>8}" for column in COLUMNS))
    lines.extend(f"note: {note}" for note in result.get("notes") or ())
    return "\n".join(lines)


def recall_rows(result):
    """[(label, recalls or None)] from the top of the table to its bottom; `result` as for `format_table`."""
    baselines = result.get("baselines") or {}
    return [
        ("chance", result.get("chance")),
        ("pixel nearest neighbour", baselines.get("pixel_nearest_neighbour")),
        ("bag of words", baselines.get("bag_of_words")),
        ("contrastive", result.get("contrastive")),
        ("ITM re-ranking", result.get("itm")),
        ("contrastive + ITM", result.get("sum")),
    ]


def _figure(recalls, column):
    """The figure with two decimals (chance among thousands is below 0.1 %), or "-"."""
    value = (recalls or {}).get(column)
    return "-" if value is None else f"{value:.2f}"
