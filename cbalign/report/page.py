"""The report of a run: one HTML page that needs nothing beside it, and two PNGs."""

import base64
import html
import io
import math

import jax
import numpy as np
from etils import epath

from cbalign.runs.workdir import Run
from cbalign.config import to_json
from cbalign.errors import UserError
from cbalign.evaluation.result_table import COLUMNS, recall_rows
from cbalign.report import gallery as galleries
from cbalign.report import plots
from cbalign.report.history import History, read_history

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #22282e; background: #fff; margin: 0 auto; max-width: 68rem;
  padding: 1rem; }
h1 { font-size: 1.6rem; margin: .2rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e7ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #8a939b; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.facts td:first-child { color: #5f6b76; white-space: nowrap; }
.wide { overflow-x: auto; } .note { color: #5f6b76; font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .8rem; }
.plots img { width: 100%; height: auto; align-self: start; }
.query { margin: 0 0 1rem; } .query p { margin: 0 0 .3rem; } .strip { display: flex; flex-wrap: wrap; gap: .4rem; }
.strip img { width: 5.2rem; height: 5.2rem; object-fit: contain; border: 1px solid #c9ced3; padding: 2px; }
.strip img.right { border: 4px solid #1a8a3a; padding: 0; border-radius: 3px; }
.pair { display: flex; gap: .8rem; align-items: center; margin: 0 0 .8rem; }
.pair img { width: 5.2rem; height: 5.2rem; object-fit: contain; border: 1px solid #c9ced3; flex: none; }
.pair ol { margin: 0; padding-left: 1.4rem; } li.right { color: #1a8a3a; font-weight: bold; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 0 2rem; }
pre { overflow-x: auto; background: #f5f6f7; padding: .8rem; font-size: .85rem; } summary { cursor: pointer; }
"""


def write_report(run: Run, *, split: str = "", checkpoint: str = "best", seed: int = 0) -> epath.Path:
    """Writes report.html, report/losses.png and report/gallery.png into the workdir of a run.

    What the run has not come to yet is left out, and the page says so; a PNG that cannot be made is not written.

    Args:
      run: from `open_run`.
      split: for the gallery; by default the first test split evaluated, else the config's first validation split.
      checkpoint: for the gallery, as for `Run.params`.
      seed: of the gallery's draw.

    Returns:
      The path of the page.

    Raises:
      UserError: a split that was asked for does not exist.
    """
    history, folder = read_history(run.workdir), run.workdir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    losses = plots.loss_panels(run.task.chance_levels())
    if any(plots.has_data(panel, history.metrics) for panel in losses):
        (folder / "losses.png").write_bytes(plots.draw_panels(losses, history.metrics))
    examples, reason = _examples(run, history, split, checkpoint, seed)
    if examples:
        (folder / "gallery.png").write_bytes(galleries.draw_gallery(examples))
    page = run.workdir / "report.html"
    page.write_text(_page(run, history, losses, examples, reason))
    return page


def _examples(run, history, split, checkpoint, seed):
    """(gallery or None, why there is none)."""
    tests = [result for result in history.results if str(result["split"]).startswith("test")]
    if split:
        chosen, data = split, ""
    elif tests:
        chosen, data = tests[0]["split"], tests[0]["data"]
    elif run.config.eval.splits:
        chosen, data = run.config.eval.splits[0], ""
    else:
        return None, "the config names no split to evaluate; give one with --split"
    try:
        return galleries.make_gallery(run, chosen, data=data, checkpoint=checkpoint, seed=seed), ""
    except UserError as error:
        if split or checkpoint != "best":
            raise
        return None, str(error)


def _page(run, history, losses, examples, reason) -> str:
    codebook = plots.codebook_panels(run.config.codebook.num_codes)
    sections = [
        ("Results", _tables(history)),
        ("Retrieval during training", _plots(plots.recall_panels(history.metrics), history, "No evaluation yet.")),
        ("Examples", _gallery(examples) if examples else _note(f"No examples: {reason}.")),
        ("Losses", _note("Dashed: what a model that knows nothing has.")
         + _plots(losses, history, "No training metrics yet.")),
        ("Codebook", _plots(codebook, history, "No codebook metrics.")),
        ("Course of training", _plots(plots.setting_panels(), history, "No training metrics yet.")),
        ("Config", f"<details><summary>all fields</summary><pre>{_escape(to_json(run.config))}</pre></details>"),
    ]
    name = _escape(run.workdir.resolve().name)
    body = "".join(f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · cbalign</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{name}</h1>{_facts(run, history)}\n{body}</body></html>\n"
    )


def _escape(text) -> str:
    return html.escape(str(text))


def _note(text: str) -> str:
    return f'<p class="note">{_escape(text)}</p>'


def _facts(run, history: History) -> str:
    """The run at a glance."""
    config = run.config
    facts = [
        ("data", f"{config.data.name}, {config.data.train_split}; {config.data.image_size} px"),
        ("steps", f"{history.last_step:,} of {config.train.steps:,}, {config.train.batch_size:,} pairs each"),
        ("speed", _speed(history, config.train.batch_size)),
        ("parameters", _parameters(run)),
        ("started", "\n".join(history.started) or "no log"),
        ("command", history.command or f"cbalign train --config=FILE --workdir={run.workdir} (the config is below)"),
    ]
    cells = ((label, _escape(text).replace("\n", "<br>")) for label, text in facts)
    rows = "".join(f"<tr><td>{label}</td><td>{text}</td></tr>" for label, text in cells)
    return f'<table class="facts">{rows}</table>'


def _speed(history: History, batch_size: int) -> str:
    _, values = history.metrics.get("train/pairs_per_second", ((), np.array([])))
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return "not measured yet"
    pairs, span = float(np.median(values)), _duration(float(np.ptp(history.times)))
    return (f"{1000 * batch_size / pairs:,.1f} ms a step, {pairs:,.0f} pairs/s (median of {len(values)} log lines); "
            f"{span} from the first line to the last, evaluation and pauses included")


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _parameters(run) -> str:
    """The number of parameters in all and by module, from shapes alone."""
    shapes = jax.eval_shape(lambda: run.task.init_params(jax.random.key(0)))
    counts = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    largest = sorted(counts, key=counts.get, reverse=True)
    return f"{sum(counts.values()):,} (" + ", ".join(f"{name} {counts[name]:,}" for name in largest) + ")"


def _tables(history: History) -> str:
    if not history.results:
        return _note("No results yet: cbalign evaluate writes them.")
    return _note("Recall in %; TR: texts for an image, IR: images for a text. Best in bold.") + "".join(
        _table(result) for result in history.results)


def _table(result: dict) -> str:
    """One evaluation: a row for each way of ranking, the best figure of each column bold."""
    rows = [(label, recalls or {}) for label, recalls in recall_rows(result)]
    best = {column: max((recalls[column] for _, recalls in rows if recalls.get(column) is not None), default=None)
            for column in COLUMNS}
    head = "".join(f"<th>{column.upper()}</th>" for column in COLUMNS)
    lines = []
    for label, recalls in rows:
        cells = "".join(f"<td>{_figure(recalls.get(column), best[column])}</td>" for column in COLUMNS)
        lines.append(f"<tr><td>{label}</td>{cells}</tr>")
    title = f"{result['data']} {result['split']}: {result['images']:,} images, {result['texts']:,} texts"
    notes = "".join(_note(f"Note: {note}.") for note in result.get("notes") or ())
    return (f'<h3>{_escape(title)}</h3><div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>{notes}")


def _figure(value, best) -> str:
    if value is None:
        return "–"
    return f"<b>{value:.2f}</b>" if value == best else f"{value:.2f}"


def _plots(panels, history: History, otherwise: str) -> str:
    drawn = [panel for panel in panels if plots.has_data(panel, history.metrics)]
    if not drawn:
        return _note(otherwise)
    images = "".join(_image(plots.draw_panels([panel], history.metrics), panel.title) for panel in drawn)
    return f'<div class="plots">{images}</div>'


def _image(png: bytes, alt: str, kind: str = "") -> str:
    source = base64.b64encode(png).decode()
    return f'<img alt="{_escape(alt)}"{f" class={kind}" if kind else ""} src="data:image/png;base64,{source}">'


def _gallery(examples) -> str:
    def image(row, right=False):
        buffer = io.BytesIO()
        examples.images[row].save(buffer, "PNG")
        return _image(buffer.getvalue(), "right" if right else "", "right" if right else "")

    by_text = "".join(
        f'<div class="query"><p>{_escape(query.text)} <span class="note">rank {query.rank}</span></p>'
        '<div class="strip">' + "".join(map(image, query.images, query.right)) + "</div></div>"
        for query in examples.by_text)
    by_image = "".join(
        f'<div class="pair">{image(query.image)}<div><ol>'
        + "".join(f'<li{" class=right" if right else ""}>{_escape(text)}</li>'
                  for text, right in zip(query.texts, query.right))
        + f'</ol><span class="note">rank {query.rank}</span></div></div>'
        for query in examples.by_image)
    return (_note(galleries.note(examples)) + f'<div class="two"><div><h3>Text → best images</h3>{by_text}</div>'
            f"<div><h3>Image → best texts</h3>{by_image}</div></div>")
