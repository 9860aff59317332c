"""The report of a run: one self-contained HTML page and two PNGs."""

from __future__ import annotations

import functools
import math
import re

import jax
import numpy as np
from etils import epath

from cbalign.config import to_json
from cbalign.inference.explanation import BY_MATCH
from cbalign.report import plots
from cbalign.report.embedding_map import HEIGHT, WIDTH
from cbalign.report.history import History, read_history
from cbalign.report.inline import data_uri
from cbalign.report.result_tables import latest_views, result_view, stability_view
from cbalign.report.retrieval_examples import draw_examples, examples_png, selection_note
from cbalign.report.sections import Sections, make_sections
from cbalign.report.templates import drawn, render
from cbalign.runs.workdir import Run
from cbalign.storage import write_atomically

_TEMPLATE = "page.html.jinja"


def write_report(run: Run, *, split: str = "", checkpoint: str = "best", seed: int = 0) -> epath.Path:
    """Writes report.html, report/losses.png and, for retrieval, report/gallery.png into the workdir of a run.

    The page names what the run does not have yet, such as results; a PNG without content is not written.

    Args:
      run: from `open_run`.
      split: of the examples; by default see `sections.make_sections`.
      checkpoint: of the examples, see `Run.params`.
      seed: of the random draw of examples.

    Returns:
      The path of the page.

    Raises:
      UserError: a split or checkpoint that does not exist, or one given for a task without examples.
    """
    history, folder = read_history(run.workdir), run.workdir / "report"
    sections = make_sections(run, history, split=split, checkpoint=checkpoint, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    losses = plots.loss_panels(run.task.log_metrics, run.task.chance_levels())
    if any(plots.has_data(panel, history.metrics) for panel in losses):
        write_atomically(folder / "losses.png", plots.draw_panels(losses, history.metrics))
    if sections.retrieval:
        encoded = sections.retrieval.encoded
        write_atomically(folder / "gallery.png", examples_png(encoded, draw_examples(encoded, seed=seed)))
    return write_atomically(run.workdir / "report.html", _page(run, history, losses, sections))


def _page(run: Run, history: History, losses: list[plots.Panel], sections: Sections) -> str:
    draw = functools.partial(drawn, metrics=history.metrics)
    retrieval, stability = sections.retrieval, history.stability
    return render(
        _TEMPLATE,
        name=_name(run),
        facts=_facts(run, history),
        results=[result_view(result) for result in history.results],
        latest=latest_views(history.latest_evaluation()),
        evaluations=draw(plots.evaluation_panels(history.metrics)),
        sections=sections,
        retrieval=retrieval,
        selection=selection_note(retrieval.encoded, retrieval.seed) if retrieval else "",
        thumb=functools.cache(lambda image: data_uri(retrieval.encoded.thumbnail(image))) if retrieval else None,
        map_size=(WIDTH, HEIGHT),
        by_match=BY_MATCH,
        top_k=run.config.eval.rerank_top_k,
        losses=draw(losses),
        unplotted_levels=plots.unplotted_levels(losses, run.task.chance_levels()),
        codebook=draw(plots.codebook_panels(run.config.codebook.num_codes)),
        num_codes=run.config.codebook.num_codes,
        stability=stability_view(stability) if stability else None,
        # One interval would be a single point, which the table has already.
        stability_curves=drawn(plots.stability_panels(), plots.stability_metrics(stability))
        if stability and len(stability["steps"]) > 2
        else [],
        settings=draw(plots.setting_panels(_unit(run))),
        config=to_json(run.config),
    )


def _facts(run: Run, history: History) -> list[tuple[str, str]]:
    """The run at a glance: (label, text), which may have several lines."""
    config, data = run.config, run.config.data
    return [
        ("task", run.task.name),
        ("data", f"{data.name}, {data.train_split}; {data.image_size} px"),
        ("steps", f"{history.last_step:,} of {config.train.steps:,}, batch size {config.train.batch_size:,}"),
        ("speed", _speed(history, config.train.batch_size, unit=_unit(run))),
        ("parameters", _parameters(run)),
        ("started", "\n".join(map(_start, history.started)) or "no log"),
        ("command", history.command or f"cbalign train --config=FILE --workdir={run.workdir} (the config is below)"),
    ]


def _name(run: Run) -> str:
    """The folder's name; of a suite's run with the row and the rate, ROW/rate_R/seed_S."""
    parts = run.workdir.resolve().parts
    return "/".join(parts[-3:] if re.fullmatch(r"seed_\d+", parts[-1]) else parts[-1:])


def _start(line: str) -> str:
    """A line of the log about a start: the place taken of those listed, in words; other lines as they are."""
    place = re.fullmatch(r"\d\. (\S+(?: \S+)?)(?: {2,}(\S.*?))?\s+<- taken", line)
    return line if place is None else "from " + ": ".join(filter(None, place.groups()))


def _unit(run: Run) -> str:
    """What the run's throughput counts."""
    return "pairs" if run.task.shares_embedding_space else "records"


def _speed(history: History, batch_size: int, *, unit: str) -> str:
    _, values = history.metrics.get("train/pairs_per_second", ((), np.array([])))
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return "not measured yet"
    rate, span = float(np.median(values)), _duration(float(np.ptp(history.times)))
    step = batch_size / rate
    each = f"{step:,.1f} s" if step >= 10 else f"{1000 * step:,.1f} ms"
    return (
        f"{each} per step, {rate:,.0f} {unit}/s (median of {len(values)} log lines); "
        f"{span} from the first line to the last, including evaluation and interruptions"
    )


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _parameters(run: Run) -> str:
    """The number of parameters, in total and by module, computed from shapes alone."""
    shapes = jax.eval_shape(lambda: run.task.init_params(jax.random.key(0)))
    counts = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    largest = sorted(counts, key=counts.get, reverse=True)
    return f"{sum(counts.values()):,} (" + ", ".join(f"{name} {counts[name]:,}" for name in largest) + ")"
