"""A small CODIS on real emoji images, from random parameters; `configs/emoji.py` starts from released weights.

  cbalign train --config=emoji_scratch --workdir=runs/emoji_scratch
  cbalign evaluate --workdir=runs/emoji_scratch --split=test_vendor --split=test_concept

Hardware: one of 2 CPU cores (taskset), AMD EPYC; with both cores otherwise idle, training takes under 7 minutes.
Hyperparameters were selected on val_vendor and val_concept only. Results of 2026-11-24 (mean of seeds 0, 1 and 2,
contrastive score, %):
  test_vendor   TR@1/5/10 20.6 41.8 52.7   IR@1/5/10 21.8 43.6 55.3   (1,599-way; chance 0.06 0.3 0.6)
  test_concept  TR@1/5/10  9.7 26.3 34.5   IR@1/5/10  8.2 25.8 34.5   (200-way; chance 0.5 2.5 5.0)
Reference losses (seed 0), averaged over the 50 steps up to 50, 450, 900 and 1,800:
  loss 29.02 20.23 17.61 15.09; ica 5.88 3.79 3.01 2.30; ot 1.85 0.88 0.70 0.63; i2p 6.42 4.60 4.22 3.91;
  t2p 6.45 4.63 4.19 3.87; itm 0.64 0.64 0.63 0.50; mlm 7.78 5.70 4.86 3.86
and per epoch, as in losses.json, for epochs 1, 2, 4, 8, 12 and 16 (115 steps each, the last one 75; 2026-11-25):
  loss 28.04 24.14 20.34 17.72 15.90 15.18; ica 5.63 4.74 3.82 3.03 2.51 2.32; ot 1.72 1.33 0.92 0.71 0.64 0.63;
  i2p 6.28 5.51 4.62 4.24 4.02 3.93; t2p 6.30 5.37 4.61 4.20 3.97 3.88; itm 0.64 0.64 0.64 0.63 0.56 0.50;
  mlm 7.46 6.55 5.73 4.91 4.19 3.92
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
