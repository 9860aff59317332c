"""The training state: everything a checkpoint stores, as named fields."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from cbalign.training.momentum_queue import Queue, init_queue


@flax.struct.dataclass
class TrainState:
    """Input and output of a training step; replicated over devices.

    Attributes:
      step: int32 scalar, the number of finished steps.
      seed: uint32 scalar; all randomness of step s is drawn from fold_in(key(seed), s). It is part of the state rather
        than of the program, so that runs that differ only in the seed share one compiled step.
      params: parameters of the student.
      teacher: exponential moving average of the subset of `params` with the same names.
      queue: momentum queues; {} for a task without queues.
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
      params: parameters of the student.
      teacher: the part of `params` that the teacher averages; copied.
      optimizer: an Optax transformation.
      rng: key for the random initial queues.
      seed: see `TrainState`.
      queue_size: Q; 0 for no queues.
      embed_dim: d, the width of the queues.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        # A copy: the state is donated, and a buffer cannot be donated twice.
        teacher=jax.tree.map(jnp.array, teacher),
        queue=init_queue(rng, size=queue_size, width=embed_dim) if queue_size else {},
        opt_state=optimizer.init(params),
    )


def update_teacher(teacher, params, *, momentum):
    """Teacher <- m * teacher + (1 - m) * student, for the parameters the teacher has."""
    return jax.tree.map(
        lambda t, p: momentum * t + (1.0 - momentum) * jax.lax.stop_gradient(p),
        teacher,
        {name: params[name] for name in teacher},
    )
