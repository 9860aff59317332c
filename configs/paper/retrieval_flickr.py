"""Image-text retrieval on Flickr30K at full size, from a pretrained model (ALBEF's recipe, `Retrieval_flickr.yaml`).

  cbalign data build flickr30k_karpathy --manual-dir=DIR
  cbalign train --config=paper/retrieval_flickr --workdir=runs/paper/retrieval_flickr
  cbalign evaluate --workdir=runs/paper/retrieval_flickr --split=test     # 1K, re-ranks the top 128

50 epochs over images correspond to the recipe's 10 over captions, see `paper/retrieval_coco`. Written for 8
accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "retrieval_coco.py")
    c.data.name = "flickr30k_karpathy"
    c.contrast.alpha_ramp_steps = 565
    c.train.epochs = 50
    c.train.eval_steps = 565
    c.eval.rerank_top_k = 128
    c.protocol.name = "fine-tuned Flickr30K 1K"
    c.protocol.trained_on = "flickr30k_karpathy"
    c.protocol.data = "flickr30k_karpathy"
    return c
