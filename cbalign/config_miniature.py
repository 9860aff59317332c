"""A miniature of a config, for rehearsals: the same run with all that costs time small, `--config.rehearse=True`.

Whatever decides which code runs stays as it is: task, data sets and splits, losses, schedules, precision, the order of
the sizes (384 pixels are more patches than 256, 4,000 codes more than 500). Figures of a miniature mean nothing.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict


def _at_most(limit: int) -> Callable[[Any], Any]:
    return lambda value: min(value, limit)


# Field -> its value in the miniature, from its value in the config. The batch is 16 so that an epoch has some dozen
# steps at most; on more devices, override train.batch_size, which the size of the queues allows up to 64.
_SMALL: dict[str, Callable[[Any], Any]] = {
    "data.vocabulary": lambda _: "",  # of the weights, or of the training texts
    "data.vocabulary_size": _at_most(500),
    "model.image_width": _at_most(32),
    "model.image_depth": _at_most(1),
    "model.image_heads": _at_most(2),
    "model.text_width": _at_most(32),
    "model.text_depth": _at_most(1),
    "model.text_heads": _at_most(2),
    "model.fusion_depth": _at_most(1),
    "model.embed_dim": _at_most(16),
    "contrast.alpha_ramp_steps": _at_most(3),
    "codebook.num_codes": lambda codes: max(2, codes // 125),
    "codebook.queue_rows": _at_most(32),
    "codebook.freeze_steps": _at_most(2),
    "queue.size": lambda _: 64,
    "itm.group_size": _at_most(8),
    "vqa.rank_top_k": _at_most(4),
    "optimizer.warmup_steps": _at_most(2),
    "train.batch_size": _at_most(16),
    "train.microbatches": _at_most(2),
    "train.steps": _at_most(6),
    "train.epochs": _at_most(2),
    "train.log_steps": lambda _: 1,
    "train.eval_steps": _at_most(8),
    "train.checkpoint_steps": _at_most(8),
    "eval.batch_size": _at_most(8),
    "eval.rerank_top_k": lambda candidates: min(candidates, 10 + candidates // 64),
}
_PIXELS_PER_PATCH = 128


def shrink(config: ConfigDict) -> None:
    """Turns a config into its miniature, in place."""
    patch = config.model.patch_size
    for name, small in _SMALL.items():
        section, _, last = name.rpartition(".")
        config[section][last] = small(config[section][last])
    # As many patches a side as there are times 128 pixels: 2 for 256, 3 for 384.
    for section in ("data", "protocol"):
        size = config[section].image_size
        config[section].image_size = min(size, max(2, round(size / _PIXELS_PER_PATCH)) * patch)
