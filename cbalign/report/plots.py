"""Curves of a run, drawn with matplotlib without a display."""

from __future__ import annotations

import dataclasses
import html
import io
import math
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, which stays distinct for the colour-blind; lines differ in their dashes as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#7a6a00", "#5f6b76")
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1.5)), (0, (1, 1)))
_INK, _GRID, _FRAME, _LEVEL = "#22282f", "#e4e7ea", "#8a939b", "#444445"
# What the colours are in the page, whose style sheet sets them for light and dark.
_VARIABLES = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    _FRAME: "var(--soft)",
    _LEVEL: "var(--soft)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(COLOURS, 1)},
}
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "axes.edgecolor": _FRAME,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _FRAME,
    "ytick.color": _FRAME,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
}
# Text stays text, which the page sets in its own font; names of shapes do not change from one writing to the next.
_SVG_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "cbalign", "figure.facecolor": "none", "axes.facecolor": "none"}
_COLUMNS = 3
_DPI = 130


@dataclasses.dataclass(frozen=True)
class Panel:
    """One small plot.

    Attributes:
      title: quantity and unit.
      lines: ((name in metrics.jsonl, label), ...).
      levels: ((label, value), ...), drawn as dashed horizontal lines.
      log: whether the vertical axis is logarithmic.
      meaning: a sentence on what it shows, for the page; "" for none.
    """

    title: str
    lines: tuple
    levels: tuple = ()
    log: bool = False
    meaning: str = ""


# Metrics drawn together: (title, metrics, the one whose chance level is drawn). All others have a panel each.
_GROUPS = (
    ("Total loss", ("loss",), None),
    ("Contrast, mean of its terms (ica)", ("ica",), "i2t"),
    ("Contrast across modalities, nats", ("i2t", "t2i"), "i2t"),
    ("Contrast within a modality, nats", ("i2i", "t2t"), "i2i"),
    ("Transport cost (ot)", ("ot",), None),
    ("Code prediction, nats", ("i2p", "t2p"), "i2p"),
    ("Matching (itm), nats", ("itm",), "itm"),
    ("Accuracy of matching", ("itm_accuracy",), "itm_accuracy"),
    ("Masked tokens, nats", ("mlm_hard", "mlm_soft", "mlm"), "mlm_hard"),
    ("Classes, nats", ("class_hard", "class_soft"), "class_hard"),
    ("Accuracy over classes", ("class_accuracy",), "class_accuracy"),
    ("Answers, nats", ("vqa_hard", "vqa_soft"), "vqa_hard"),
    ("Accuracy of answer tokens", ("token_accuracy",), "token_accuracy"),
)


def loss_panels(log_metrics: Sequence[str], chance: Mapping[str, float]) -> list[Panel]:
    """Panels of the losses and of the accuracies on training batches.

    Args:
      log_metrics: metrics of the task, `task.log_metrics`; those that nothing else on the page shows are appended.
      chance: {metric: its value for a model without knowledge}, `task.chance_levels()`.
    """

    def panel(title, names, level):
        levels = (("chance", chance[level]),) if level in chance else ()
        return Panel(title, tuple((f"train/{name}", name) for name in names), levels)

    elsewhere = {name.removeprefix("train/") for one in setting_panels() for name, _ in one.lines}
    known = elsewhere.union(*(names for _, names, _ in _GROUPS))
    others = [(name, (name,), name) for name in log_metrics if name not in known]
    return [panel(*group) for group in (*_GROUPS, *others)]


def unplotted_levels(panels: Sequence[Panel], chance: Mapping[str, float]) -> list[tuple[str, float]]:
    """[(metric, chance level)] of the metrics that have no line in any of the panels."""
    plotted = {label for panel in panels for _, label in panel.lines}
    return [(name, level) for name, level in chance.items() if name not in plotted]


