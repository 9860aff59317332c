"""Hypotheses about drawn scenes in three classes, from a model pretrained on scenes.

  cbalign train --config=configs/snli_ve_scenes.py --workdir=runs/snli_ve_scenes
  cbalign evaluate --workdir=runs/snli_ve_scenes --split=test

From scratch with the same budget: --config.init.weights=() and another --workdir.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "snli_ve"
    c.data.name = "scenes_ve"
    c.train.batch_size = 64
    c.train.steps = 2400
    return c
