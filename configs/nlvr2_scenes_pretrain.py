r"""Text assignment on drawn scenes, a step between pretraining and statements about two scenes.

  cbalign train --config=configs/nlvr2_scenes_pretrain.py --workdir=runs/nlvr2_scenes_pretrain
  cbalign train --config=configs/nlvr2_scenes.py --workdir=runs/nlvr2_scenes \
    --config.init.weights=runs/nlvr2_scenes_pretrain
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "nlvr2_pretrain"
    c.data.name = "scenes"
    c.data.max_tokens = 25
    c.train.steps = 600
    return c
