"""The emoji model with more pixels and more time.

  cbalign train --config=configs/emoji_long.py --workdir=runs/emoji_long

Hardware: one of 2 CPU cores (taskset). Reached by seed 0 on 2026-11-23 (contrastive score, %): val_vendor TR@1/5/10 34.0 61.3 71.8,
IR@1/5/10 36.5 66.1 77.0; val_concept R@10 38.3 and 39.3. Below the nearest neighbour on raw pixels in TR@1.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji.py")
    c.data.image_size = 36
    c.data.crop_scale = (0.6, 1.0)
    c.model.patch_size = 6
    c.model.dropout = 0.1
    # What this run is after is retrieval by the contrastive score; matching and masked tokens take half of the time.
    c.loss_weights.itm = 0.0
    c.loss_weights.mlm = 0.0
    c.contrast.alpha_ramp_steps = 3000
    c.queue.size = 4096
    c.teacher.momentum = 0.99
    c.optimizer.learning_rate = 1.5e-3
    c.optimizer.weight_decay = 0.1
    c.train.steps = 11000
    c.train.log_steps = 100
    c.train.eval_steps = 1100
    c.train.checkpoint_steps = 550
    return c
