"""Tables of an evaluation's result for the page, made of whatever figures the result contains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cbalign.evaluation.result_table import COLUMNS, accuracy_rows, class_names, recall_rows, result_title
from cbalign.report import plots


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
      caption: above the table; "" for none.
      header: names of the columns after the first.
      rows: (label, cells) with one (text, whether it is printed bold) for each column.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]


@dataclasses.dataclass(frozen=True)
class ResultView:
    """One evaluation as the page shows it.

    Attributes:
      title: data set, split and sizes.
      tables: its figures.
      notes: sentences without a full stop.
    """

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def result_view(result: Mapping) -> ResultView:
    """The tables of a result: recalls, or accuracies with their parts, confusion matrix and question types.

    Args:
      result: as written by `runs.evaluate.evaluate_run`.
    """
    tables = list(_accuracy_tables(result)) if "accuracy" in result else [_recall_table(result)]
    return ResultView(result_title(result), tuple(tables), tuple(result.get("notes") or ()))


def latest_views(latest: Mapping) -> list[ResultView]:
    """The tables of evaluations during training, as `History.latest_evaluation` returns them."""
    return [
        ResultView(
            f"{split} at step {step:,}, during training",
            tuple(_accuracy_tables(kinds)) if "accuracy" in kinds else (_recall_table(kinds),),
            (),
        )
        for (split, step), kinds in latest.items()
    ]


def stability_view(stability: Mapping) -> ResultView:
    """How much the targets of training pairs change, on average over training.

    Args:
      stability: as `experiments.stability.measure_run` writes it.
    """
    steps, metrics = stability["steps"], plots.stability_metrics(stability)
    caption = "Mean over the intervals. The lower of both in bold."
    if len(steps) == 2:
        caption = f"Between the checkpoints of step {steps[0]:,} and {steps[1]:,}. The lower of both in bold."
    rows = []
    for name, title, _ in plots.STABILITY:
        found = [metrics.get(f"stability/{kind}/{name}", ((), np.array([np.nan])))[1] for kind in plots.TARGETS]
        means = [float(np.mean(values)) for values in found]
        least = min(means) if np.isfinite(means).all() else None
        rows.append((title, tuple(("–" if mean != mean else f"{mean:.3f}", mean == least) for mean in means)))
    spreads = [
        f"{label} {spread['deviation']:.3g} ({100 * spread['relative']:.1f} % of its mean)"
        for label, spread in (("total loss", stability.get("loss")), ("gradient norm", stability.get("gradient_norm")))
        if spread
    ]
    notes = (f"Standard deviation from step to step within an epoch: {', '.join(spreads)}",) if spreads else ()
    title = f"{stability['pairs']:,} training pairs, {len(steps)} checkpoints"
    return ResultView(title, (Table(caption, plots.TARGETS, tuple(rows)),), notes)


def _recall_table(result: Mapping) -> Table:
    caption = "Recall in %; TR: texts for an image, IR: images for a text. Best in bold."
    return _best_in_bold(caption, COLUMNS, recall_rows(result), header=[column.upper() for column in COLUMNS])


def _accuracy_tables(result: Mapping) -> Iterable[Table]:
    accuracy = result["accuracy"]
    if not accuracy:
        return
    yield _best_in_bold(_accuracy_caption(result), list(accuracy), accuracy_rows(result))
    if confusion := result.get("confusion"):
        names = tuple(class_names(result))
        rows = tuple(
            (name, tuple((f"{count:,}", row == column) for column, count in enumerate(counts)))
            for row, (name, counts) in enumerate(zip(names, confusion, strict=True))
        )
        yield Table("Confusion matrix: rows are true classes, columns predicted ones; right ones in bold.", names, rows)
    if types := result.get("question_types"):
        ordered = sorted(types, key=lambda name: (-types[name], name))
        # Results of older runs have the guesses overall alone.
        guesses = (result.get("baselines") or {}).get("blind_guess_by_question_type") or {}
        rows = [("blind guess", guesses), ("model", types)]
        columns = tuple(label for label, figures in rows if figures)
        cells = tuple(
            (name, tuple((_figure(figures.get(name)), False) for _, figures in rows if figures)) for name in ordered
        )
        yield Table("Accuracy by type of question, in %, best first.", columns, cells)


def _accuracy_caption(result: Mapping) -> str:
    """What the rows and columns of the accuracies are, of those that the result has."""
    by = " and by true class" if result.get("confusion") else ""
    by = " and by type of answer" if result.get("question_types") else by
    rows, found = dict(accuracy_rows(result)), [f"Accuracy in %, overall{by}."]
    if rows["chance"]:
        found.append("Chance: any answer is as likely as the others.")
    if rows["blind guess"]:
        found.append("Blind guess: the most frequent answer in training to the same text, without the image.")
    if "consistency" in result["accuracy"]:
        found.append("Consistency: statements answered rightly for all of their images.")
    return " ".join([*found, "Best in bold."])


def _best_in_bold(
    caption: str, columns: Sequence[str], rows: Iterable[tuple[str, Mapping | None]], header: Sequence[str] = ()
) -> Table:
    """A row for each way of answering that has figures; the best figure of each column is bold."""
    rows = [(label, figures) for label, figures in rows if figures]
    best = {
        column: max((figures[column] for _, figures in rows if figures.get(column) is not None), default=None)
        for column in columns
    }
    cells = (
        (label, tuple((_figure(figures.get(column)), _is(figures.get(column), best[column])) for column in columns))
        for label, figures in rows
    )
    return Table(caption, tuple(header or columns), tuple(cells))


def _is(value, best) -> bool:
    return value is not None and value == best


def _figure(value) -> str:
    return "–" if value is None else f"{value:.2f}"
