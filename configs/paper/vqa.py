"""VQA v2 at full size, from a pretrained model (ALBEF's recipe, `configs/VQA.yaml`).

  cbalign data build vqa_v2 --manual-dir=DIR
  cbalign train --config=paper/vqa --workdir=runs/paper/vqa
  cbalign evaluate --workdir=runs/paper/vqa --split=test     # writes the file for the evaluation server

`paper/vqa_val` trains on `train` only and evaluates on `val`. Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.task = "vqa"
    c.init.weights = ("runs/paper/pretrain",)
    c.data.name = "vqa_v2"
    c.data.plain_rgb = True  # as published
    c.data.train_split = "train+val+vg"
    c.data.image_size = 384
    c.data.crop_scale = (0.5, 1.0)
    c.data.second_view = False
    c.optimizer.schedule = "albef"
    c.optimizer.learning_rate = 2e-5
    c.optimizer.final_learning_rate = 1e-6
    c.optimizer.warmup_steps = 400
    c.optimizer.groups = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
    c.train.batch_size = 256
    c.train.epochs = 8
    c.eval.splits = ()  # val is used for training; the answers of test are not public
    c.eval.batch_size = 128
    return c
