"""Where a trained model comes from: a run's folder, exported weights, or weights released with this package."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import pathlib
from typing import Any

import flax
import jax
import numpy as np
from etils import epath

from cbalign.config import from_json
from cbalign.data import text
from cbalign.errors import UserError
from cbalign.runs.workdir import CONFIG, VOCABULARY, Run, open_run, task_class
from cbalign.tasks import Task
from cbalign.weights import weights_folder

SEARCH = "search"
"""Folder of a workdir that keeps the features of searched folders."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A model ready for use.

    Attributes:
      name: what the user named, for messages.
      task: the task it was trained for, with its model and config.
      tokenizer: of its vocabulary.
      params: tree of parameters to evaluate with.
      cache: folder for the features of searched folders; None for one among the user's cache files.
    """

    name: str
    task: Task
    tokenizer: Any
    params: dict
    cache: epath.Path | None = None


def open_source(source: Source | Run | os.PathLike | str, *, checkpoint: str = "best") -> Source:
    """Opens a trained model.

    Args:
      source: an opened run, the workdir of one, a folder that `cbalign export` wrote, or the name of released weights;
        a folder of that name comes first. A `Source` is returned as it is.
      checkpoint: of a run, see `Run.params`.

    Raises:
      UserError: there is nothing of that name, it is damaged, or it is no complete model.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Run):
        return _of_run(source, checkpoint)
    folder = epath.Path(source)
    if (folder / CONFIG).exists():
        return _of_run(open_run(folder), checkpoint)
    if not (folder / weights_folder.INFO).exists():
        known = released()
        if os.fspath(source) not in known:
            raise UserError(
                f"{os.fspath(source)} is not the folder of a run (no {CONFIG}), nor one that `cbalign export` wrote "
                f"(no {weights_folder.INFO}), nor the name of released weights "
                f"({', '.join(sorted(known)) or 'this version comes with none'}); make one with `cbalign train`"
            )
        folder = epath.Path(known[os.fspath(source)])
    if checkpoint != "best":
        raise UserError(
            f"{os.fspath(source)} holds one set of weights; only the folder of a run has checkpoints, "
            f"leave out checkpoint={checkpoint}"
        )
    return _of_folder(folder, os.fspath(source))


def released() -> dict[str, pathlib.Path]:
    """{name: folder} of the weights that come with the package."""
    root = pathlib.Path(str(importlib.resources.files("cbalign"))) / "released"
    if not root.is_dir():
        return {}
    return {entry.name: entry for entry in sorted(root.iterdir()) if (entry / weights_folder.INFO).is_file()}


def _of_run(run: Run, checkpoint: str) -> Source:
    return Source(
        os.fspath(run.workdir), run.task, run.tokenizer, run.params(checkpoint=checkpoint), run.workdir / SEARCH
    )


def _of_folder(folder: epath.Path, name: str) -> Source:
    """The model of a folder that `cbalign export` wrote."""
    info = weights_folder.read_info(folder)
    if not info.get("config"):
        raise UserError(
            f"{name} holds converted weights that a run starts from, not a trained model; train with "
            f"--config.init.weights={name} and load the run"
        )
    config = from_json(json.dumps(info["config"]))
    needed = [VOCABULARY, *task_class(config).asset_files]
    missing = [file for file in needed if not (folder / file).exists()]
    if missing:
        raise UserError(f"{name} lacks {' and '.join(missing)}, which `cbalign export` writes; export again")
    tokenizer = text.load_tokenizer(folder / VOCABULARY)
    task = task_class(config)(config, tokens=text.special_ids(tokenizer))
    if task.asset_files:
        task.use_assets({file: json.loads((folder / file).read_text()) for file in task.asset_files}, tokenizer)
    return Source(name, task, tokenizer, _params(task, weights_folder.read_weights(folder).arrays, name))


def _params(task: Task, arrays: dict[str, np.ndarray], name: str) -> dict:
    """The tree to evaluate with: the student's, with the teacher's part in its place where `eval.weights` says so."""
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    sections = ("params", "teacher") if task.config.eval.weights == "teacher" else ("params",)
    found = {}
    for section in sections:
        own = {key.removeprefix(f"{section}/"): x for key, x in arrays.items() if key.startswith(f"{section}/")}
        found |= own
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep="/")
    wanted = {key: leaf.shape for key, leaf in leaves.items()}
    wrong = [
        key
        for key in wanted.keys() | found.keys()
        if key not in wanted or key not in found or np.shape(found[key]) != wanted[key]
    ]
    if wrong:
        raise UserError(
            f"{name} does not hold the parameters of its config: {len(wrong)} are missing, unknown or of "
            f"another shape, such as {min(wrong)}; export again"
        )
    return flax.traverse_util.unflatten_dict(found, sep="/")
