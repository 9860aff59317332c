"""The training state: everything a checkpoint has to carry, as named fields."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from cbalign.training.momentum_queue import Queue, init_queue


@flax.struct.dataclass
class TrainState:
    """One step's input and output; replicated over devices.

    Attributes:
      step: int32 scalar, the number of finished steps; the only clock of a run.
      seed: uint32 scalar; all randomness of step s is drawn from fold_in(key(seed), s). It stands here and not in the
        program, so that runs that differ in it alone share one compiled step.
      params: the student.
      teacher: the moving average of the part of `params` it names.
      queue: momentum queues, {} for a task that has none.
      opt_state: Optax state.
    """

    step: jax.Array
    seed: jax.Array
    params: Any
    teacher: Any
    queue: Queue | dict
    opt_state: Any


def init_state(params, *, teacher, optimizer, rng, seed: int, queue_size: int, embed_dim: int) -> TrainState:
    """The state before the first step.

    Args:
      params: the student's parameters.
      teacher: the part of `params` the teacher keeps a moving average of; copied.
      optimizer: an Optax transformation.
      rng: key for the queues' random start.
      seed: see `TrainState`.
      queue_size: Q; 0 for no queues.
      embed_dim: d.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        # A copy, since the state is donated and one buffer can't be given away twice.
        teacher=jax.tree.map(jnp.array, teacher),
        queue=init_queue(rng, size=queue_size, width=embed_dim) if queue_size else {},
        opt_state=optimizer.init(params),
    )


def update_teacher(teacher, params, *, momentum):
    """teacher <- m * teacher + (1 - m) * student, over the parameters the teacher has."""
    return jax.tree.map(
        lambda t, p: momentum * t + (1.0 - momentum) * jax.lax.stop_gradient(p),
        teacher,
        {name: params[name] for name in teacher},
    )
