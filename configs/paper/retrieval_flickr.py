"""Image-text retrieval on Flickr30K at full size, from a pretrained model.

  cbalign data build flickr30k_karpathy --manual-dir=DIR
  cbalign train --config=paper/retrieval_flickr --workdir=runs/paper/retrieval_flickr
  cbalign evaluate --workdir=runs/paper/retrieval_flickr --split=test     # 1K, re-ranks the top 128

ALBEF's and TCL's recipe (`configs/Retrieval_flickr.yaml`, which is that of COCO but for two lines) and what is here:

  k_test: 128                          eval.rerank_top_k = 128
  schedular.epochs: 10                 train.epochs = 10
  batch_size_train: 32                 train.batch_size = 256              on each of 8 GPUs
  optimizer.lr: 1e-5                   optimizer.learning_rate = 1e-5
  schedular.min_lr: 1e-6               optimizer.final_learning_rate = 1e-6

The mean rate over the run is the recipe's, 5.95e-6. The other lines, and what differs, are in `paper/retrieval_coco`.
Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "retrieval_coco.py")
    c.data.name = "flickr30k_karpathy"
    c.train.epochs = 10
    c.train.eval_steps = 566  # one epoch of 145,000 captions
    c.eval.rerank_top_k = 128
    c.protocol.name = "fine-tuned Flickr30K 1K"
    c.protocol.trained_on = "flickr30k_karpathy"
    c.protocol.data = "flickr30k_karpathy"
    return c
