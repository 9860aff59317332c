"""Statements about two drawn scenes, from a model pretrained on scenes."""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "nlvr2"
    c.data.name = "scenes_nlvr2"
    c.eval.splits = ("val[:1000]",)
    return c
