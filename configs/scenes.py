"""A small CODIS on drawn scenes.

  cbalign train --config=scenes --workdir=runs/scenes
  cbalign evaluate --workdir=runs/scenes --split=test

Hardware: one of 2 CPU cores (taskset), AMD EPYC, 7 minutes including compilation. Results of seed 0 on 2026-11-25 (full
descriptions, 1,000 test scenes, %):
  contrastive score   TR@1/5/10 79.9 99.7 100   IR@1/5/10 80.0 100 100   (chance 0.1 0.5 1.0)
  sum of both         TR@1/5/10 85.5 99.9 100   IR@1/5/10 86.4 100 100
Mean losses over the 50 steps up to 50, 350 and 700:
  loss 25.84 12.30 10.86; ica 5.79 1.79 1.43; ot 1.87 0.88 0.82; i2p 6.44 3.85 3.71; t2p 6.43 3.85 3.69;
  itm 0.64 0.42 0.24; mlm 4.68 1.51 0.97
and per epoch, as in losses.json (312, 312 and 76 steps):
  loss 17.89 11.45 10.87; ica 3.26 1.56 1.43; ot 1.35 0.85 0.82; i2p 4.93 3.78 3.71; t2p 4.87 3.77 3.69;
  itm 0.57 0.33 0.24; mlm 2.91 1.16 0.97
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji_scratch.py")
    c.data.name = "scenes"
    c.data.image_size = 48
    c.model.patch_size = 12  # four patches in each quarter of the image
    c.data.max_tokens = 25
    c.data.vocabulary_size = 200
    c.data.crop_scale = (0.8, 1.0)
    c.model.max_positions = 25
    c.contrast.alpha_ramp_steps = 500
    c.contrast.joint_positives = False  # no two images show the same scene
    c.mlm.max_predictions = 4
    c.optimizer.learning_rate = 1e-3
    c.train.steps = 700
    c.train.checkpoint_steps = 350
    c.train.eval_steps = 350
    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    return c
