"""Zero-shot retrieval on Flickr30K 1K as reported by ALBEF, TCL and CODIS: the model fine-tuned on COCO, at 384 px.

  cbalign train --config=paper/retrieval_coco --workdir=runs/paper/retrieval_coco
  cbalign evaluate --workdir=runs/paper/retrieval_coco --config=paper/zero_shot_flickr

ALBEF's and TCL's `configs/Retrieval_flickr.yaml` and what is here:

  image_res: 384                       data.image_size = 384
  batch_size_test: 64                  eval.batch_size = 64
  k_test: 128                          eval.rerank_top_k = 128
  max_length: 30                       data.max_tokens = 30                Retrieval.py
  max_words: 30                        data.max_words = 30                 dataset/caption_dataset.py

The pretrained model scores lower; a result of that model under this config carries a note about the deviation. This
config is for evaluation only.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "retrieval_flickr.py")
    c.eval.splits = ("test",)
    c.eval.best_split = ""
    c.protocol.name = "zero-shot Flickr30K 1K"
    c.protocol.trained_on = "coco_karpathy"
    return c
