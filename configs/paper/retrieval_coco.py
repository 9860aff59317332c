"""Image-text retrieval on COCO at full size, from a pretrained model (ALBEF's recipe, `configs/Retrieval_coco.yaml`).

  cbalign data build coco_karpathy --manual-dir=DIR
  cbalign train --config=paper/retrieval_coco --workdir=runs/paper/retrieval_coco
  cbalign evaluate --workdir=runs/paper/retrieval_coco --split=test     # 5K, re-ranks the top 256

An epoch of ALBEF's recipe is a pass over captions, five per image. Here it is a pass over images with one caption each,
so 25 epochs correspond to the recipe's 5. In addition to the recipe's losses, the intra-modal and codebook losses of
pretraining are used. Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.task = "retrieval"
    c.init.weights = ("runs/paper/pretrain",)
    c.data.name = "coco_karpathy"
    c.data.plain_rgb = True  # as published
    c.data.image_size = 384
    c.data.max_tokens = 30
    c.data.crop_scale = (0.5, 1.0)
    c.contrast.joint_positives = True
    c.contrast.alpha_ramp_steps = 2210  # the recipe's first epoch
    c.itm.group_size = 32  # the batch of one device, as in the recipe
    c.loss_weights.mlm = 0.0
    c.optimizer.schedule = "albef"
    c.optimizer.learning_rate = 1e-5
    c.optimizer.final_learning_rate = 1e-6
    c.optimizer.warmup_steps = 0  # the recipe's 100 steps warm up from 1e-5 to 1e-5
    c.optimizer.groups = (
        ("temperature/.*", 1.0, 0.0),
        ("codebook/.*", 1.0, 0.0),
        ("masked_token_head/.*", 0.0, 0.0),  # not trained here
        (".*/(bias|scale)", 1.0, 0.0),
        (".*", 1.0, 1.0),
    )
    c.train.batch_size = 256
    c.train.epochs = 25
    c.train.eval_steps = 2210
    c.eval.best_split = "val"
    c.eval.best_score = "itm"
    c.eval.batch_size = 64
    c.eval.rerank_top_k = 256
    c.eval.baselines = False
    c.protocol.name = "fine-tuned COCO 5K"
    c.protocol.task = "retrieval"
    c.protocol.trained_on = "coco_karpathy"
    c.protocol.data = "coco_karpathy"
    c.protocol.image_size = 384
    return c
