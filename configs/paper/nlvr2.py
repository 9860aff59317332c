"""NLVR2 at full size, from a text-assignment model (ALBEF's recipe, `configs/NLVR.yaml`).

  cbalign data build nlvr2 --manual-dir=DIR
  cbalign train --config=paper/nlvr2 --workdir=runs/paper/nlvr2
  cbalign evaluate --workdir=runs/paper/nlvr2 --split=val --split=test

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "nlvr2"
    c.init.weights = ("runs/paper/nlvr2_pretrain",)
    c.data.name = "nlvr2"
    c.data.train_split = "train"
    c.data.max_tokens = 40  # sentences are truncated to 30 words; ALBEF does not limit tokens
    c.optimizer.warmup_steps = 100
    c.train.batch_size = 128
    c.train.epochs = 10
    c.train.eval_steps = 675  # about one epoch
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    return c
