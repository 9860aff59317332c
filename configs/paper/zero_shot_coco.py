"""Zero-shot retrieval on COCO 5K: the pretrained model, images of 384 px, re-ranking of the first 256.

  cbalign train --config=configs/paper/pretrain.py --workdir=runs/paper/pretrain
  cbalign evaluate --workdir=runs/paper/pretrain --config=configs/paper/zero_shot_coco.py

The resolution is that of the fine-tuning config, by which ALBEF and TCL evaluate; the position embeddings of a model
trained at 256 px are interpolated. A config to evaluate by, not to train with.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "retrieval_coco.py")
    c.eval.splits = ("test",)
    c.eval.best_split = ""
    c.protocol.name = "zero-shot COCO 5K"
    c.protocol.task = "pretrain"
    c.protocol.trained_on = ""
    return c
