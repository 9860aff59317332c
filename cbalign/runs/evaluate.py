"""Evaluating a run: the one way for all tasks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.models.positions import resize_positions
from cbalign.runs.results import result_path, write_result
from cbalign.runs.workdir import Run, task_class
from cbalign.tasks.base import text_limits


def evaluate_run(
    run: Run,
    split: str,
    *,
    data: str = "",
    checkpoint: str = "best",
    settings: Any = None,
    out: os.PathLike | str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Evaluates a run's task on a split, with chance and baselines, and writes the result to `metrics/`.

    Args:
      run: from `open_run`.
      split: of the data set.
      data: another data set than the run's, by name or folder.
      checkpoint: see `Run.params`.
      settings: a config to evaluate by: its data set, image size, text length, `eval` and `protocol` take the place of
        the run's own.
      out: folder in which `metrics/` is written; by default the workdir. Without it, the result of exported or
        released weights is not written.
      progress: called as progress(stage, done, total).

    Returns:
      The result as written (see `evaluation.result_table`), with "file", where it was written, or "".

    Raises:
      UserError: a checkpoint, split, data set or settings that cannot be used.
    """
    trained_run, trained, params = run, run.config, run.params(checkpoint=checkpoint)
    name = data or (settings or trained).data.name
    if settings is not None:
        run, params = with_settings(run, settings, params)
    config = run.config

    def training_split():  # read from where the run was trained, whatever the settings read
        own = trained_run.train_split
        return own if settings is None else run.encoded(own.records, training=True)

    evaluated = run.split(split, data=name)
    found = run.task.evaluate(params, evaluated, progress=progress)
    baselines, notes = {}, []
    if config.eval.baselines:
        try:
            baselines, notes = run.task.baselines(evaluated, training_split, own_data=name == trained.data.name)
        except UserError as error:  # who has only the weights need not have what they were trained on
            if not run.exported:
                raise
            notes = [f"no baselines, which learn from the training data: {error}"]
    result = {
        "task": trained.task,
        "data": name,
        "split": split,
        **found.result,
        "baselines": baselines,
        "notes": [*found.result.get("notes", ()), *notes, *protocol_notes(config, trained, data=name)],
        "weights": config.eval.weights,
        "image_size": config.data.image_size,
        "rerank_top_k": config.eval.rerank_top_k,
        "trained": {"task": trained.task, "data": trained.data.name, "image_size": trained.data.image_size},
        "protocol": config.protocol.to_dict() if config.protocol.name else None,
    }
    folder = out or ("" if run.exported else run.workdir)
    if not folder:
        return {**result, "file": ""}
    path = result_path(folder, task=trained.task, data=name, split=split, protocol=config.protocol.name)
    if jax.process_index() == 0:
        write_result(path, result)
        run.task.write_predictions(path, evaluated, found.predictions)
    return {**result, "file": str(path)}


def with_settings(run: Run, settings: Any, params: dict) -> tuple[Run, dict]:
    """The run with another config's way of evaluating: its image size, text length, `eval` and `protocol`.

    Returns:
      (the run, its parameters with position embeddings interpolated to the image size as ALBEF does).

    Raises:
      UserError: settings of another kind of task, longer texts than the model has positions for, or an image size that
        is no multiple of the patches'.
    """
    wanted, own = task_class(settings), type(run.task)
    if wanted.record_kind != own.record_kind:
        raise UserError(f"{run.workdir} is a run of the task {own.name}; --config is one of the task {wanted.name}")
    config = merged_settings(run.config, settings)
    size, patch = config.data.image_size, config.model.patch_size
    tokens, _ = text_limits(config)
    if tokens > config.model.max_positions:
        raise UserError(
            f"{'eval' if config.eval.max_tokens else 'data'}.max_tokens={tokens} is more than the run's "
            f"model.max_positions={config.model.max_positions}; use at most that"
        )
    if size % patch:
        raise UserError(
            f"data.image_size={size} is not a multiple of the run's model.patch_size={patch}; use "
            f"{max(1, round(size / patch)) * patch}"
        )
    if size != run.config.data.image_size:
        encoder = params["image_encoder"]
        table = np.asarray(encoder["position_embedding"].addressable_data(0))
        table = jax.numpy.asarray(resize_positions(table, size // patch), jax.numpy.float32)
        params = {**params, "image_encoder": {**encoder, "position_embedding": table}}
    task = own(config.lock(), tokens=run.task.tokens)
    task.share_assets(run.task)
    return dataclasses.replace(run, config=config, task=task), params


def merged_settings(trained: Any, settings: Any) -> Any:
    """A run's config with another one's image size, text length, `eval` and `protocol`, unlocked."""
    config = type(trained)(trained.to_dict(), convert_dict=True).unlock()
    for name in ("image_size", "max_tokens", "max_words", "plain_rgb", "dir"):
        config.data[name] = settings.data[name]
    for section in ("eval", "protocol"):
        config[section] = settings[section].copy_and_resolve_references()
    return config


def protocol_notes(config: Any, trained: Any, *, data: str) -> list[str]:
    """Deviations of an evaluation from the protocol it names, a sentence each; none without a protocol.

    Args:
      config: by which it is evaluated.
      trained: config of the run whose weights are evaluated.
      data: the data set that is evaluated.
    """
    wanted, notes = config.protocol, []
    if not wanted.name:
        return notes
    if (wanted.task, wanted.trained_on) != (trained.task, wanted.trained_on and trained.data.name):
        on = f" on {wanted.trained_on}" if wanted.trained_on else ""
        notes.append(
            f"{wanted.name} uses the weights of a {wanted.task} run{on}; these are from a {trained.task} run on "
            f"{trained.data.name}"
        )
    if wanted.data != data:
        notes.append(f"{wanted.name} is defined on {wanted.data}; this is {data}")
    if wanted.image_size != config.data.image_size:
        notes.append(f"{wanted.name} uses images of {wanted.image_size} px; these have {config.data.image_size}")
    return notes
