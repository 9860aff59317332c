"""A run's folder: what it holds, creating it and opening it.

The workdir is self-contained: `config.json`, `data.json` and `vocab.txt` say what is trained, `checkpoints/` the state,
`best.json` says which is the best, `metrics/` holds the results of evaluations, `run.json` how each start was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from typing import TYPE_CHECKING, Any

import flax
import jax
import numpy as np
from etils import epath

from cbalign.config import check_config, field_names, resolve_epochs, stored_config, to_json
from cbalign.data import text
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs import provenance
from cbalign.runs.data_identity import DATA, check_identity, identify_data, store_identity
from cbalign.runs.exported import exported_config, exported_fields
from cbalign.storage import write_atomically, write_json
from cbalign.tasks import TASKS, Split, Task
from cbalign.weights import weights_folder
from cbalign.weights.released import known_names, locate

if TYPE_CHECKING:
    from cbalign.data.records import Records

CONFIG, VOCABULARY, CHECKPOINTS = "config.json", "vocab.txt", "checkpoints"

# Fields that may change from one start of a run to the next: they do not touch what is learned.
_FREE_FIELDS = (
    "data.dir",
    "data.threads",
    "data.max_bad_share",
    "train.log_steps",
    "train.checkpoint_steps",
    "train.keep",
    "train.eval_steps",
)
_FREE_SECTIONS = ("eval.", "protocol.")


@dataclasses.dataclass
class Run:
    """An opened workdir.

    Attributes:
      workdir: the folder.
      config: as stored there.
      tokenizer: of its vocabulary.
      task: the task with its model.
      name: what the user named, for messages.
      exported: whether the folder holds exported or released weights, where nothing is written.
    """

    workdir: epath.Path
    config: Any
    tokenizer: Any
    task: Task
    name: str = ""
    exported: bool = False
    _data_checked: bool = False

    def records(self, split: str, *, data: str = "") -> Records:
        """The records of a split of the run's data set, or of another one of the same kind."""
        from cbalign.data.records import open_records

        own = self.config.data
        if (data or own.name) == own.name:
            self._check_data()
        return open_records(
            self.task.record_kind,
            data or own.name,
            split,
            own.dir or None,
            missing="skip",
            plain_rgb=own.plain_rgb,
            epoch_over=own.epoch_over,
        )

    def _check_data(self) -> None:
        """Raises UserError where the run's data is no longer what it was trained on."""
        if not self._data_checked and not self.exported:
            check_identity(self.workdir, identify_data(self.config))
            self._data_checked = True

    def split(self, split: str, *, data: str = "", training: bool = False) -> Split:
        """The same with its token columns in the run's vocabulary, cut as for evaluation, or else as for training."""
        return self.encoded(self.records(split, data=data), training=training)

    def encoded(self, records: Records, *, training: bool = False) -> Split:
        """Records with their token columns."""
        return Split(records, self.task.encode(records, self.tokenizer, training=training))

    @functools.cached_property
    def train_split(self) -> Split:
        """The training split."""
        return self.split(self.config.data.train_split, training=True)

    def params(self, *, checkpoint: str = "best") -> dict:
        """The parameters to evaluate with, on the devices.

        Args:
          checkpoint: "best" (the newest where no metric chose one), "latest", or a step.

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
        if self.exported:
            return exported_fields(self.workdir, self.name, shapes, checkpoint)
        # Imported late: Orbax takes longer to load than exported weights.
        from cbalign.training.checkpoints import Checkpoints

        with Checkpoints(self.workdir / CHECKPOINTS, read_only=True) as checkpoints:
            best = checkpoints.best_step() if checkpoint == "best" else None
            step = int(checkpoint) if checkpoint.isdigit() else best
            return checkpoints.restore_fields(shapes, step=step)


def evaluated_params(state: Any, config: Any) -> dict:
    """The parameters of a state that `config.eval.weights` names; the teacher lacks head and temperature."""
    return {**state.params, **state.teacher} if config.eval.weights == "teacher" else state.params


def open_run(source: os.PathLike | str) -> Run:
    """Opens a trained model; needs no tensorflow.

    Args:
      source: a workdir that `cbalign train` wrote, a folder that `cbalign export` wrote, or the name of released
        weights; a folder of that name comes first.

    Raises:
      UserError: there is none, or it is damaged.
    """
    name, folder = os.fspath(source), locate(source)
    # A folder for a hub has a config.json of its own, so weights.json decides.
    exported = (folder / weights_folder.INFO).exists()
    if not exported and not (folder / CONFIG).exists():
        raise UserError(
            f"{name} is not the folder of a run (no {CONFIG}), nor one that `cbalign export` wrote (no "
            f"{weights_folder.INFO}), nor the name of released weights ({known_names()}); make one with `cbalign train`"
        )
    config = exported_config(folder, name) if exported else stored_config(folder)
    missing = [file for file in (VOCABULARY, *task_class(config).asset_files) if not (folder / file).exists()]
    if missing:
        remedy = "which `cbalign export` writes; export again" if exported else "so that it is damaged; train again"
        raise UserError(f"{name} lacks {' and '.join(missing)}, {remedy}")
    tokenizer = text.load_tokenizer(folder / VOCABULARY)
    task = task_class(config)(config, tokens=text.special_ids(tokenizer))
    if task.asset_files:
        task.use_assets({file: json.loads((folder / file).read_text()) for file in task.asset_files}, tokenizer)
    return Run(folder, config, tokenizer, task, name, exported)


def task_class(config: Any) -> type[Task]:
    """The task a config names.

    Raises:
      UserError: there is no such task.
    """
    if config.task not in TASKS:
        raise UserError(f"config field task is {config.task!r}; it must be one of {', '.join(TASKS)}")
    return TASKS[config.task]


def prepare_workdir(config: Any, workdir: os.PathLike | str, *, write_vocabulary) -> tuple[Run, int]:
    """Creates the workdir of a config, or opens the one that has it.

    Args:
      config: checked; durations in epochs are turned into steps.
      workdir: a new folder, or one of the same config.
      write_vocabulary: (config, records, path) -> None, called once for a new run.

    Returns:
      (the run, steps per epoch).

    Raises:
      UserError: the folder holds another config, or something else; the data set or the vocabulary is missing.
    """
    from cbalign.data.pipeline import steps_per_epoch

    workdir, task = epath.Path(workdir), task_class(config)
    check_workdir(workdir)
    # Process 0 builds the data set where it is missing; a bucket knows no locks.
    with devices.first_then_others("data"):
        records = training_records(config)
    per_epoch = steps_per_epoch(records.epoch_size, config.train.batch_size)
    config = _with_absolute_data(resolve_epochs(config, steps_per_epoch=per_epoch))
    check_config(config)
    task.check(config, devices=jax.device_count())
    identity = identify_data(config)
    if (workdir / CONFIG).exists():
        check_same(_with_absolute_data(stored_config(workdir)), config, workdir)
        check_identity(workdir, identity)
    devices.barrier("checked")  # before anything is written that the others would find
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        if not (workdir / VOCABULARY).exists():
            write_vocabulary(config, records, workdir / VOCABULARY)
        if task.asset_files and not all((workdir / name).exists() for name in task.asset_files):
            tokenizer = text.load_tokenizer(workdir / VOCABULARY)
            assets = task(config, tokens=text.special_ids(tokenizer)).assets(records)
            for name, content in assets.items():
                write_json(workdir / name, content, indent=0)
        # Of a first start that failed half-way nothing counts, so that the corrected command may use the folder.
        if not ((workdir / DATA).exists() and (workdir / CONFIG).exists()):
            store_identity(workdir, identity)
        write_atomically(workdir / CONFIG, to_json(config))
    devices.barrier("workdir")
    run = open_run(workdir)
    run._data_checked = True
    run.train_split = run.encoded(records, training=True)
    return run, per_epoch


def training_records(config: Any) -> Records:
    """The records a config trains on; the data set is built where it can be and is not.

    Raises:
      UserError: the data set or the split does not exist.
    """
    from cbalign.data.records import open_records

    data = config.data
    return open_records(
        task_class(config).record_kind,
        data.name,
        data.train_split,
        data.dir or None,
        plain_rgb=data.plain_rgb,
        epoch_over=data.epoch_over,
    )


def _with_absolute_data(config: Any) -> Any:
    """The config with folders of data named by their absolute paths, so that any folder can resume the run."""
    config = type(config)(config.to_dict(), convert_dict=True).unlock()
    name = config.data.name
    terms = [name] if os.path.isdir(name) else name.split("+")
    config.data.name = "+".join(map(_absolute, terms))
    if config.data.dir and "://" not in config.data.dir:
        config.data.dir = os.path.abspath(config.data.dir)
    return config.lock()


def _absolute(term: str) -> str:
    """A source of a mixture, perhaps with its weight, by its absolute path where it is a folder."""
    source, star, weight = (term, "", "") if os.path.isdir(term) else term.partition("*")
    return os.path.abspath(source.strip()) + star + weight if os.path.isdir(source.strip()) else term


def check_workdir(workdir: epath.Path) -> None:
    """Raises UserError where a folder to train in holds something that is no run."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; name a folder")
    if workdir.exists() and any(workdir.iterdir()) and not (workdir / CONFIG).exists():
        raise UserError(f"--workdir={workdir} holds other things and is not the folder of a run; name a new folder")


