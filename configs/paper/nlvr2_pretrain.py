"""Text assignment at full size, the stage between pretraining and NLVR2.

  cbalign train --config=paper/nlvr2_pretrain --workdir=runs/paper/nlvr2_pretrain

ALBEF's and TCL's recipe (their `configs/NLVR_pretrain.yaml` hold the same numbers) and what is here:

  image_res: 256                       data.image_size = 256
  vision_width: 768                    model.image_width = 768
  embed_dim: 256                       model.embed_dim = 256
  batch_size: 64                       train.batch_size = 512              on each of 8 GPUs
  optimizer.lr: 2e-5                   optimizer.learning_rate = 2e-5
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 1                  train.epochs = 1
  schedular.min_lr: 1e-5               optimizer.final_learning_rate = 1e-5
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 1           optimizer.warmup_steps = 100        units of 100 iterations (Pretrain_nlvr.py)
  max_length: 25                       data.max_tokens = 25                Pretrain_nlvr.py
  max_words: 30                        data.max_words = 30                 dataset/caption_dataset.py
  scale: (0.2, 1.0)                    data.crop_scale = (0.2, 1.0)        dataset/__init__.py

- The epoch passes over pairs, as there, and keeps the peak rate after the warm-up, as there: of a single epoch nothing
  falls. Its mean is the recipe's, 1.99e-5.
- Distractors come from groups of 64 rows, the batch of one GPU there, and never have the row's own id.

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "nlvr2_pretrain"
    c.data.name = "coco_karpathy+visual_genome+sbu+cc3m"
    c.data.train_split = "train"
    c.data.epoch_over = "pairs"
    c.data.image_size = 256
    c.data.crop_scale = (0.2, 1.0)
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.warmup_steps = 100
    c.train.batch_size = 512
    c.train.epochs = 1
    c.eval.max_tokens = c.eval.max_words = 0
    return c
