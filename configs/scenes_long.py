"""A longer pretraining on drawn scenes, for the tasks to start from: more masked words, a second fusion layer.

  cbalign train --config=configs/scenes_long.py --workdir=runs/scenes_long
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes.py")
    c.data.crop_scale = (0.9, 1.0)
    c.data.second_view = False
    c.model.fusion_depth = 2
    c.mlm.probability = 0.3
    c.mlm.max_predictions = 7
    c.train.steps = 6000
    c.train.log_steps = 100
    c.train.checkpoint_steps = 500
    c.train.eval_steps = 2000
    return c
