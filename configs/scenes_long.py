"""A longer pretraining on drawn scenes, for the tasks to start from: more masked words, a second fusion layer.

  cbalign train --config=configs/scenes_long.py --workdir=runs/scenes_long
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes.py")
    c.data.crop_scale = (0.95, 1.0)
    c.data.second_view = False
    c.model.fusion_depth = 2
    c.mlm.probability = 0.4
    c.mlm.max_predictions = 9
    c.loss_weights.itm = 0.0  # no task takes its head over, and it would cost four tenths of the time
    c.contrast.alpha = 0.0  # hard targets: the teacher's would cost another tenth
    c.train.steps = 6000
    c.train.log_steps = 100
    c.train.checkpoint_steps = 500
    c.train.eval_steps = 0
    return c
