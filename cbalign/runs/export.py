"""A run's weights written for other programs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cbalign.errors import UserError
from cbalign.evaluation.result_table import format_result
from cbalign.runs.results import read_results
from cbalign.runs.workdir import Run, run_arrays
from cbalign.weights import export, weights_folder
from cbalign.weights.hub_folder import hub_files


def export_run(
    run: Run,
    out: os.PathLike | str,
    *,
    form: str = "safetensors",
    checkpoint: str = "best",
    dtype: str = "float32",
    teacher: bool = True,
) -> str:
    """Writes a run's weights to a new folder.

    Args:
      run: from `open_run`.
      out: the folder.
      form: "safetensors" (student and teacher, for `cbalign.load` and `config.init.weights`), "hub" (the student as
        `cbalign.load` and `transformers.AutoModel` open it, with a card) or "albef".
      checkpoint: see `Run.params`.
      dtype: of the stored arrays, "float32" or "float16" (half the size); computation is in the config's either way.
      teacher: store the momentum teacher too, which a run that starts from the weights takes over.

    Returns:
      The path of what another program reads.

    Raises:
      UserError: the folder exists, or ALBEF's code has no model of this kind.
    """
    weights_folder.check_new_folder(out)
    config, model = run.config, run.task.model
    if form != "safetensors" and not run.task.uses_queue:
        raise UserError(
            f"{run.workdir} was trained for {config.task}; --format={form} holds a model of pretraining or retrieval. "
            "Use --format=safetensors"
        )
    if form == "albef" and config.codebook.embed:
        raise UserError(
            f"{run.workdir} compares mixtures of codes (codebook.embed=True), which ALBEF's code has no place for. "
            "Use --format=hub or --format=safetensors"
        )
    if form == "albef" and run.exported:
        raise UserError(
            f"{run.name} has no momentum queues, which an ALBEF file holds; export from the folder of the run"
        )
    if not teacher and config.eval.weights == "teacher":
        raise UserError("eval.weights=teacher: the teacher is what is evaluated; leave out --no-teacher")
    if form == "albef":
        settings = {
            "queue_size": config.queue.size,
            "momentum": config.teacher.momentum,
            "alpha": config.contrast.alpha,
            "temp": config.contrast.temperature,
            "mlm_probability": config.mlm.probability,
        }
        return export.export_albef(out, run_arrays(run, checkpoint=checkpoint, queue=True), model, settings=settings)
    # The queues stay behind: their ids mean something for the run's own data alone.
    info = {
        "source": "cbalign",
        "checkpoint": f"{run.workdir.name}, {checkpoint}",
        "image_size": model.sizes.image_size,
        "source_image_size": model.sizes.image_size,
        "sizes": weights_folder.model_sizes(model),
        "vocabulary": weights_folder.vocabulary_info(run.tokenizer),
        "config": _without_folders(config),
    }
    arrays = run_arrays(run, checkpoint=checkpoint)
    if form == "hub" and config.eval.weights == "teacher":
        arrays |= {f"params/{name[8:]}": array for name, array in arrays.items() if name.startswith("teacher/")}
    if not teacher:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("teacher/")}
    arrays = {name: array.astype(dtype) if array.dtype == np.float32 else array for name, array in arrays.items()}
    files = {name: (run.workdir / name).read_text() for name in run.task.asset_files}
    words = weights_folder.vocabulary_tokens(run.tokenizer)
    if form == "hub":
        figures = [format_result(result) for result in read_results(run.workdir)]
        files |= hub_files(info, run.tokenizer, title=run.workdir.name, figures=figures)
    weights_folder.write_weights(out, arrays, info, words=words, files=files, one_file=form == "hub")
    return str(out)


def _without_folders(config: Any) -> dict[str, Any]:
    """The config as it travels: without the folders of the machine that trained it."""
    fields = config.to_dict()
    name = os.path.basename(os.path.normpath(config.data.name)) if os.path.isabs(config.data.name) else config.data.name
    fields["data"] |= {"dir": "", "name": name}
    fields["init"] = {"checkpoint": "", "weights": ()}
    return fields
