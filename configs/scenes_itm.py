"""Continues scenes_long with image-text matching, which compares the text as a whole with the image.

  cbalign train --config=scenes_long --workdir=runs/scenes_long
  cbalign train --config=scenes_itm --workdir=runs/scenes_itm

Hardware: one of 2 CPU cores (AMD EPYC), 12 minutes. Results of seed 0 on 2026-11-25 (contrastive score on val, %):
TR@1 97.5, IR@1 97.4. Mean losses over the 100 steps up to 100, 300, 600 and 1,000:
  itm 0.50 0.23 0.13 0.06; mlm 0.24 0.29 0.25 0.21; ica 0.22 0.28 0.21 0.23

Matching is learned quickly once words are grounded in shapes. The downstream tasks start from this run because they
benefit from matching: starting from 1,500 steps of scenes_long without it, text assignment was still at chance after
300 steps (loss 1.09); with 800 steps of matching in between, it reached 72 % after 200.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes_long.py")
    c.init.weights = ("runs/scenes_long",)
    c.loss_weights.itm = 1.0
    c.train.steps = 1000
    return c
