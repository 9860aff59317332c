"""The results of evaluations in a run's folder: the one place that names their files, writes and reads them."""

from __future__ import annotations

import os
from typing import Any

from etils import epath

from cbalign.evaluation.result_table import is_result
from cbalign.storage import read_json, write_json
from cbalign.tasks import TASKS

FOLDER = "metrics"


def result_path(workdir: os.PathLike | str, *, task: str, data: str, split: str, protocol: str = "") -> epath.Path:
    """Where the result of an evaluation lies, `metrics/KIND_DATA_SPLIT[_PROTOCOL].json`.

    Args:
      workdir: folder of the run.
      task: of the run; pretraining and retrieval share the kind "retrieval".
      data: name of the data set, or its folder.
      split: of it.
      protocol: name of the published protocol followed, or "".
    """
    parts = [
        TASKS[task].result_kind,
        plain_name(data),
        plain_name(split),
        *([plain_name(protocol)] if protocol else []),
    ]
    return epath.Path(workdir) / FOLDER / f"{'_'.join(parts)}.json"


def plain_name(name: str) -> str:
    """A data set's, split's or protocol's name as part of a file name; of a folder its last part."""
    name = epath.Path(name).name if epath.Path(name).is_dir() else name
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def write_result(path: epath.Path, result: dict[str, Any]) -> None:
    """Writes a result in one piece."""
    write_json(path, result)


def read_result(
    workdir: os.PathLike | str, *, task: str, data: str, split: str, protocol: str = ""
) -> dict[str, Any] | None:
    """The result of an evaluation; None where it was not made, or its file is damaged."""
    return read_json(result_path(workdir, task=task, data=data, split=split, protocol=protocol))


def read_results(workdir: os.PathLike | str) -> list[dict[str, Any]]:
    """All results in a run's folder, sorted by file name; damaged files are passed over."""
    folder = epath.Path(workdir) / FOLDER
    if not folder.exists():
        return []
    files = sorted((path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    found = [read_json(path) for path in files]
    return [result for result in found if result and is_result(result)]
