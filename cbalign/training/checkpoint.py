"""Checkpoints of the whole training state with Orbax: the last n and the best are kept, half-written ones never seen."""

import dataclasses
import logging

from etils import epath
from orbax.checkpoint import v1 as ocp

from cbalign.errors import UserError
from cbalign.training import parallel

# Orbax reports each phase of each save; what a person needs is in the run's own log.
logging.getLogger("absl").setLevel(logging.WARNING)


class Checkpoints:
    """The checkpoints of a run, `directory/STEP`.

    A save writes to a temporary folder and renames it when it is whole, so a process killed at any moment leaves the
    previous checkpoint as the newest.
    """

    def __init__(self, directory, *, keep: int = 1):
        """Opens (and creates) the folder.

        Args:
          directory: where the checkpoints lie.
          keep: how many of the newest to keep, beside the best.
        """
        self.directory = epath.Path(directory)
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["best_metric"], n=1, keep_checkpoints_without_metrics=False
        )
        self._checkpointer = ocp.training.Checkpointer(
            self.directory.resolve(),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            # Whether to save is decided by the caller alone.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state, *, metric: float | None = None) -> None:
        """Starts writing the state of `step`; returns once its arrays are copied, so that they may be donated.

        Args:
          step: number of finished steps.
          state: tree of replicated global arrays.
          metric: by which the best checkpoint is told (higher is better), or None.
        """
        if self.latest_step() == step:
            return
        metrics = None if metric is None else {"best_metric": float(metric)}
        self._checkpointer.wait()
        self._checkpointer.save_async(step, _as_dict(state), force=True, metrics=metrics)

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest metric, or None where none has one."""
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
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.directory}; train first with `cbalign train`")
        try:
            tree = self._checkpointer.load(step, _as_dict(parallel.replicated_like(like)))
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be restored ({reason}); remove that folder to go on "
                "from an older one"
            ) from error
        return type(like)(**tree)

    def wait(self) -> None:
        """Returns when the save under way is whole."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits for the save under way and lets go of the folder."""
        self._checkpointer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _as_dict(state) -> dict:
    # The fields by name: other programs read the checkpoint without this package's classes.
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
