"""The training step, with the method's steps numbered."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cbalign.distributed import devices
from cbalign.training.momentum_queue import enqueue, fill
from cbalign.training.state import TrainState, update_teacher

# ALBEF keeps the temperature in this range.
TEMPERATURE_RANGE = (0.001, 0.5)


def train_step(
    state: TrainState,
    batch: dict,
    *,
    value_and_grad: Callable,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable,
    momentum: float,
    freeze_code_steps: int = 0,
    gradient_dtype: str = "float32",
):
    """Runs one training step on one device's part of the batch, under `devices.map_step`.

    Args:
      state: state before the step.
      batch: arrays [pairs per device, ...], see `cbalign.data.pipeline`.
      value_and_grad: the task's, see `cbalign.tasks.base.Task.value_and_grad`.
      optimizer: Optax transformation.
      learning_rate: step -> learning rate, for the metrics only.
      momentum: m, momentum of the teacher.
      freeze_code_steps: number of initial steps in which the codes are frozen.
      gradient_dtype: in which gradients are averaged over devices; sums of "bfloat16" take half the traffic.

    Returns:
      (state after the step, metrics {name: float32 scalar}).
    """
    rng = jax.random.fold_in(jax.random.key(state.seed), state.step)

    # 1. The teacher follows the student.
    teacher = update_teacher(state.teacher, state.params, momentum=momentum)

    # 2-6. The task's losses.
    (_, aux), gradients = value_and_grad(state.params, teacher, state.queue, batch, rng=rng, step=state.step)

    # 7. Average the gradients over devices, update, clip the temperature to its range.
    gradients = devices.mean_in(gradients, gradient_dtype)
    metrics = devices.mean(aux["metrics"])
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    if freeze_code_steps and "codebook" in updates:
        # Mask the update, not the gradient: weight decay and Adam's moments move the codes even at zero gradient.
        moving = (state.step >= freeze_code_steps).astype(jnp.float32)
        updates = {**updates, "codebook": jax.tree.map(lambda u: u * moving, updates["codebook"])}
    params = optax.apply_updates(state.params, updates)
    if "temperature" in params:
        clipped = jax.tree.map(lambda t: jnp.clip(t, *TEMPERATURE_RANGE), params["temperature"])
        params = {**params, "temperature": clipped}
    metrics = {
        **metrics,
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
    }

    # 8. Enqueue the teacher's features of the global batch.
    queue = state.queue
    if queue:
        queue = enqueue(queue, **aux["keys"])
        metrics["queue_fill"] = fill(queue)
    state = state.replace(step=state.step + 1, params=params, teacher=teacher, queue=queue, opt_state=opt_state)
    return state, metrics
