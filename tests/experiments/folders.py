"""Makes the folders of runs that never ran; results are written by the package's own writer."""

import json

from cbalign.config import base_config, load_config, to_json
from cbalign.experiments.run_status import stability_path
from cbalign.runs.results import result_path, write_result
from cbalign.storage import read_json, write_json

COLUMNS = [f"{direction}@{k}" for direction in ("tr", "ir") for k in (1, 5, 10)]


def make_run(
    workdir,
    *,
    config=None,
    steps=100,
    step=None,
    status="finished",
    data="",
    message="",
    commit="0123456789abcdef",
    modified=False,
    ended=True,
    overrides=(),
):
    """A workdir as `cbalign train` leaves it, without checkpoints.

    Args:
      workdir: to be created.
      config: name of the run's config; `base_config()` by default.
      data: name of its data set, the config's by default.
      steps, step: the run's length and where it stopped.
      status, message, ended: how it ended, as in run.json.
      commit, modified: of its start, as in run.json.
      overrides: fields of its config, "a.b=value" each.
    """
    c = load_config(config, overrides).unlock() if config else base_config().unlock()
    c.train.steps, c.train.epochs, c.data.name = steps, 0, data or c.data.name
    step = steps if step is None else step
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(to_json(c))
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "time": float(s), "train/loss": 1.0}) + "\n" for s in range(10, step + 1, 10))
    )
    (workdir / "train.log").write_text("2026-11-24 10:00:00 start: from scratch\n")
    start = {
        "time": "2026-11-24T10:00:00+00:00",
        "command": f"cbalign train --workdir={workdir.name}",
        "version": "0.1.0",
        "commit": commit,
        "modified": modified,
        "devices": "1 cpu",
        "processes": 1,
    }
    end = {"time": "2026-11-24T11:00:00+00:00", "status": status, "step": step, "message": message} if ended else None
    write_json(workdir / "run.json", {"starts": [start], "end": end})
    return workdir


def add_result(workdir, split, figures, *, settings=""):
    """Writes a result where `cbalign evaluate --split` of the run, or with --config=settings, writes it.

    Args:
      workdir: from `make_run`.
      split: of the data set.
      figures: the result's content.
      settings: name of the config it is evaluated by.

    Returns:
      The file.
    """
    run = read_json(workdir / "config.json")
    by = load_config(settings).to_dict() if settings else run
    file = result_path(workdir, task=run["task"], data=by["data"]["name"], split=split, protocol=by["protocol"]["name"])
    write_result(file, {"data": by["data"]["name"], "split": split, **figures})
    return file


def recalls(base, *, chance=1.0):
    """A retrieval result whose figures are `base` and up by one a column; ITM finds 10 more."""
    figures = {column: base + i for i, column in enumerate(COLUMNS)}
    itm = {column: value + 10 for column, value in figures.items()}
    return {
        "images": 9,
        "texts": 9,
        "chance": dict.fromkeys(COLUMNS, chance),
        "contrastive": figures,
        "itm": itm,
        "sum": None,
    }


def add_measurement(workdir):
    """A stability.json."""
    measures = {"changed": [0.5, 0.3], "moved": [0.2, 0.1], "decorrelated": [0.4, 0.2]}
    write_json(
        stability_path(workdir),
        {
            "pairs": 4,
            "steps": [1, 2, 3],
            "codes": measures,
            "instances": measures,
            "loss": {"deviation": 0.5, "relative": 0.1},
            "gradient_norm": {"deviation": 0.5, "relative": 0.25},
        },
    )
