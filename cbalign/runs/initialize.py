"""Where a run starts from."""

import dataclasses

import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.distributed import devices
from cbalign.training.checkpoints import restore_named
from cbalign.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Start:
    """The state a run starts with.

    Attributes:
      state: replicated.
      step: finished steps.
      origin: the places a start is looked for, in lines for the log, with the one taken marked.
      scratch: {module: root-mean-square of its initial values} where weights were loaded over them.
    """

    state: TrainState
    step: int
    origin: str
    scratch: dict | None = None


def start_run(make_state, checkpoints, *, checkpoint: str, weights: tuple, load_weights, steps: int, seed: int) -> Start:
    """Starts from the first of these that there is:

    1. the run's own newest checkpoint,
    2. the checkpoint that `init.checkpoint` names, whole,
    3. the weights that `init.weights` names, the rest initialised,
    4. scratch.

    Args:
      make_state: () -> the state from scratch.
      checkpoints: the run's own.
      checkpoint, weights: of `config.init`.
      load_weights: a state from scratch -> the same with those weights in their place.
      steps: to train in all, those of a named checkpoint included.
      seed: of this run; a named checkpoint's run may have had another.

    Raises:
      UserError: a checkpoint or weights that are not there, or do not fit.
    """
    own, scratch = checkpoints.latest_step(), None
    if own:
        taken, state = 1, checkpoints.restore(jax.eval_shape(make_state))
    elif checkpoint:
        taken, state = 2, restore_named(checkpoint, jax.eval_shape(make_state))
        if int(state.step) >= steps:
            raise UserError(f"init.checkpoint={checkpoint} has {int(state.step)} steps behind it, which train.steps="
                            f"{steps} counts too; set that higher")
        state = state.replace(seed=devices.replicate(np.uint32(seed)))
    elif weights:
        state = make_state()
        taken, scratch = 3, module_rms(state.params)
        state = devices.replicate(load_weights(state))
    else:
        taken, state = 4, devices.replicate(make_state())
    places = (("own checkpoint", f"step {own}" if own else "none"), ("init.checkpoint", checkpoint or "none"),
              ("init.weights", ", ".join(weights) or "none"), ("scratch", ""))
    lines = [f"  {i}. {name:<17}{what}{'  <- taken' if i == taken else ''}".rstrip()
             for i, (name, what) in enumerate(places, 1)]
    return Start(state, int(state.step), "\n".join(["start from the first there is of:", *lines]), scratch)


def parameter_table(params, *, scratch: dict | None = None) -> str:
    """One line a module: parameters and root-mean-square of their values, to see at a glance what was loaded.

    Args:
      params: the student's tree, host arrays.
      scratch: see `Start`; for a column beside.
    """
    lines = [f"{'module':<24}{'parameters':>12}{'rms':>10}" + (f"{'scratch':>10}" if scratch else "")]
    counts = {name: sum(np.size(x) for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    for name, value in module_rms(params).items():
        before = f"{scratch[name]:>10.4f}" if scratch else ""
        lines.append(f"{name:<24}{counts[name]:>12,}{value:>10.4f}{before}")
    return "\n".join([*lines, f"{'all':<24}{sum(counts.values()):>12,}"])


def module_rms(params) -> dict:
    """{module: root-mean-square of its values}."""

    def rms(tree):
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
        return (sum((x**2).sum() for x in leaves) / sum(x.size for x in leaves)) ** 0.5

    return {name: rms(tree) for name, tree in params.items()}
