"""NLVR2 at full size, from a text-assignment model.

  cbalign data build nlvr2 --manual-dir=DIR
  cbalign train --config=paper/nlvr2 --workdir=runs/paper/nlvr2
  cbalign evaluate --workdir=runs/paper/nlvr2 --split=val --split=test

ALBEF's and TCL's recipe (their `configs/NLVR.yaml` hold the same numbers) and what is here:

  image_res: 384                       data.image_size = 384
  batch_size: 16                       train.batch_size = 128              on each of 8 GPUs
  alpha: 0.4                           contrast.alpha = 0.4
  warm_up: True                        contrast.alpha_ramp_steps = -1      over the first epoch
  optimizer.lr: 2e-5                   optimizer.learning_rate = 2e-5
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 10                 train.epochs = 10
  schedular.min_lr: 1e-6               optimizer.final_learning_rate = 1e-6
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 1           optimizer.warmup_steps = 100        units of 100 iterations (NLVR.py)
  max_words: 30                        data.max_words = 30                 dataset/nlvr_dataset.py
  scale: (0.5, 1.0)                    data.crop_scale = (0.5, 1.0)        dataset/__init__.py

- Sentences are cut to 40 tokens; there to no number of tokens.
- The teacher starts as a copy of the student after loading; there before, so that it has other weights at first.
- The mean rate over the run is the recipe's, 1.13e-5; the checkpoint is chosen on `val` (dev) after every epoch, as
  there.

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "nlvr2"
    c.init.weights = ("runs/paper/nlvr2_pretrain",)
    c.data.name = "nlvr2"
    c.data.train_split = "train"
    c.data.max_tokens = 40
    c.optimizer.warmup_steps = 100
    c.train.batch_size = 128
    c.train.epochs = 10
    c.train.eval_steps = 674  # one epoch of 86,373 statements
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    c.eval.max_tokens = c.eval.max_words = 0
    return c
