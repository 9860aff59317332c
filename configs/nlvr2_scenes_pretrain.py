"""Text assignment on drawn scenes, the step between pretraining and statements about two scenes."""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "nlvr2_pretrain"
    c.data.name = "scenes"
    c.train.steps = 400
    c.eval.splits = ("val",)
    return c
