"""Retrieval fine-tuning on drawn scenes, from a model pretrained on scenes.

  cbalign train --config=configs/scenes.py --workdir=runs/scenes
  cbalign train --config=configs/retrieval_scenes.py --workdir=runs/retrieval_scenes
  cbalign evaluate --workdir=runs/retrieval_scenes --split=test

From scratch with the same budget: --config.init.weights=() and another --workdir.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes.py")
    c.task = "retrieval"
    c.init.weights = ("runs/scenes",)
    c.data.second_view = False
    c.data.crop_scale = (0.9, 1.0)
    c.contrast.joint_positives = True
    c.contrast.alpha_ramp_steps = 100
    c.loss_weights.mlm = 0.0
    c.optimizer.learning_rate = 1e-3
    c.optimizer.groups = (
        ("temperature/.*", 0.1, 0.0),
        ("codebook/.*", 1.0, 0.0),
        ("masked_token_head/.*", 0.0, 0.0),
        (".*/(bias|scale)", 1.0, 0.0),
        (".*", 1.0, 1.0),
    )
    c.train.steps = 1000
    c.train.checkpoint_steps = 250
    c.train.eval_steps = 500
    return c
