"""The work of a pretraining step described in numpy, for the same step in another library."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax
import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.losses.contrastive import TERMS
from cbalign.tasks.pretrain import Pretrain
from cbalign.training.optimizer import group_labels
from cbalign.weights.export import albef_state
from cbalign.weights.key_tables import albef_table

_SCHEDULED_STEPS = 1000
# What the peer computes in one way only: {field: value}.
_ONLY = {
    "contrast.terms": TERMS,
    "contrast.learn_temperature": True,
    "contrast.soft_intra": True,
    "contrast.mask_empty": False,
    "codebook.solver": "ipot",
    "codebook.teacher": True,
    "codebook.queue_rows": 0,
    "codebook.freeze_steps": 0,
    "codebook.embed": False,
    "model.mlp_ratio": 4,
    "train.microbatches": 1,
    "model.remat": False,
}


def check_peer(task: Any) -> None:
    """Checks that the peer computes what a task's config asks for.

    Raises:
      UserError: naming the field and the value that the peer knows.
    """
    if type(task) is not Pretrain:
        raise UserError(f"--peer=torch: the peer only knows the task {Pretrain.name}, not {task.name}")
    config = task.config
    for name, value in _ONLY.items():
        found = config
        for part in name.split("."):
            found = found[part]
        if (tuple(found) if isinstance(value, tuple) else found) != value:
            raise UserError(f"--peer=torch: the peer only knows {name}={value}, not {found}")
    off = [name for name, weight in config.loss_weights.items() if not weight]
    if off or not config.contrast.alpha:
        name = f"loss_weights.{off[0]}" if off else "contrast.alpha"
        raise UserError(f"--peer=torch: the peer computes every loss with soft targets; {name} must be above 0")


def describe(task: Any, state: Any, learning_rate: Any) -> dict:
    """The problem that `tests.peers.codis.Codis` takes; pickles without JAX.

    Args:
      task: the pretraining task; its config holds durations in steps.
      state: its `TrainState` before the first step.
      learning_rate: step -> learning rate.

    Returns:
      {"sizes": of the towers, "options": what else the step needs, "state": tensors by ALBEF's names,
      "codes": [K, d], "queue_ids": int64 [Q], "groups": [(learning-rate factor, decay factor, ALBEF's names)]}.
    """
    config, tokens = task.config, task.tokens
    trees = {"params": state.params, "teacher": state.teacher, "queue": dataclasses.asdict(state.queue)}
    flat = {name: np.asarray(x) for name, x in flax.traverse_util.flatten_dict(trees, sep="/").items()}
    weights, own = albef_state(flat, task.model)
    first = int(state.step)
    steps = np.arange(first, first + _SCHEDULED_STEPS)
    o, contrast, codebook = config.optimizer, config.contrast, config.codebook
    options = {
        **{name: tokens[name] for name in ("pad", "cls", "sep", "mask", "vocab_size")},
        **{name: o[name] for name in ("b1", "b2", "eps", "weight_decay", "clip_norm")},
        **{name: config.mlm[name] for name in ("probability", "max_predictions")},
        **{name: codebook[name] for name in ("beta", "iterations", "ot_weight")},
        "code_temperature": codebook.temperature,
        "joint_positives": contrast.joint_positives,
        "loss_weights": dict(config.loss_weights),
        "embed_dim": config.model.embed_dim,
        "queue_size": config.queue.size,
        "group_size": config.itm.group_size,
        "momentum": config.teacher.momentum,
        "teacher_dropout": config.teacher.dropout,
        "dtype": config.model.dtype,
        "alphas": np.asarray(jax.vmap(task.alpha)(steps), float).tolist(),
        "learning_rates": np.asarray(jax.vmap(learning_rate)(steps), float).tolist(),
    }
    sizes = {name: x for name, x in dataclasses.asdict(task.model.sizes).items() if name != "dtype"}
    groups = _groups(task, state.params)
    queue_ids = np.asarray(state.queue.ids, np.int64)
    return dict(
        sizes=sizes, options=options, state=weights, codes=own["codebook.codes"], queue_ids=queue_ids, groups=groups
    )


def _groups(task: Any, params: Any) -> list[tuple[float, float, list[str]]]:
    """The optimizer's groups with the names of ALBEF's tensors in each; the codes are "codes"."""
    groups, sizes = task.config.optimizer.groups, task.model.sizes
    labels = flax.traverse_util.flatten_dict(group_labels(params, groups), sep="/")
    table = albef_table(image_depth=sizes.image_depth, text_depth=sizes.text_depth, fusion_depth=sizes.fusion_depth)
    names: list[list[str]] = [[] for _ in groups]
    for entry in table.entries:
        if not entry.ours[0].startswith("params/"):
            continue
        found = {labels[name.removeprefix("params/")] for name in entry.ours}
        if len(found) > 1:
            raise UserError(f"--peer=torch: optimizer.groups split {', '.join(entry.ours)}, one tensor of the peer's")
        theirs = "codes" if entry.theirs == "cbalign.codebook.codes" else entry.theirs
        names[found.pop()].append(theirs)
    return [(rate, decay, inside) for (_, rate, decay), inside in zip(groups, names)]


def random_draws(task: Any, *, seed: int, step: int, batch: dict) -> tuple[dict, dict]:
    """What our step draws at random without dropout, for `tests.peers.codis.Codis.step`.

    Args:
      task: the pretraining task.
      seed: of the run.
      step: the number of finished steps.
      batch: numpy arrays of the global batch.

    Returns:
      (masked texts, see `Pretrain.mask`; Gumbel noise {"image", "text": [groups, group, group]} of the negatives, with
      which the largest logit is what `jax.random.categorical` draws).
    """
    draw, _ = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    group, masked = task.config.itm.group_size, task.mask(batch, draw)
    negatives = jax.random.fold_in(draw, 0)
    pairs = [jax.random.split(jax.random.fold_in(negatives, g)) for g in range(len(batch["id"]) // group)]
    noise = np.stack([[jax.random.gumbel(key, (group, group)) for key in pair] for pair in pairs])
    return jax.tree.map(np.array, masked), {"image": noise[:, 0], "text": noise[:, 1]}
