"""CODIS on real emoji images, from the weights that come with the package (`configs/icons.py`).

  cbalign train --config=emoji --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept

`configs/emoji_scratch.py` is the same from random parameters.
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
