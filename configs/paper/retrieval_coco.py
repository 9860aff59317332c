"""Image-text retrieval on COCO at full size, from a pretrained model.

  cbalign data build coco_karpathy --manual-dir=DIR
  cbalign train --config=paper/retrieval_coco --workdir=runs/paper/retrieval_coco
  cbalign evaluate --workdir=runs/paper/retrieval_coco --split=test     # 5K, re-ranks the top 256

ALBEF's and TCL's recipe (their `configs/Retrieval_coco.yaml` hold the same numbers) and what is here:

  image_res: 384                       data.image_size = 384
  batch_size_train: 32                 train.batch_size = 256              on each of 8 GPUs
  batch_size_test: 64                  eval.batch_size = 64
  queue_size: 65536                    queue.size = 65536
  momentum: 0.995                      teacher.momentum = 0.995
  vision_width: 768                    model.image_width = 768
  embed_dim: 256                       model.embed_dim = 256
  temp: 0.07                           contrast.temperature = 0.07
  k_test: 256                          eval.rerank_top_k = 256
  alpha: 0.4                           contrast.alpha = 0.4
  warm_up: True                        contrast.alpha_ramp_steps = -1      over the first epoch
  optimizer.lr: 1e-5                   optimizer.learning_rate = 1e-5
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 5                  train.epochs = 5
  schedular.min_lr: 1e-6               optimizer.final_learning_rate = 1e-6
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 1           optimizer.warmup_steps = 100        from 1e-5 to 1e-5, without effect
  max_length: 30                       data.max_tokens = 30                Retrieval.py
  max_words: 30                        data.max_words = 30                 dataset/caption_dataset.py
  scale: (0.5, 1.0)                    data.crop_scale = (0.5, 1.0)        dataset/__init__.py

- An epoch passes over pairs, five an image, as there; the rate is constant within an epoch, so that its mean over the
  run is the same, 6.40e-6.
- In training too, texts are cut to 30 tokens; there only in evaluation.
- Beside the recipe's losses, the intra-modal and codebook losses of pretraining are on (`paper/albef_retrieval_coco`
  has the recipe's alone), and the temperature is kept in its range and not weight-decayed.
- Hard negatives come from groups of 32 pairs, the batch of one GPU; keys are the global batch and the queue.
- The checkpoint is chosen by the mean recall of `val` after every epoch, as there.

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.task = "retrieval"
    c.init.weights = ("runs/paper/pretrain",)
    c.data.name = "coco_karpathy"
    c.data.plain_rgb = True  # as published
    c.data.epoch_over = "pairs"
    c.data.image_size = 384
    c.data.max_tokens = 30
    c.data.crop_scale = (0.5, 1.0)
    c.contrast.joint_positives = True
    c.itm.group_size = 32
    c.loss_weights.mlm = 0.0
    c.optimizer.schedule = "albef"
    c.optimizer.learning_rate = 1e-5
    c.optimizer.final_learning_rate = 1e-6
    c.optimizer.warmup_steps = 100
    c.optimizer.groups = (
        ("temperature/.*", 1.0, 0.0),
        ("codebook/.*", 1.0, 0.0),
        ("masked_token_head/.*", 0.0, 0.0),  # not trained here
        (".*/(bias|scale)", 1.0, 0.0),
        (".*", 1.0, 1.0),
    )
    c.train.batch_size = 256
    c.train.epochs = 5
    c.train.eval_steps = 2213  # one epoch of 566,747 captions
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
