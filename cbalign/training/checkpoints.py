"""Checkpoints of the whole training state with Orbax: the newest n and the best are kept, partial ones are never seen."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
from collections.abc import Iterator

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.storage import read_json, write_json

BEST = "best.json"


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Silences Orbax's reports of each phase of each save, and its trace beside an error that it raises as well.

    What a person needs is in the run's own log.
    """
    logger, level = logging.getLogger("absl"), logging.getLogger("absl").level
    without_traces = _WithoutTraces()
    logger.setLevel(logging.WARNING)
    logger.addFilter(without_traces)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(without_traces)


class _WithoutTraces(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.exc_info


@dataclasses.dataclass
class _KeepBest:
    """Orbax preservation policy: the checkpoint whose evaluation was the best so far."""

    evaluations: dict[int, float | None]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        best = _best(self.evaluations)
        return [checkpoint.step == best for checkpoint in checkpoints]


def _best(evaluations: dict[int, float | None]) -> int | None:
    scored = {step: metric for step, metric in evaluations.items() if metric is not None}
    return max(scored, key=scored.__getitem__) if scored else None


class Checkpoints:
    """The checkpoints of a run, `directory/STEP`, and which of them is the best, `best.json` beside the directory.

    A save writes to a temporary folder and renames it when it is complete, so a process killed at any moment leaves the
    previous checkpoint as the newest. A checkpoint is saved before it is evaluated; its metric is recorded afterwards.
    """

    def __init__(self, directory: os.PathLike | str, *, keep: int = 1):
        """Opens (and creates) the folder.

        Args:
          directory: where the checkpoints lie.
          keep: how many of the newest to keep, beside the best.
        """
        self.directory = epath.Path(directory)
        self._best_file = self.directory.parent / BEST
        stored = (read_json(self._best_file) or {}).get("evaluations", {})
        self.evaluations: dict[int, float | None] = {int(step): metric for step, metric in stored.items()}
        policies = ocp.training.preservation_policies
        self._saving = None
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())
        self._checkpointer = ocp.training.Checkpointer(
            self.directory.resolve(),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(keep), _KeepBest(self.evaluations), *_best_of_older_versions(policies)]
            ),
            # The caller alone decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state) -> None:
        """Starts writing the state of `step`; returns once its arrays are copied, so that they may be donated.

        Args:
          step: number of finished steps.
          state: tree of replicated global arrays.

        Raises:
          UserError: this save, or the one before, could not be written (a full disk, a folder that is gone).
        """
        if self.latest_step() == step:
            return
        self.wait()
        self._saving = step
        with self._explained():
            self._checkpointer.save_async(step, _as_dict(state), force=True)

    def record_evaluation(self, step: int, metric: float | None) -> None:
        """Notes that the checkpoint of a step was evaluated, and its metric (higher is better) if it has one."""
        self.evaluations[step] = metric
        if jax.process_index() == 0:
            best = _best(self.evaluations)
            evaluations = {str(one): value for one, value in sorted(self.evaluations.items())}
            write_json(self._best_file, {"best_step": best, "evaluations": evaluations})

    def evaluated_by_older_version(self, step: int) -> bool:
        """Whether the checkpoint itself holds the metric of its evaluation, as runs made before `best.json` have it."""
        return any(c.step == step and c.metrics for c in self._checkpointer.checkpoints)

    def forget_after(self, step: int) -> None:
        """Drops the evaluations of steps beyond `step`, which a killed run had reached and this one repeats."""
        for later in [one for one in self.evaluations if one > step]:
            del self.evaluations[later]

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest metric, or None where none has one."""
        present = {checkpoint.step for checkpoint in self._checkpointer.checkpoints}
        best = _best({step: metric for step, metric in self.evaluations.items() if step in present})
        if best is not None:
            return best
        # Runs made before `best.json` existed hold the metric in the checkpoint.
        scored = [c for c in self._checkpointer.checkpoints if c.metrics]
        return max(scored, key=lambda c: c.metrics["best_metric"]).step if scored else None

    def restore(self, like, *, step: int | None = None):
        """Restores the state of a step, onto the devices there are now.

        Args:
          like: a state (or its shapes) of the wanted structure.
          step: which; the newest by default.

        Raises:
          UserError: no checkpoint, or one that does not fit or cannot be read.
        """
        return type(like)(**self._load(step, _as_dict(like)))

    def restore_fields(self, like: dict, *, step: int | None = None) -> dict:
        """Restores some fields of a state and reads nothing else, as `restore` does.

        Args:
          like: {field: its tree, or the shapes of it}, in whole.
          step: which; the newest by default.

        Raises:
          UserError: as for `restore`.
        """
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            restored = self._load(step, like)
        # What the checkpoint lacks comes back as it was asked for.
        missing = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(restored)
                   if not isinstance(x, jax.Array)]
        if missing:
            more = f" and {len(missing) - 1} more arrays" if len(missing) > 1 else ""
            raise UserError(f"the checkpoint in {self.directory} lacks {missing[0]}{more}: it is one of another model")
        return restored

    def _load(self, step, like):
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.directory}; train first with `cbalign train`")
        try:
            return self._checkpointer.load(step, devices.replicated_like(like))
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be restored ({reason}); remove that folder to resume "
                "from an older one"
            ) from error

    def wait(self) -> None:
        """Returns when the save under way is complete.

        Raises:
          UserError: it could not be written.
        """
        with self._explained():
            self._checkpointer.wait()

    @contextlib.contextmanager
    def _explained(self):
        # Orbax and TensorStore have an error of their own for each file system; what they have in common is the cause.
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            steps = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            kept = f"checkpoint {self.directory / str(max(steps))} is complete" if steps else "there is no earlier one"
            raise UserError(f"step {self._saving} could not be saved ({_cause(error)}); {kept}. Make room, or let the "
                            "folder be written to, and start again") from error

    def close(self) -> None:
        """Waits for the save under way and closes the folder."""
        self._checkpointer.close()
        self._quiet.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _best_of_older_versions(policies) -> list:
    """Keeps the best checkpoint of a run whose metrics were stored with the checkpoints."""
    return [policies.BestN(get_metric_fn=lambda metrics: metrics["best_metric"], n=1,
                           keep_checkpoints_without_metrics=False)]


def _cause(error) -> str:
    """The operating system's words within an error, or its first line."""
    text = " ".join(str(error).split())
    known = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES,
                                                errno.EPERM, errno.ENOENT, errno.EIO))
    return next((words for words in known if words.lower() in text.lower()), text[:200] or type(error).__name__)


