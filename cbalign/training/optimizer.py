"""Learning-rate schedules and AdamW with parameter groups chosen by pattern."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.errors import UserError


def warmup_cosine(*, peak: float, final: float, start: float, warmup_steps: int, steps: int):
    """Linear warm-up from `start` to `peak` over `warmup_steps`, then cosine decay to `final` at `steps`."""
    import optax  # late: inference needs none of it

    return optax.warmup_cosine_decay_schedule(start, peak, warmup_steps, max(steps, warmup_steps + 1), final)


def albef_staircase(*, peak: float, final: float, start: float, warmup_steps: int, steps_per_epoch: int, epochs: int):
    """ALBEF's learning-rate schedule (`scheduler/cosine_lr.py` as used by `Pretrain.py:train`).

    In epoch 0 the rate rises from `start` to `peak` over `warmup_steps`, after every step whose number is a multiple of
    100, then stays at `peak` until the end of the epoch. In epoch e >= 1 it is constant at
    final + (peak - final) (1 + cos(pi e / epochs)) / 2.
    """

    def schedule(step):
        epoch = step // steps_per_epoch
        stairs = jnp.clip(step - 1, 0, warmup_steps) // 100
        warmup = start + stairs * (peak - start) / max(warmup_steps / 100, 1)
        warmup = jnp.where(step > warmup_steps, peak, warmup)
        cosine = final + (peak - final) * (1.0 + jnp.cos(jnp.pi * epoch / epochs)) / 2.0
        return jnp.where(epoch == 0, warmup, cosine)

    return schedule


def build_optimizer(
    params,
    *,
    schedule: str,
    learning_rate: float,
    final_learning_rate: float,
    warmup_learning_rate: float,
    warmup_steps: int,
    steps: int,
    steps_per_epoch: int,
    groups,
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float = 0.0,
):
    """Builds AdamW with its learning-rate schedule.

    Args:
      params: parameter tree, or its shapes.
      schedule: "cosine" (`warmup_cosine`) or "albef" (`albef_staircase`).
      learning_rate, final_learning_rate, warmup_learning_rate: `peak`, `final` and `start` of the schedule.
      warmup_steps: length of the warm-up.
      steps: total steps of the run.
      steps_per_epoch: length of an epoch, for "albef".
      groups, weight_decay, b1, b2, eps, clip_norm: see `adamw`.

    Returns:
      (Optax transformation, step -> learning rate).
    """
    common = dict(peak=learning_rate, final=final_learning_rate, start=warmup_learning_rate, warmup_steps=warmup_steps)
    if schedule == "albef":
        epochs = max(1, round(steps / steps_per_epoch))
        rate = albef_staircase(**common, steps_per_epoch=steps_per_epoch, epochs=epochs)
    else:
        rate = warmup_cosine(**common, steps=steps)
    optimizer = adamw(
        params, rate, groups=groups, weight_decay=weight_decay, b1=b1, b2=b2, eps=eps, clip_norm=clip_norm
    )
    return optimizer, rate


def alpha_ramp(*, alpha: float, ramp_steps: int):
    """Weight of the teacher's soft targets: linear from 0 to `alpha` over `ramp_steps`, then constant."""

    def schedule(step):
        return alpha * jnp.minimum(1.0, step / ramp_steps) if ramp_steps > 0 else jnp.asarray(alpha, jnp.float32)

    return schedule


def parameter_names(params) -> list[str]:
    """Parameter names such as "text_encoder/layers/layer_0/mlp/output/kernel", in the order of the tree's leaves."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["/".join(str(key.key) for key in path) for path, _ in paths]


def group_labels(params, groups):
    """Assigns every parameter to the first group whose pattern matches its full name.

    Args:
      params: parameter tree.
      groups: sequence of (pattern, learning-rate factor, weight-decay factor).

    Returns:
      Group indices, in a tree shaped like `params`.

    Raises:
      UserError: a parameter matches no pattern, or a pattern matches no parameter.
    """
    labels = []
    for name in parameter_names(params):
        matches = [i for i, group in enumerate(groups) if re.fullmatch(group[0], name)]
        if not matches:
            raise UserError(f"no pattern in optimizer.groups matches the parameter {name!r}; end the list with '.*'")
        labels.append(matches[0])
    for i, (pattern, *_) in enumerate(groups):
        if i not in labels:
            raise UserError(f"the pattern {pattern!r} in optimizer.groups matches no parameter; remove or correct it")
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def group_table(params, groups) -> str:
    """A table with one line per group: pattern, factors, number of tensors and of parameters."""
    labels = jax.tree.leaves(group_labels(params, groups))
    sizes = [int(np.size(x)) for x in jax.tree.leaves(params)]
    lines = [f"{'parameter group':<42}{'lr x':>7}{'decay x':>9}{'tensors':>9}{'parameters':>13}"]
    for i, (pattern, rate, decay) in enumerate(groups):
        inside = [size for size, label in zip(sizes, labels) if label == i]
        lines.append(f"{pattern:<42}{rate:>7g}{decay:>9g}{len(inside):>9,}{sum(inside):>13,}")
    return "\n".join(lines)


def adamw(params, schedule, *, groups, weight_decay: float, b1: float, b2: float, eps: float, clip_norm: float = 0.0):
    """AdamW with decoupled weight decay, as in PyTorch, with a learning rate and decay for each parameter group.

    Args:
      params: parameter tree, or its shapes, from which groups are assigned.
      schedule: step -> learning rate.
      groups: see `group_labels`.
      weight_decay, b1, b2, eps: AdamW hyperparameters.
      clip_norm: global norm to clip the gradient to; 0 disables clipping, as in ALBEF.

    Returns:
      An Optax transformation.
    """
    import optax

    def group(rate, decay):
        return optax.adamw(lambda step: rate * schedule(step), b1=b1, b2=b2, eps=eps, weight_decay=weight_decay * decay)

    transforms = {i: group(rate, decay) for i, (_, rate, decay) in enumerate(groups)}
    optimizer = optax.multi_transform(transforms, group_labels(params, groups))
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
