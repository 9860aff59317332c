"""Orbax checkpoints of the full training state: keeps the newest n and the best, and never exposes a partial one."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import traceback
import types
from collections.abc import Iterator

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from cbalign.distributed import devices
from cbalign.errors import DISK_REMEDIES, UserError
from cbalign.storage import read_json, write_json

BEST = "best.json"
# Characters of a library's reason that a message repeats; some list every array.
_MAX_REASON = 160
# What silences Orbax after a failed save.
_KEPT: list[contextlib.ExitStack] = []


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Silences Orbax's progress messages, and the stack traces of errors that it also raises where they are explained.

    Everything a user needs is in the run's own log.
    """
    absl, asyncio, level = logging.getLogger("absl"), logging.getLogger("asyncio"), logging.getLogger("absl").level
    hook = threading.excepthook

    def without_disk_errors(raised):
        if not _is_of_a_save(raised.exc_value, raised.exc_traceback):
            hook(raised)

    absl.setLevel(logging.WARNING)
    absl.addFilter(_unexplained)
    asyncio.addFilter(_not_of_a_save)
    threading.excepthook = without_disk_errors
    try:
        yield
    finally:
        absl.setLevel(level)
        absl.removeFilter(_unexplained)
        asyncio.removeFilter(_not_of_a_save)
        threading.excepthook = hook


def _unexplained(record: logging.LogRecord) -> bool:
    """Filter of Orbax's own messages."""
    message = record.getMessage()
    # The former is logged several times for one damaged checkpoint, which is then an error of ours; the latter says
    # that the disk is slow.
    known = "Failed to json parse Metadata" in message or message.startswith("Waiting for previous save")
    return not record.exc_info and not known


def _not_of_a_save(record: logging.LogRecord) -> bool:
    """Filter of messages on tasks whose exception nobody asked for."""
    info = record.exc_info
    return not (isinstance(info, tuple) and _is_of_a_save(info[1], info[2]))


def _is_of_a_save(error: BaseException | None, trace: types.TracebackType | None) -> bool:
    """Whether an error of the disk passed through Orbax's code: `wait` raises it as well."""
    through = any("orbax" in frame.filename for frame in traceback.extract_tb(trace))
    return through and any(words in str(error) for words in map(os.strerror, DISK_REMEDIES))


def _best(evaluations: dict[int, float | None]) -> int | None:
    scored = {step: metric for step, metric in evaluations.items() if metric is not None}
    return max(scored, key=scored.__getitem__) if scored else None