def setting_panels(unit: str = "pairs") -> list[Panel]:
    """Panels of scheduled and learned settings, of the gradient and of the throughput in `unit` per second."""
    return [
        Panel("Temperature", (("train/temperature", "temperature"),)),
        Panel("Weight of soft targets (alpha)", (("train/alpha", "alpha"),)),
        Panel("Learning rate", (("train/learning_rate", "learning rate"),)),
        Panel("Gradient norm", (("train/gradient_norm", "gradient norm"),)),
        Panel("Share of the queue that is filled", (("train/queue_fill", "queue fill"),)),
        Panel(f"Speed, {unit} per second", (("train/pairs_per_second", f"{unit}/s"),)),
    ]


def codebook_panels(num_codes: int) -> list[Panel]:
    """Panels of the codebook's diagnostics.

    Args:
      num_codes: K; ln K is the entropy of a uniform assignment.
    """
    return [
        Panel(
            "Entropy of the assignment, nats",
            (("train/assignment_entropy", "entropy"),),
            (("uniform, ln K", math.log(num_codes)),),
            meaning="Mean entropy of a feature's distribution over the codes. At ln K it chooses none; near 0 it has "
            "settled on one.",
        ),
        Panel(
            "Share of codes a batch uses",
            (("train/codes_used", "codes used"),),
            meaning="Share of the K codes that are the likeliest one of some feature of the batch; at most the batch "
            "size over K. A falling curve means that codes die.",
        ),
        Panel(
            "Error of the plan's marginals",
            (("train/marginal_error", "marginal error"),),
            log=True,
            meaning="How far the transport plan is from using all codes equally; small: the solver has converged.",
        ),
    ]


# Measures of `metrics/stability.json`: (name, title, meaning).
STABILITY = (
    ("changed", "Nearest target that changes, share", "Share of pairs whose likeliest target is another one"),
    ("moved", "Movement of the targets", "Movement of a pair's targets, relative to the distance between pairs"),
    ("decorrelated", "Decorrelation of the targets", "1 minus the correlation of a pair's similarities"),
)
TARGETS = ("codes", "instances")


def stability_panels() -> list[Panel]:
    """Panels of how much the targets change from one checkpoint to the next."""
    return [
        Panel(
            title,
            tuple((f"stability/{kind}/{name}", kind) for kind in TARGETS),
            meaning=f"{meaning}, from the checkpoint before to the one at this step.",
        )
        for name, title, meaning in STABILITY
    ]


def stability_metrics(stability: Mapping | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics of those panels.

    Args:
      stability: as `experiments.stability.measure_run` writes it; None for none.
    """
    if stability is None:
        return {}
    steps = np.array(stability["steps"][1:], np.int64)
    return {
        f"stability/{kind}/{name}": (steps, np.array(stability[kind][name], np.float64))
        for kind in TARGETS
        if stability[kind]
        for name, _, _ in STABILITY
    }


def evaluation_panels(metrics: Mapping) -> list[Panel]:
    """Panels of the evaluations during training: recall or accuracy in per cent, one panel a split, with chance levels.

    Args:
      metrics: {"SPLIT/contrastive/tr@1" or "SPLIT/accuracy/PART": (steps, values)} among others.
    """
    panels = []
    for split in _splits(metrics, "contrastive"):
        lines = tuple((f"{split}/contrastive/{name}", name.upper()) for name in ("tr@1", "ir@1", "tr@10", "ir@10"))
        panels.append(Panel(f"Recall on {split}, %", lines, _level(metrics, f"{split}/chance/tr@10", "chance @10")))
    for split in _splits(metrics, "accuracy"):
        prefix = f"{split}/accuracy/"
        names = [name for name in metrics if name.startswith(prefix)]
        if len(names) > len(COLOURS):
            names = [f"{prefix}overall"]  # more parts than colours; the table of results has them all
        lines = tuple((name, name.removeprefix(prefix)) for name in names)
        panels.append(Panel(f"Accuracy on {split}, %", lines, _level(metrics, f"{split}/chance/overall", "chance")))
    return panels


def _splits(metrics: Mapping, kind: str) -> list[str]:
    return list(dict.fromkeys(name.partition(f"/{kind}/")[0] for name in metrics if f"/{kind}/" in name))


def _level(metrics: Mapping, name: str, label: str) -> tuple:
    return ((label, float(metrics[name][1][-1])),) if name in metrics else ()


def has_data(panel: Panel, metrics: Mapping) -> bool:
    """Whether any of the panel's lines has a finite value."""
    return any(np.isfinite(values).any() for *_, values in _lines(panel, metrics))


def _lines(panel: Panel, metrics: Mapping) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """[(place in the panel, label, steps, values)] of the lines that say something.

    Without a teacher the losses of its soft targets are 0 throughout; such a line would only flatten the others.
    """
    return [
        (number, label, *metrics[name])
        for number, (name, label) in enumerate(panel.lines)
        if name in metrics and not (name.endswith("_soft") and not np.any(metrics[name][1]))
    ]


def draw_panels(panels: list[Panel], metrics: Mapping) -> bytes:
    """Draws the panels that have data into one PNG, three to a row.

    Args:
      panels: at least one of them has data.
      metrics: {name: (steps, values)}.
    """
    panels = [panel for panel in panels if has_data(panel, metrics)]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.9 * columns, 2.75 * rows), dpi=_DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1, hspace=0.04, wspace=0.02)
        axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for panel, axis in zip(panels, axes):
            _draw(axis, panel, metrics)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        return to_png(figure)


