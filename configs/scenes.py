"""A small CODIS on drawn scenes.

  cbalign train --config=configs/scenes.py --workdir=runs/scenes
  cbalign evaluate --workdir=runs/scenes --split=test

Hardware: one of 2 CPU cores (taskset). Reached by seed 0 on 2026-11-23 (AMD EPYC; contrastive score on the 1,000 test scenes, full
descriptions, %): TR@1/5/10 85.1 100 100, IR@1/5/10 91.0 100 100 (chance 0.1 0.5 1.0).
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji.py")
    c.data.name = "scenes"
    c.data.image_size = 48
    c.model.patch_size = 12  # four patches to each quarter of the picture
    c.data.max_tokens = 25
    c.data.vocabulary_size = 200
    c.data.crop_scale = (0.8, 1.0)
    c.model.max_positions = 25
    c.contrast.alpha_ramp_steps = 500
    c.contrast.joint_positives = False  # every scene is its own
    c.mlm.max_predictions = 4
    c.optimizer.learning_rate = 1e-3
    c.train.steps = 1200
    c.train.checkpoint_steps = 300
    c.train.eval_steps = 400
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    return c