class Checkpoints:
    """The checkpoints of a run in `directory/STEP`; `best.json`, next to the directory, records which one is best.

    A save writes to a temporary folder and renames it once complete, and what is removed is renamed first, so that a
    process killed at any moment leaves whole checkpoints, the previous one as the newest. A checkpoint is saved before
    it is evaluated; its metric is recorded afterwards.
    """

    def __init__(self, directory: os.PathLike | str, *, keep: int = 1, read_only: bool = False):
        """Opens the folder, creating it if needed.

        Args:
          directory: folder of the checkpoints.
          keep: number of newest checkpoints to keep in addition to the best.
          read_only: changes nothing in the folder, where a training may be at work.
        """
        self.directory = epath.Path(directory)
        self._keep, self._removed = keep, set()
        self._best_file = self.directory.parent / BEST
        best = read_json(self._best_file)
        self.evaluations: dict[int, float | None] = {}
        try:
            stored = best.get("evaluations", {}) if best is not None else {}
            self.evaluations = {int(step): None if x is None else float(x) for step, x in stored.items()}
        except (AttributeError, TypeError, ValueError, OverflowError):
            best = None
        if best is None and self._best_file.exists():
            print(f"note: {self._best_file} is damaged: earlier evaluations no longer count for the best checkpoint")
        self._saving, self._response = None, None
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())
        self._checkpointer = ocp.training.Checkpointer(
            self.directory.resolve(),
            # Orbax removes a checkpoint file by file under its own name; see `_remove_obsolete`.
            preservation_policy=ocp.training.preservation_policies.PreserveAll(),
            # The caller decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=not read_only,
        )

    def save(self, step: int, state) -> None:
        """Starts an asynchronous save; returns once the arrays are copied, after which they may be donated.

        Args:
          step: number of finished steps.
          state: tree of replicated global arrays.

        Raises:
          UserError: this save or the previous one could not be written (full disk, missing folder).
        """
        if self.latest_step() == step:
            return
        self.wait()
        if not self.directory.exists():  # Orbax would create it again, without what else a run needs
            raise UserError(f"{self.directory} was removed while the run was training; start again")
        self._saving = step
        with self._explained():
            self._response = self._checkpointer.save_async(step, _as_dict(state), force=True)

    def record_evaluation(self, step: int, metric: float | None) -> None:
        """Records that the checkpoint of a step was evaluated, with its metric (higher is better) or None."""
        self.evaluations[step] = metric
        if jax.process_index() == 0:
            best = _best(self.evaluations)
            evaluations = {str(one): value for one, value in sorted(self.evaluations.items())}
            write_json(self._best_file, {"best_step": best, "evaluations": evaluations})

    def evaluated_by_older_version(self, step: int) -> bool:
        """Whether the checkpoint itself stores its evaluation metric, as in runs that predate `best.json`."""
        return any(c.step == step and c.metrics for c in self._present())

    def forget_after(self, step: int) -> None:
        """Drops evaluations of steps after `step`: a killed run had reached them and this run repeats them."""
        for later in [one for one in self.evaluations if one > step]:
            del self.evaluations[later]

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return max(self._steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest metric, or None if no checkpoint has a metric."""
        present = self._steps()
        best = _best({step: metric for step, metric in self.evaluations.items() if step in present})
        if best is not None:
            return best
        # Runs that predate `best.json` store the metric in the checkpoint.
        scored = [c for c in self._present() if c.metrics]
        return max(scored, key=lambda c: c.metrics["best_metric"]).step if scored else None

    def restore(self, like, *, step: int | None = None):
        """Restores the state of a step onto the current devices.

        Args:
          like: a state, or its shapes, with the expected structure.
          step: the step to restore; the newest by default.

        Raises:
          UserError: there is no checkpoint, or it does not match or cannot be read.
        """
        return type(like)(**self._load(step, _as_dict(like)))

    def restore_fields(self, like: dict, *, step: int | None = None) -> dict:
        """Restores only some fields of a state, without reading the others.

        Args:
          like: {field: its complete tree, or the tree's shapes}.
          step: the step to restore; the newest by default.

        Raises:
          UserError: as for `restore`.
        """
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            restored = self._load(step, like)
        # Orbax returns the placeholder of an array that the checkpoint lacks.
        missing = [
            jax.tree_util.keystr(path)
            for path, x in jax.tree_util.tree_leaves_with_path(restored)
            if not isinstance(x, jax.Array)
        ]
        if missing:
            more = f" and {len(missing) - 1} more arrays" if len(missing) > 1 else ""
            raise UserError(f"the checkpoint in {self.directory} lacks {missing[0]}{more}: it belongs to another model")
        return restored

    def _load(self, step, like):
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.directory}; train first with `cbalign train`")
        try:
            return self._checkpointer.load(step, devices.replicated_like(like))
        # Orbax, TensorStore and XLA raise nearly anything on damaged files.
        except Exception as error:
            if not (self.directory / str(step)).exists():
                raise UserError(
                    f"checkpoint {self.directory / str(step)} was removed while it was read, as by a training that has "
                    "saved a newer one; start again"
                ) from error
            raise UserError(_unreadable(self.directory, step, self._steps(), error)) from error

    def _present(self) -> list:
        return [checkpoint for checkpoint in self._checkpointer.checkpoints if checkpoint.step not in self._removed]

    def _steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self._present()]

    def _remove_obsolete(self) -> None:
        """Removes all checkpoints but the newest and the best."""
        steps, best = sorted(self._steps()), self.best_step()
        for step in steps[: max(len(steps) - self._keep, 0)]:
            if step == best:
                continue
            self._removed.add(step)
            folder = self.directory / str(step)
            if jax.process_index() or not folder.exists():
                continue
            if "://" not in os.fspath(folder):
                # At one blow, and under a name that Orbax removes should this process be killed before it is done. A
                # bucket knows no such renaming.
                folder = folder.rename(self.directory / f"{step}.orbax-checkpoint-tmp-removed")
            folder.rmtree()

    def restore_newest(self, like, *, fall_back: bool = False):
        """Restores the newest checkpoint or, with `fall_back`, the newest that can be read.

        Those that cannot are moved to the folder `damaged` beside the checkpoints, which is printed.

        Raises:
          UserError: as for `restore`; of the newest where none can be read.
        """
        first, damaged = None, []
        for step in sorted(self._steps(), reverse=True):
            try:
                state = self.restore(like, step=step)
            except UserError as error:
                if not fall_back:
                    raise
                first = first or error
                damaged.append(step)
                continue
            self._set_aside(damaged, step)
            return state
        if first:
            raise UserError(f"none of the checkpoints in {self.directory} can be read; start again in a new --workdir")
        raise UserError(f"no checkpoint in {self.directory}; train first with `cbalign train`")

    def _set_aside(self, damaged: list[int], restored: int) -> None:
        if not damaged:
            return
        aside = self.directory.parent / "damaged"
        if jax.process_index() == 0:
            aside.mkdir(parents=True, exist_ok=True)
            for step in damaged:
                target = aside / str(step)
                if target.exists():
                    target.rmtree()
                (self.directory / str(step)).rename(target)
            steps = ", ".join(map(str, damaged))
            print(f"checkpoint {steps} cannot be read and is now in {aside}; resuming from {restored}", flush=True)
        devices.barrier("damaged checkpoints")
        self._checkpointer.reload()

    def wait(self) -> None:
        """Waits until the save in progress is complete.

        Raises:
          UserError: it could not be written.
        """
        with self._explained():
            response, self._response = self._response, None
            if response is not None:
                # Unless it is asked, Orbax keeps a thread and three open files for each save, and the error of one that
                # failed may reach nobody else.
                response.result()
            self._checkpointer.wait()
            if response is not None:
                self._remove_obsolete()

    @contextlib.contextmanager
    def _explained(self):
        # Orbax and TensorStore raise different errors for each file system; only the underlying cause is the same.
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            # Other threads of this save may yet log the same error, up to the end of the process.
            self._stay_quiet()
            present = self.directory.iterdir() if self.directory.exists() else ()
            steps = [int(path.name) for path in present if path.name.isdigit()]
            kept = "there is no earlier checkpoint"
            if steps:
                kept = f"checkpoint {self.directory / str(max(steps))} is complete"
            raise UserError(
                f"step {self._saving} could not be saved in {self.directory} ({_cause(error)}); {kept}. Free disk "
                "space or make the folder writable, then start again"
            ) from error

    def _stay_quiet(self) -> None:
        # Kept, since what is dropped is closed: its generator would be, and undo what it did.
        _KEPT.append(self._quiet.pop_all())

    def close(self) -> None:
        """Waits for the save in progress and closes the folder."""
        try:
            try:
                self.wait()
            finally:
                with self._explained():
                    self._checkpointer.close()
        finally:
            self._quiet.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and issubclass(kind, OSError):
            # What ended the run may also end the save in progress, which logs it at a moment of its own.
            self._stay_quiet()
        self.close()


def _unreadable(directory: epath.Path, step: int, steps: list[int], error: Exception) -> str:
    """One short line on a checkpoint that cannot be read: the remedy first, the reason cut."""
    older = [one for one in steps if one < step]
    remedy = f"delete {directory / str(step)} and start again"
    if older:
        remedy = f"resume from step {max(older)} with --fall-back, or evaluate it with --checkpoint={max(older)}"
    reason = " ".join((str(error).strip() or type(error).__name__).split())
    if len(reason) > _MAX_REASON:
        reason = f"{reason[:_MAX_REASON]} …"
    return f"{remedy}: checkpoint {directory / str(step)} is damaged, or of another model ({reason})"


def _cause(error) -> str:
    """The operating system's message if the error contains one, else the start of the error's text."""
    text = " ".join(str(error).split())
    known = map(os.strerror, DISK_REMEDIES)
    return next((words for words in known if words.lower() in text.lower()), text[:200] or type(error).__name__)


def named_checkpoint(path) -> epath.Path:
    """Resolves a path to one checkpoint: the newest of a workdir or a `checkpoints` folder, or a STEP folder itself.

    Only reads, since the run that owns the folder may be in progress.

    Raises:
      UserError: there is no checkpoint.
    """
    path = epath.Path(path)
    if (path / "checkpoints").exists():
        path = path / "checkpoints"
    if path.name.isdigit() and path.exists():
        return path
    steps = [int(step.name) for step in path.iterdir() if step.name.isdigit()] if path.exists() else []
    if not steps:
        raise UserError(
            f"init.checkpoint={path} holds no checkpoint; name the folder of a run, or one of its "
            "checkpoints/STEP folders"
        )
    return path / str(max(steps))


def restore_named(path, like):
    """Restores the full state that `named_checkpoint` finds onto the current devices.

    Args:
      path: see `named_checkpoint`.
      like: a state, or its shapes, with the expected structure.

    Raises:
      UserError: there is no checkpoint, or it belongs to another model or optimizer.
    """
    folder = named_checkpoint(path)
    try:
        return type(like)(**ocp.load(folder.resolve(), _as_dict(devices.replicated_like(like))))
    except Exception as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise UserError(
            f"init.checkpoint={folder} does not match this config ({reason}); to start from its parameters "
            "only, name the run in init.weights"
        ) from error


def _as_dict(state) -> dict:
    # Fields are stored by name so that other programs can read the checkpoint without this package's classes.
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
