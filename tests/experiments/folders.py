"""Makes the folders of runs that never ran."""

import json


def make_run(workdir, *, steps=100, step=None, status="finished", data="scenes", message="", commit="0123456789abcdef",
             modified=False, ended=True):
    """A workdir as `cbalign train` leaves it, without checkpoints."""
    step = steps if step is None else step
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps({"data": {"name": data}, "train": {"steps": steps}}))
    (workdir / "metrics.jsonl").write_text("".join(
        json.dumps({"step": s, "time": float(s), "train/loss": 1.0}) + "\n" for s in range(10, step + 1, 10)))
    (workdir / "train.log").write_text("2026-11-24 10:00:00 start: from scratch\n")
    start = {"time": "2026-11-24T10:00:00+00:00", "command": f"cbalign train --workdir={workdir.name}", "version": "0.1.0",
             "commit": commit, "modified": modified, "devices": "1 cpu", "processes": 1}
    end = {"time": "2026-11-24T11:00:00+00:00", "status": status, "step": step, "message": message} if ended else None
    (workdir / "run.json").write_text(json.dumps({"starts": [start], "end": end}))
    return workdir


def add_result(workdir, name, base, *, chance=1.0):
    """A retrieval result whose figures are `base` and up by one a column; ITM finds 10 more."""
    columns = [f"{direction}@{k}" for direction in ("tr", "ir") for k in (1, 5, 10)]
    figures = {column: base + i for i, column in enumerate(columns)}
    (workdir / "metrics").mkdir(exist_ok=True)
    (workdir / "metrics" / f"retrieval_{name}.json").write_text(json.dumps({
        "data": "d", "split": "s", "images": 9, "texts": 9, "chance": dict.fromkeys(columns, chance),
        "contrastive": figures, "itm": {column: value + 10 for column, value in figures.items()}, "sum": None}))


def add_measurement(workdir):
    """A stability.json."""
    measures = {"changed": [0.5, 0.3], "moved": [0.2, 0.1], "decorrelated": [0.4, 0.2]}
    (workdir / "metrics").mkdir(exist_ok=True)
    (workdir / "metrics" / "stability.json").write_text(json.dumps({
        "pairs": 4, "steps": [1, 2, 3], "codes": measures, "instances": measures,
        "loss": {"deviation": 0.5, "relative": 0.1}, "gradient_norm": {"deviation": 0.5, "relative": 0.25}}))
