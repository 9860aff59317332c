"""A small CODIS on real emoji pictures.

  cbalign train --config=configs/emoji.py --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept

Hardware: one of 2 CPU cores (taskset), AMD EPYC. Settings were compared on val_vendor and val_concept only. Reached on
2026-11-24 (mean of seeds 0, 1 and 2, contrastive score, %):
  test_vendor   TR@1/5/10 26.0 48.7 60.0   IR@1/5/10 27.8 50.7 62.3   (1,599-way; chance 0.06 0.3 0.6)
  test_concept  TR@1/5/10 12.7 27.2 34.8   IR@1/5/10 11.7 26.8 35.5   (200-way; chance 0.5 2.5 5.0)
Mean losses of steps 1-50, 751-800, 1551-1600 and 3151-3200 (seed 0), to tell a broken run by:
  loss 29.01 18.42 15.62 12.80; ica 5.87 3.23 2.47 1.74; ot 1.85 0.72 0.61 0.60; i2p 6.42 4.40 4.07 3.74;
  t2p 6.45 4.39 4.03 3.72; itm 0.64 0.64 0.57 0.27; mlm 7.77 5.05 3.86 2.74
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.data.name = "emoji"
    c.data.image_size = 32
    c.data.max_tokens = 10
    c.data.vocabulary = ""
    c.data.vocabulary_size = 3000
    c.data.crop_scale = (0.9, 1.0)
    c.data.flip = False
    c.data.rand_augment = False
    c.data.threads = 2

    c.model.patch_size = 8
    c.model.image_width = 128
    c.model.image_depth = 3
    c.model.image_heads = 4
    c.model.text_width = 128
    c.model.text_depth = 2
    c.model.text_heads = 4
    c.model.fusion_depth = 1
    c.model.max_positions = 10
    c.model.embed_dim = 128
    c.model.dropout = 0.0
    c.model.init_std = 0.08

    c.contrast.joint_positives = True
    c.contrast.alpha_ramp_steps = 500
    c.codebook.num_codes = 500
    c.queue.size = 2048
    c.teacher.momentum = 0.98
    c.mlm.max_predictions = 2

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
    c.train.steps = 1800
    c.train.log_steps = 50
    c.train.checkpoint_steps = 450
    c.train.eval_steps = 450

    c.eval.splits = ("val_vendor", "val_concept")
    c.eval.best_split = "val_vendor"
    c.eval.captions_per_image = 1
    return c
