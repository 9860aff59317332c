"""SNLI-VE at full size, from a pretrained model (ALBEF's recipe, `configs/VE.yaml`).

  cbalign data build snli_ve --manual-dir=DIR
  cbalign train --config=paper/snli_ve --workdir=runs/paper/snli_ve
  cbalign evaluate --workdir=runs/paper/snli_ve --split=val --split=test

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "snli_ve"
    c.data.name = "snli_ve"
    c.data.train_split = "train"
    c.data.max_tokens = 40  # sentences are truncated to 30 words; ALBEF does not limit tokens
    c.contrast.alpha_ramp_steps = 0
    c.optimizer.warmup_steps = 100
    c.train.epochs = 5
    c.train.eval_steps = 2067  # about one epoch
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    return c
