"""Weights of a run of this project: exported, or to start another run from."""

import flax
import jax
import numpy as np
from etils import epath

from cbalign.runs.workdir import Run, open_run
from cbalign.config_checks import QUEUE_TASKS
from cbalign.errors import UserError
from cbalign.weights import export
from cbalign.weights import loading
from cbalign.weights import folder
from cbalign.training.checkpoints import named_checkpoint
from cbalign.training.momentum_queue import init_queue


def export_run(run: Run, out, *, form: str = "safetensors", checkpoint: str = "best") -> str:
    """Writes a run's weights to a new folder.

    Args:
      run: from `open_run`.
      out: the folder.
      form: "safetensors" (student and teacher, also for `config.init.weights`) or "albef".
      checkpoint: see `Run.params`.

    Returns:
      The path of what another program reads.
    """
    folder.check_new_folder(out)
    config, model = run.config, run.task.model
    if form == "albef":
        if config.task not in QUEUE_TASKS:
            raise UserError(f"{run.workdir} was trained for {config.task}, an ALBEF file is for "
                            f"{' and '.join(QUEUE_TASKS)}; use --format=safetensors")
        settings = {"queue_size": config.queue.size, "momentum": config.teacher.momentum,
                    "alpha": config.contrast.alpha, "temp": config.contrast.temperature,
                    "mlm_probability": config.mlm.probability}
        return export.export_albef(out, run_arrays(run, checkpoint=checkpoint, queue=True), model, config=settings)
    # The queues stay behind: their ids mean something for the run's own data alone.
    info = {
        "source": "cbalign", "checkpoint": f"{run.workdir}, {checkpoint}", "image_size": model.image_size,
        "source_image_size": model.image_size, "sizes": folder.sizes(model),
        "vocabulary": folder.vocabulary_info(run.tokenizer), "config": config.to_dict(),
    }
    folder.write_weights(out, run_arrays(run, checkpoint=checkpoint), info)
    (epath.Path(out) / "vocab.txt").write_text((run.workdir / "vocab.txt").read_text())
    return str(out)


def run_arrays(run: Run, *, checkpoint: str = "best", queue: bool = False) -> dict:
    """A run's weights {"params/...", "teacher/..." and, if asked for, "queue/...": numpy array}."""
    params = jax.eval_shape(run.task.init_params, jax.random.key(0))
    shapes = {"params": params, "teacher": run.task.teacher_params(params)}
    if queue:
        config = run.config
        shapes["queue"] = jax.eval_shape(
            lambda: init_queue(jax.random.key(0), size=config.queue.size, width=config.model.embed_dim))
    restored = run.restore(shapes, checkpoint=checkpoint)
    if queue:
        restored["queue"] = flax.serialization.to_state_dict(restored["queue"])
    flat = flax.traverse_util.flatten_dict(restored, sep="/")
    return {name: np.asarray(leaf.addressable_data(0)) for name, leaf in flat.items()}


def check_init(config) -> None:
    """Raises UserError where `config.init` names something that is not there, before any work is done."""
    if config.init.checkpoint:
        named_checkpoint(config.init.checkpoint)
    for path in config.init.weights:
        if not (epath.Path(path) / folder.INFO).exists() and not (epath.Path(path) / "config.json").exists():
            raise UserError(f"init.weights: {path} is neither a folder that `cbalign convert` or `export` wrote "
                            f"({folder.INFO}) nor that of a run (config.json)")


def init_weights(config, tokenizer):
    """What `training.loop.run` takes as `load_weights`: a fresh state -> the one that a run starts with."""

    def load(state):
        return loading.start_from(state, loading.combine([_weights(path) for path in config.init.weights],
                                                     tokenizer=tokenizer))

    return load


def _weights(path) -> folder.Weights:
    """A converted or exported folder, or the best checkpoint of a workdir."""
    if (epath.Path(path) / folder.INFO).exists():
        return folder.read_weights(path)
    run = open_run(path)
    return folder.Weights(str(path), run_arrays(run), {"vocabulary": folder.vocabulary_info(run.tokenizer)})
