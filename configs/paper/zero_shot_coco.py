"""Zero-shot retrieval on COCO 5K with the pretrained model: images of 384 px, re-ranking of the top 256.

  cbalign train --config=paper/pretrain --workdir=runs/paper/pretrain
  cbalign evaluate --workdir=runs/paper/pretrain --config=paper/zero_shot_coco

ALBEF and TCL evaluate with their fine-tuning config, `configs/Retrieval_coco.yaml`, hence the resolution:

  image_res: 384                       data.image_size = 384
  batch_size_test: 64                  eval.batch_size = 64
  k_test: 256                          eval.rerank_top_k = 256
  max_length: 30                       data.max_tokens = 30                Retrieval.py
  max_words: 30                        data.max_words = 30                 dataset/caption_dataset.py

Position embeddings of a model trained at 256 px are interpolated. This config is for evaluation only.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "retrieval_coco.py")
    c.eval.splits = ("test",)
    c.eval.best_split = ""
    c.protocol.name = "zero-shot COCO 5K"
    c.protocol.task = "pretrain"
    c.protocol.trained_on = ""
    return c