def named_checkpoint(path) -> epath.Path:
    """The checkpoint that a path means: a workdir's or a `checkpoints` folder's newest, or one STEP folder.

    Nothing is written there: the run that owns it may be in progress.

    Raises:
      UserError: there is none.
    """
    path = epath.Path(path)
    if (path / "checkpoints").exists():
        path = path / "checkpoints"
    if path.name.isdigit() and path.exists():
        return path
    steps = [int(step.name) for step in path.iterdir() if step.name.isdigit()] if path.exists() else []
    if not steps:
        raise UserError(f"init.checkpoint={path} holds no checkpoint; name the folder of a run, or a STEP of its "
                        "checkpoints")
    return path / str(max(steps))


def restore_named(path, like):
    """Restores the whole state that `named_checkpoint` finds, onto the devices there are now.

    Args:
      path: see `named_checkpoint`.
      like: a state (or its shapes) of the wanted structure.

    Raises:
      UserError: no checkpoint, or one of another model or optimizer.
    """
    folder = named_checkpoint(path)
    try:
        return type(like)(**ocp.load(folder.resolve(), _as_dict(devices.replicated_like(like))))
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).strip().splitlines()[:2])
        raise UserError(f"init.checkpoint={folder} is not one of this config ({reason}); to start from its parameters "
                        "alone, name the run in init.weights") from error


def _as_dict(state) -> dict:
    # The fields by name: other programs read the checkpoint without this package's classes.
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
