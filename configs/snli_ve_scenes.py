"""Hypotheses about drawn scenes in three classes, from a model pretrained on scenes."""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa_scenes.py")
    c.task = "snli_ve"
    c.data.name = "scenes_ve"
    c.eval.splits = ("val[:1000]",)
    return c
