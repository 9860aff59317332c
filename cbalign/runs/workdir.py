"""A run and its folder: where config, vocabulary, data, task and checkpoints come together.

The workdir is self-contained: `config.json` and `vocab.txt` say what was trained, `checkpoints/` holds the state,
`metrics/` the results of evaluations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
from etils import epath, epy

from cbalign.runs import provenance
from cbalign.runs import ranking
from cbalign.config import check_config, field_names, from_json, resolve_epochs, to_json
from cbalign.data import text
from cbalign.errors import UserError
from cbalign.runs.ranking import GallerySet, all_images, bind, file_name, model_functions, retrieve  # noqa: F401
from cbalign.tasks import TASKS
from cbalign.distributed import devices
from cbalign.training.checkpoints import Checkpoints

# Modules only: they bring tensorflow and TensorBoard along, seconds that only those who read records or train should wait for.
with epy.lazy_imports():
    from cbalign.data import pipeline
    from cbalign.runs import run_weights
    from cbalign.training import loop
    from cbalign.runs import task_runs

# Fields that may change from one start of a run to the next: they do not touch what is learned.
_FREE_FIELDS = (
    "data.dir", "data.threads", "data.max_bad_share", "train.log_steps", "train.checkpoint_steps", "train.keep",
    "train.eval_steps",
)


@dataclasses.dataclass
class Run:
    """An opened workdir.

    Attributes:
      workdir: the folder.
      config: as stored there.
      tokenizer: of its vocabulary.
      task: the task with its model.
    """

    workdir: epath.Path
    config: Any
    tokenizer: Any
    task: Any

    def records(self, split: str, *, data: str = "") -> pipeline.Records:
        """A split of the run's data set, or of another one, encoded with the run's vocabulary."""
        opened = pipeline.open_split(data or self.config.data.name, split, self.config.data.dir or None, missing="skip")
        return opened.encode(self.tokenizer, max_length=self.config.data.max_tokens)

    @functools.cached_property
    def train_records(self) -> pipeline.Records:
        """The training split."""
        return self.records(self.config.data.train_split)

    def params(self, *, checkpoint: str = "best"):
        """The parameters to evaluate with, on the devices.

        Args:
          checkpoint: "best" (the newest where none was told best), "latest", or a step.

        Returns:
          The student's tree; where `eval.weights` is "teacher", with the teacher's part in its place.
        """
        shapes = {"params": jax.eval_shape(self.task.init_params, jax.random.key(0))}
        if self.config.eval.weights == "teacher":
            shapes["teacher"] = self.task.teacher_params(shapes["params"])
        state = self.restore(shapes, checkpoint=checkpoint)
        return {**state["params"], **state.get("teacher", {})}

    def restore(self, shapes: dict, *, checkpoint: str = "best") -> dict:
        """Fields of the training state, {field: its tree}; `shapes` says which, `checkpoint` is as for `params`."""
        with Checkpoints(self.workdir / "checkpoints", keep=self.config.train.keep) as checkpoints:
            best = checkpoints.best_step() if checkpoint == "best" else None
            step = int(checkpoint) if checkpoint.isdigit() else best
            return checkpoints.restore_fields(shapes, step=step)


def evaluated_params(state, config):
    """The parameters of a state that `config.eval.weights` names; the teacher lacks head and temperature."""
    return {**state.params, **state.teacher} if config.eval.weights == "teacher" else state.params


def open_run(workdir) -> Run:
    """Opens a workdir that `cbalign train` wrote.

    Raises:
      UserError: there is none.
    """
    workdir = epath.Path(workdir)
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} is not the folder of a run (no config.json); make one with `cbalign train`")
    return _assemble(workdir, from_json((workdir / "config.json").read_text()))


def _assemble(workdir, config) -> Run:
    tokenizer = text.load_tokenizer(workdir / "vocab.txt")
    return Run(workdir, config, tokenizer, TASKS[config.task](config, tokens=text.special_ids(tokenizer)))


def start_run(config, workdir) -> tuple[Run, int]:
    """Makes the workdir of a config, or opens the one that has it.

    Args:
      config: checked; durations in epochs are turned into steps.
      workdir: a new folder, or one of the same config.

    Returns:
      (the run, steps per epoch).

    Raises:
      UserError: the folder holds another config, or something else; the data set or the vocabulary is missing.
    """
    workdir = epath.Path(workdir)
    check_workdir(workdir)
    run_weights.check_init(config)
    # Process 0 builds the data set where it is missing; a bucket knows no locks.
    with devices.first_then_others("data"):
        split = pipeline.open_split(config.data.name, config.data.train_split, config.data.dir or None)
    steps_per_epoch = pipeline.steps_per_epoch(split.epoch_size, config.train.batch_size)
    config = resolve_epochs(config, steps_per_epoch=steps_per_epoch)
    check_config(config)
    if (workdir / "config.json").exists():
        check_same(from_json((workdir / "config.json").read_text()), config, workdir)
    loop.check_devices(config)
    devices.barrier("checked")  # before anything is written that the others would find
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        _write_vocabulary(config, split.captions, workdir / "vocab.txt")
        (workdir / "config.json").write_text(to_json(config))
    devices.barrier("workdir")
    run = _assemble(workdir, config)
    run.train_records = split.encode(run.tokenizer, max_length=config.data.max_tokens)
    return run, steps_per_epoch


def check_workdir(workdir) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; name a folder")
    if workdir.exists() and any(workdir.iterdir()) and not (workdir / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds other things and is not the folder of a run; name a new folder")


def check_same(stored, config, workdir) -> None:
    """Raises UserError where the config would change what a run in progress learns."""
    differences = []
    for name in field_names(config):
        if name in _FREE_FIELDS or name.startswith(("eval.", "protocol.")):
            continue
        old, new = (functools.reduce(lambda section, part: section[part], name.split("."), c) for c in (stored, config))
        if old != new:
            differences.append(f"{name} {old!r} -> {new!r}")
    if differences:
        raise UserError(f"{workdir} holds a run with another config ({'; '.join(differences)}); name a new --workdir, "
                        "or remove that folder")


def _write_vocabulary(config, captions, path) -> None:
    """Puts the vocabulary beside the run: a trained one, or a copy of the named one."""
    if path.exists():
        return
    if config.data.vocabulary:
        tokenizer = text.load_tokenizer(config.data.vocabulary)
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        path.write_text("".join(f"{word}\n" for word, _ in words))
    else:
        cleaned = (text.clean_caption(caption) for group in captions for caption in group)
        text.train_vocabulary(cleaned, path, size=config.data.vocabulary_size)


def train(config, workdir, *, command: str = "") -> loop.Outcome:
    """Trains, or goes on with, the run of a config in a workdir.

    Args:
      config: checked.
      workdir: as for `start_run`.
      command: what the user typed, for run.json.
    """
    if hasattr(TASKS[config.task], "records"):
        return task_runs.train(config, workdir, command=command)
    run, steps_per_epoch = start_run(config, workdir)
    config, data = run.config, run.config.data
    sets = {split: GallerySet.of(run, split) for split in config.eval.splits}
    functions = model_functions(run.task.model)

    def batches(step):
        return pipeline.train_batches(
            run.train_records, seed=config.seed, start_step=step, global_batch=config.train.batch_size,
            process_index=jax.process_index(), process_count=jax.process_count(), image_size=data.image_size,
            scale=data.crop_scale, flip=data.flip, rand_augment=data.rand_augment, color=data.color,
            second_view=data.second_view, threads=data.threads or None, max_bad_share=data.max_bad_share,
        )

    def evaluate(state, step):
        params = evaluated_params(state, config)
        score = config.eval.best_score
        return {split: {**retrieve(functions, params, gallery, config, reranking=score != "contrastive"),
                        "headline": score} for split, gallery in sets.items()}

    with recorded(run.workdir, command) as end:
        outcome = loop.run(run.task, config, workdir=run.workdir, batches=batches, steps_per_epoch=steps_per_epoch,
                           evaluate=evaluate if sets else None, load_weights=run_weights.init_weights(config, run.tokenizer))
        end.update(step=outcome.step, interrupted_by=outcome.interrupted_by)
    return outcome


def recorded(workdir, command):
    """Notes in run.json how the run was made and how it ended; one process does."""
    if jax.process_index():
        return contextlib.nullcontext({})
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return provenance.recorded(workdir, command=command, devices=devices, processes=jax.process_count())


def evaluate(
    run: Run, split: str, *, data: str = "", checkpoint: str = "best", settings=None, progress=None
) -> dict:
    """Evaluates the run's task on a split and writes the result to `metrics/` in the workdir.

    Args:
      run: from `open_run`.
      split: of the data set.
      data: another data set than the run's, by name or folder.
      checkpoint: see `Run.params`.
      settings: a config to evaluate by in place of the run's own, see `ranking.evaluate`; for retrieval alone.
      progress: called as progress(stage, done, total).

    Returns:
      The result that `format_table` takes, with "file", where it was written.
    """
    if hasattr(run.task, "records"):
        if settings is not None:
            raise UserError(f"{run.workdir} is a run of the task {run.config.task}; --config is for retrieval")
        return task_runs.evaluate(run, split, data=data, checkpoint=checkpoint, progress=progress)
    return ranking.evaluate(run, split, data=data, checkpoint=checkpoint, settings=settings, progress=progress)
