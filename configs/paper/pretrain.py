"""Pretraining at full size on the paper's 4M images (COCO, Visual Genome, SBU, CC3M; about 5M pairs).

  for name in coco_karpathy visual_genome sbu cc3m; do cbalign data build $name --manual-dir=DIR; done
  cbalign plan --config=paper/pretrain --topology=v4-32        # memory and cost
  cbalign train --config=paper/pretrain --workdir=runs/paper/pretrain

ALBEF's and TCL's recipe, which CODIS follows (their `configs/Pretrain.yaml` hold the same numbers), and what is here:

  image_res: 256                       data.image_size = 256
  vision_width: 768                    model.image_width = 768
  embed_dim: 256                       model.embed_dim = 256
  batch_size: 64                       train.batch_size = 512              on each of 8 GPUs
  temp: 0.07                           contrast.temperature = 0.07
  mlm_probability: 0.15                mlm.probability = 0.15
  queue_size: 65536                    queue.size = 65536
  momentum: 0.995                      teacher.momentum = 0.995
  alpha: 0.4                           contrast.alpha = 0.4
  optimizer.lr: 1e-4                   optimizer.learning_rate = 1e-4
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 30                 train.epochs = 30
  schedular.min_lr: 1e-5               optimizer.final_learning_rate = 1e-5
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 20          optimizer.warmup_steps = 2000       units of 100 iterations (Pretrain.py)
  max_length: 25                       data.max_tokens = 25                Pretrain.py
  max_words: 30                        data.max_words = 30                 dataset/caption_dataset.py
  scale: (0.2, 1.0)                    data.crop_scale = (0.2, 1.0)        dataset/__init__.py
  fusion_layer: 6                      model.text_depth = 6                configs/config_bert.json
  hidden_dropout_prob: 0.1             model.dropout = 0.1                 configs/config_bert.json

- An epoch passes over pairs, each once, as over the recipe's lists; of COCO 11 %, of Visual Genome 15 %. The recipe
  also trains on CC3M's 16 thousand validation pairs (0.3 %).
- The rate rises in stairs and is constant within an epoch, as there, so that its mean over the run is the same,
  5.62e-5.
- Masked-token distillation takes its softmax over the vocabulary; the published figures predate that fix there.
- Keys of the contrast are the global batch and the queue; there the batch of one GPU and the queue.
- Hard negatives come from groups of 64 pairs, as there, but never have the pair's own id.
- Neither temperature nor codes are weight-decayed; there the temperature is.
- At most 8 tokens of a text are masked; there any number is (more than 8 of 24 in 0.6 % of the longest texts).
- Matrix products are in bfloat16; there float32.
- TCL adds colour jitter, greyscale and blur (data.color = (0.8, 0.2, 0.5)), hard intra-modal targets, and a local loss.

ALBEF and TCL start from DeiT-B and BERT-base; `cbalign convert` converts both, for
--config.init.weights=weights/deit,weights/bert. Not yet run at full size; `cbalign plan` compiles it for hardware you
do not have.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.data.name = "coco_karpathy+visual_genome+sbu+cc3m"
    c.data.plain_rgb = True  # as published
    c.data.epoch_over = "pairs"
    c.model.dtype = "bfloat16"
    c.optimizer.schedule = "albef"
    return c
