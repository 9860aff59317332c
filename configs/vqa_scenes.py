"""Questions about drawn scenes, from a model pretrained on scenes."""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes.py")
    c.task = "vqa"
    c.init.weights = ("runs/scenes",)
    c.data.name = "scenes_vqa"
    c.data.crop_scale = (0.95, 1.0)
    c.data.second_view = False
    c.data.vocabulary_size = 300
    c.contrast.alpha = 0.0
    c.vqa.answer_tokens = 5
    c.vqa.answers_per_question = 1  # all people say the same
    c.vqa.rank_top_k = 8
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 100
    c.optimizer.groups = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
    c.train.batch_size = 64
    c.train.steps = 1500
    c.train.log_steps = 50
    c.train.eval_steps = 500
    c.train.checkpoint_steps = 500
    c.eval.splits = ("val[:1000]",)
    c.eval.best_split = ""
    return c
