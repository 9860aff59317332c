"""CODIS on real emoji images, from the weights that come with the package (`configs/icons.py`).

  cbalign train --config=emoji --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept

`configs/emoji_scratch.py` is a smaller model from random parameters. The weights were trained on the train split too,
never on the vendor and the concepts of the test splits.

Hardware: both of 2 CPU cores, AMD EPYC: 7 minutes with start and compilation. Seed 0, 2026-11-26, contrastive score, %:
  val_vendor    TR@1/5/10 42.2 68.0 76.4   IR@1/5/10 44.3 70.2 78.0
  val_concept   TR@1/5/10 25.5 41.8 51.5   IR@1/5/10 25.0 45.9 53.1
  test_vendor   TR@1/5/10 47.0 76.5 85.0   IR@1/5/10 46.7 76.6 86.0   (before training: 38.9 71.9 82.2, 39.0 72.1 82.4;
                at 40 px: pixel nearest neighbour TR 46.2 62.3 68.4; bag of words TR 24.6 38.9 45.6, IR 31.3 50.5 57.0)
  test_concept  TR@1/5/10 23.5 46.5 57.0   IR@1/5/10 24.0 44.5 56.0   (before training: 19.5 42.5 51.5, 21.5 44.5 57.5;
                bag of words: TR 6.5 22.0 30.0, IR 12.0 25.0 33.5)
Reference losses (seed 0), averaged over the 30 steps up to 30, 150 and 330:
  loss 19.86 18.29 16.98; ica 2.13 2.86 2.65; ot 0.97 0.82 0.76; i2p 5.31 4.50 4.27; t2p 5.32 4.45 4.25;
  itm 0.54 0.45 0.35; mlm 5.59 5.20 4.70
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "icons.py")
    c.data.name = "emoji"
    c.init.weights = ("icons",)
    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup_steps = 50
    c.contrast.alpha_ramp_steps = 0
    c.train.steps = 330
    c.train.log_steps = 30
    c.train.checkpoint_steps = 165
    c.train.eval_steps = 165

    c.eval.splits = ("val_vendor", "val_concept")
    c.eval.best_split = "val_vendor"
    c.eval.baselines = True
    return c
