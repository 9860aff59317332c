"""Questions about drawn scenes, from a model pretrained on scenes.

  cbalign train --config=configs/scenes_long.py --workdir=runs/scenes_long
  cbalign train --config=configs/scenes_itm.py --workdir=runs/scenes_itm
  cbalign train --config=configs/vqa_scenes.py --workdir=runs/vqa_scenes
  cbalign evaluate --workdir=runs/vqa_scenes --split=test

From scratch with the same budget: --config.init.weights=() and another --workdir.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes_long.py")
    c.task = "vqa"
    c.init.weights = ("runs/scenes_itm",)
    c.data.name = "scenes_vqa"
    c.data.crop_scale = (0.95, 1.0)
    c.data.max_tokens = 14  # no question is longer, with its words in the vocabulary
    c.data.vocabulary_size = 300
    c.contrast.alpha = 0.0  # no teacher: it would cost a third of the time
    c.vqa.answer_tokens = 5
    c.vqa.answers_per_question = 1  # all people say the same
    c.vqa.rank_top_k = 8
    c.optimizer.groups = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
    c.optimizer.learning_rate = 4e-4  # of 1e-3, the pretraining's, what was learned does not survive
    c.train.batch_size = 32
    c.train.steps = 4000
    c.train.log_steps = 50
    c.train.eval_steps = 0
    c.train.checkpoint_steps = 300
    c.eval.splits = ("val[:1000]",)
    c.eval.best_split = ""
    return c
