"""Curves of a run, drawn with matplotlib without a display."""

import dataclasses
import io
import math

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#2563a8", "#d1651f", "#2f8f4e", "#8a4fa3", "#a63d40", "#5f6b76")
_STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e7ea",
    "axes.edgecolor": "#8a939b", "legend.frameon": False, "legend.fontsize": 8, "figure.facecolor": "white",
}
_COLUMNS = 3
_DPI = 130


@dataclasses.dataclass(frozen=True)
class Panel:
    """One small plot.

    Attributes:
      title: what it shows, with the unit.
      lines: ((name in metrics.jsonl, label), ...).
      levels: ((label, height), ...) of dashed lines.
      log: whether the heights are on a logarithmic scale.
    """

    title: str
    lines: tuple
    levels: tuple = ()
    log: bool = False


def loss_panels(chance: dict) -> list[Panel]:
    """The losses, and the accuracy of matching.

    Args:
      chance: levels of a model that knows nothing, `task.chance_levels()`.
    """
    def panel(title, names, level=None):
        levels = (("chance", chance[level]),) if level in chance else ()
        return Panel(title, tuple((f"train/{name}", name) for name in names), levels)

    return [
        panel("Total loss", ("loss",)),
        panel("Contrast, mean of its terms (ica)", ("ica",), "i2t"),
        panel("Contrast across modalities, nats", ("i2t", "t2i"), "i2t"),
        panel("Contrast within a modality, nats", ("i2i", "t2t"), "i2i"),
        panel("Transport cost (ot)", ("ot",)),
        panel("Code prediction, nats", ("i2p", "t2p"), "i2p"),
        panel("Matching (itm), nats", ("itm",), "itm"),
        panel("Accuracy of matching", ("itm_accuracy",), "itm_accuracy"),
        panel("Masked tokens, nats", ("mlm_hard", "mlm_soft", "mlm"), "mlm_hard"),
    ]


def setting_panels() -> list[Panel]:
    """What is scheduled or learned beside the weights, and the speed."""
    return [
        Panel("Temperature", (("train/temperature", "temperature"),)),
        Panel("Weight of soft targets (alpha)", (("train/alpha", "alpha"),)),
        Panel("Learning rate", (("train/learning_rate", "learning rate"),)),
        Panel("Norm of the gradient", (("train/gradient_norm", "gradient norm"),)),
        Panel("Share of the queue that is filled", (("train/queue_fill", "queue fill"),)),
        Panel("Speed, pairs per second", (("train/pairs_per_second", "pairs/s"),)),
    ]


def codebook_panels(num_codes: int) -> list[Panel]:
    """Health of the codebook.

    Args:
      num_codes: K; ln K is the entropy of an assignment that has decided nothing.
    """
    return [
        Panel("Entropy of the assignment, nats", (("train/assignment_entropy", "entropy"),),
              (("undecided, ln K", math.log(num_codes)),)),
        Panel("Share of codes a batch uses", (("train/codes_used", "codes used"),)),
        Panel("Error of the plan's marginals", (("train/marginal_error", "marginal error"),), log=True),
    ]


def recall_panels(metrics: dict) -> list[Panel]:
    """Recall during training, one panel for each split: contrastive ranking, in per cent, with chance where given."""
    splits = dict.fromkeys(name.partition("/contrastive/")[0] for name in metrics if "/contrastive/" in name)
    panels = []
    for split in splits:
        lines = tuple((f"{split}/contrastive/{name}", name.upper()) for name in ("tr@1", "ir@1", "tr@10", "ir@10"))
        chance = metrics.get(f"{split}/chance/tr@10")
        levels = (("chance @10", float(chance[1][-1])),) if chance else ()
        panels.append(Panel(f"Recall on {split}, %", lines, levels))
    return panels


def has_data(panel: Panel, metrics: dict) -> bool:
    """Whether any of the panel's lines has a finite value."""
    return any(name in metrics and np.isfinite(metrics[name][1]).any() for name, _ in panel.lines)


def draw_panels(panels: list[Panel], metrics: dict) -> bytes:
    """One PNG of the panels that have data, three to a row; of one panel, a single plot.

    Args:
      panels: what to draw; at least one has data.
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
        for axis in axes[len(panels):]:
            axis.set_visible(False)
        return to_png(figure)


def _draw(axis, panel: Panel, metrics: dict) -> None:
    lines = [(label, *metrics[name]) for name, label in panel.lines if name in metrics]
    for (label, steps, values), colour in zip(lines, COLOURS):
        # A single point is no line, and a few are easier to tell with their places marked.
        marker = "o" if len(steps) < 12 else None
        axis.plot(steps, values, color=colour, linewidth=1.5, marker=marker, markersize=3.5, label=label)
    for label, height in panel.levels:
        axis.axhline(height, color="#444444", linestyle=(0, (5, 3)), linewidth=1.1, label=f"{label} {height:.3g}")
    if panel.log and any(np.nanmax(values) > 0 for _, _, values in lines if np.isfinite(values).any()):
        axis.set_yscale("log")
    else:
        axis.margins(y=0.12)
        axis.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_title(panel.title)
    axis.set_xlabel("step")
    if len(lines) + len(panel.levels) > 1:
        # Below the axes, where no curve can run through it.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=3, columnspacing=1.2, handlelength=1.6)


def to_png(figure: Figure) -> bytes:
    """A figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, at the report's resolution."""
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