def check_same(stored: Any, config: Any, workdir: epath.Path) -> None:
    """Raises UserError where the config would change what a run in progress learns."""
    differences = []
    for name in field_names(config):
        if name in _FREE_FIELDS or name.startswith(_FREE_SECTIONS):
            continue
        old, new = (functools.reduce(lambda section, part: section[part], name.split("."), c) for c in (stored, config))
        if old != new:
            differences.append(f"{name} {old!r} -> {new!r}")
    if differences:
        longer = ""
        if config.train.steps > stored.train.steps:
            longer = (
                f". To train it for longer, name a new --workdir with --config.init.checkpoint={workdir}: its steps "
                "count, and the learning rate goes on at that step of the longer schedule, higher than it ended"
            )
        raise UserError(
            f"{workdir} holds a run with another config ({'; '.join(differences)}); name a new --workdir, or "
            f"remove that folder{longer}"
        )


def recorded(workdir: epath.Path, command: str) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """Notes in run.json how the run was started and how it ended; process 0 does."""
    if jax.process_index():
        return contextlib.nullcontext({})
    description = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return provenance.recorded(workdir, command=command, devices=description, processes=jax.process_count())


def run_arrays(run: Run, *, checkpoint: str = "best", queue: bool = False) -> dict[str, np.ndarray]:
    """A run's weights {"params/...", "teacher/..." and, if asked for, "queue/...": numpy array}."""
    from cbalign.training.momentum_queue import init_queue

    params = jax.eval_shape(run.task.init_params, jax.random.key(0))
    shapes = {"params": params, "teacher": run.task.teacher_params(params)}
    with_queue = bool(queue and run.task.queue_size)
    if with_queue:
        width = run.config.model.embed_dim
        shapes["queue"] = jax.eval_shape(lambda: init_queue(jax.random.key(0), size=run.task.queue_size, width=width))
    restored = run.restore(
        {name: tree for name, tree in shapes.items() if jax.tree.leaves(tree)}, checkpoint=checkpoint
    )
    if with_queue:
        restored["queue"] = flax.serialization.to_state_dict(restored["queue"])
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(restored, sep="/")
    return {name: np.asarray(leaf.addressable_data(0)) for name, leaf in flat.items()}
