"""SNLI-VE at full size, from a pretrained model.

  cbalign data build snli_ve --manual-dir=DIR
  cbalign train --config=paper/snli_ve --workdir=runs/paper/snli_ve
  cbalign evaluate --workdir=runs/paper/snli_ve --split=val --split=test

ALBEF's and TCL's recipe (their `configs/VE.yaml` hold the same numbers) and what is here:

  image_res: 384                       data.image_size = 384
  batch_size_train: 32                 train.batch_size = 256              on each of 8 GPUs
  batch_size_test: 64                  eval.batch_size = 128               differs: no figure changes
  alpha: 0.4                           contrast.alpha = 0.4
  warm_up: False                       contrast.alpha_ramp_steps = 0       from the first step on
  optimizer.lr: 2e-5                   optimizer.learning_rate = 2e-5
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 5                  train.epochs = 5
  schedular.min_lr: 1e-6               optimizer.final_learning_rate = 1e-6
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 1           optimizer.warmup_steps = 100        units of 100 iterations (VE.py)
  max_words: 30                        data.max_words = 30                 dataset/ve_dataset.py
  scale: (0.5, 1.0)                    data.crop_scale = (0.5, 1.0)        dataset/__init__.py

- Sentences are cut to 40 tokens; there to no number of tokens.
- The mean rate over the run is the recipe's, 1.23e-5; the checkpoint is chosen on `val` after every epoch, as there.

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "snli_ve"
    c.data.name = "snli_ve"
    c.data.train_split = "train"
    c.data.max_tokens = 40
    c.contrast.alpha_ramp_steps = 0
    c.optimizer.warmup_steps = 100
    c.train.epochs = 5
    c.train.eval_steps = 2068  # one epoch of 529,527 sentences
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    c.eval.max_tokens = c.eval.max_words = 0
    return c