def panel_svg(panel: Panel, metrics: Mapping) -> str:
    """A panel that has data as an SVG element for the page: its colours are the page's, its label describes it."""
    with matplotlib.rc_context({**_STYLE, **_SVG_STYLE}):
        figure = Figure(figsize=(4.3, 3.0), layout="constrained")
        # Room for the page's font, which may be wider than the one this is laid out with.
        figure.get_layout_engine().set(w_pad=0.14, h_pad=0.06)
        _draw(figure.subplots(), panel, metrics)
        return to_svg(figure, describe(panel, metrics))


def to_svg(figure: Figure, label: str) -> str:
    """A figure as an SVG element, with a text alternative and the page's colours; the same each time."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    # The font and its fallbacks are the page's.
    body = re.sub(r"(font: (?:\w+ )?[\d.]+px)[^;\"]*", r"\1 system-ui, sans-serif", body)
    assert box is not None
    return f'<svg class="plot" role="img" aria-label="{html.escape(label)}" {box.group()}>{body}'


def describe(panel: Panel, metrics: Mapping) -> str:
    """The text alternative of a panel: where each line starts and ends."""
    parts = []
    for _, label, steps, values in _lines(panel, metrics):
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            first, last = known[0], known[-1]
            parts.append(f"{label} {values[first]:.3g} at step {steps[first]:,}, {values[last]:.3g} at {steps[last]:,}")
    parts += [f"{label} {level:.3g}" for label, level in panel.levels]
    return f"{panel.title}: {'; '.join(parts)}"


def _draw(axis, panel: Panel, metrics: Mapping) -> None:
    # A line has the same colour in all plots of a page, whether the lines before it are there or not.
    lines = _lines(panel, metrics)
    for number, label, steps, values in lines:
        turn, place = divmod(number, len(COLOURS))
        style = dict(color=COLOURS[place], linestyle=_DASHES[(place + turn) % len(_DASHES)])
        # A single point draws no line, and few points are easier to read with markers.
        marker = "o" if len(steps) < 12 else None
        axis.plot(steps, values, linewidth=1.6, marker=marker, markersize=3.5, label=_plain(label), **style)
    for label, level in panel.levels:
        axis.axhline(level, color=_LEVEL, linestyle=(0, (1, 2)), linewidth=1.3, label=f"{label} {level:.3g}")
    if panel.log and any(np.nanmax(values) > 0 for *_, values in lines if np.isfinite(values).any()):
        axis.set_yscale("log")
    else:
        axis.margins(y=0.12)
        axis.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)
    axis.set_xlim(left=0)  # the same start in all plots, and room beside a single point
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_title(panel.title)
    axis.set_xlabel("step")
    if len(panel.lines) + len(panel.levels) > 1:
        # Below the axes, where it covers no curve.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=3, columnspacing=1.2, handlelength=1.6)


def _plain(label: str) -> str:
    """A label that is not read as a formula."""
    return label.replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, reproducible byte for byte."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, at the report's resolution."""
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
