"""A small CODIS on drawn scenes.

  cbalign train --config=configs/scenes.py --workdir=runs/scenes
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.data.name = "scenes"
    c.data.image_size = 48
    c.data.max_tokens = 24
    c.data.vocabulary = ""
    c.data.vocabulary_size = 200
    c.data.crop_scale = (0.8, 1.0)
    c.data.flip = False  # captions say left and right
    c.data.rand_augment = False  # captions say colours

    c.model.patch_size = 8
    c.model.image_width = 128
    c.model.image_depth = 3
    c.model.image_heads = 4
    c.model.text_width = 128
    c.model.text_depth = 2
    c.model.text_heads = 4
    c.model.fusion_depth = 1
    c.model.max_positions = 24
    c.model.embed_dim = 128
    c.model.dropout = 0.0
    c.model.init_std = 0.08

    c.contrast.alpha_ramp_steps = 500
    c.codebook.num_codes = 500
    c.queue.size = 2048
    c.teacher.momentum = 0.98
    c.mlm.max_predictions = 4

    c.optimizer.learning_rate = 2e-3
    c.optimizer.final_learning_rate = 0.0
    c.optimizer.warmup_learning_rate = 0.0
    c.optimizer.warmup_steps = 100
    c.optimizer.b2 = 0.98
    c.optimizer.weight_decay = 0.05
    c.optimizer.clip_norm = 1.0
    c.optimizer.groups = (
        ("temperature/.*", 0.1, 0.0),
        ("codebook/.*", 1.0, 0.0),
        (".*/(bias|scale)", 1.0, 0.0),
        (".*", 1.0, 1.0),
    )

    c.train.batch_size = 64
    c.train.epochs = 0
    c.train.steps = 1200
    c.train.checkpoint_steps = 300

    c.eval.splits = ("val",)
    c.eval.best_split = "val"
    c.eval.captions_per_image = 1
    return c
