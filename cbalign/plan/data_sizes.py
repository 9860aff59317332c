"""How many records and texts the paper's data sets have, so that a plan needs none of them built.

Numbers of the official annotation files, as the builders expect them. Of SBU, CC3M and Visual Genome, what ALBEF has
(table 1): the images that could still be downloaded, and the region descriptions it keeps.
"""

from __future__ import annotations

from typing import Any

from cbalign.data.mixtures import parse_mixture
from cbalign.errors import UserError
from cbalign.evaluation.calls import SplitSize

SIZES: dict[str, dict[str, SplitSize]] = {
    "coco_karpathy": {
        "train": SplitSize(113_287, 566_747),
        "val": SplitSize(5_000, 25_010),
        "test": SplitSize(5_000, 25_010),
    },
    "flickr30k_karpathy": {
        "train": SplitSize(29_000, 145_000),
        "val": SplitSize(1_014, 5_070),
        "test": SplitSize(1_000, 5_000),
    },
    "visual_genome": {"train": SplitSize(100_000, 769_000)},
    "sbu": {"train": SplitSize(860_000, 860_000)},
    "cc3m": {"train": SplitSize(2_950_000, 2_950_000), "val": SplitSize(15_840, 15_840)},
    "vqa_v2": {
        "train": SplitSize(443_757, 443_757),
        "val": SplitSize(214_354, 214_354),
        "test": SplitSize(447_793, 447_793),
        "vg": SplitSize(1_445_322, 1_445_322),
    },
    "nlvr2": {"train": SplitSize(86_373, 86_373), "val": SplitSize(6_982, 6_982), "test": SplitSize(6_967, 6_967)},
    "snli_ve": {
        "train": SplitSize(529_527, 529_527),
        "val": SplitSize(17_858, 17_858),
        "test": SplitSize(17_901, 17_901),
    },
}


def split_size(data: str, split: str) -> SplitSize | None:
    """Size of a split, or a sum of splits, of a data set or mixture; None where it is not known.

    Sources of a mixture without that split are left out, as in evaluation.
    """
    found = []
    for source, _ in parse_mixture(data):
        splits = SIZES.get(source)
        if splits is None or not all(part in splits for part in split.split("+")):
            if splits is None or split == "train":
                return None
            continue
        found += [splits[part] for part in split.split("+")]
    return SplitSize(sum(x.records for x in found), sum(x.texts for x in found)) if found else None


def samples_per_epoch(config: Any) -> int | None:
    """Samples of an epoch of a config's training data: records, or pairs of an image and a text; None if not known."""
    over_pairs = config.data.get("epoch_over", "images") == "pairs"
    total = 0
    for source, weight in parse_mixture(config.data.name):
        size = split_size(source, config.data.train_split)
        if size is None:
            return None
        total += round(weight * (size.texts if over_pairs else size.records))
    return total


def need_samples(config: Any, name: str) -> int:
    """The same, or 0 for a config that sets steps.

    Raises:
      UserError: the config sets epochs of data of unknown size.
    """
    if config.train.steps:
        return 0
    found = samples_per_epoch(config)
    if found is None:
        raise UserError(f"{name} sets epochs of {config.data.name}; give the samples in one with --pairs=N")
    return found
