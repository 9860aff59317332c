"""Statements about two drawn scenes, from a model pretrained on scenes.

  cbalign train --config=configs/nlvr2_scenes.py --workdir=runs/nlvr2_scenes
  cbalign evaluate --workdir=runs/nlvr2_scenes --split=test

From scratch with the same budget: --config.init.weights=() and another --workdir.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "nlvr2"
    c.init.weights = ("runs/nlvr2_scenes_pretrain",)
    c.data.name = "scenes_nlvr2"
    c.data.max_tokens = 10  # no statement is longer
    c.optimizer.learning_rate = 2e-4  # at 6e-4 it stays at chance
    c.train.steps = 2800
    return c
