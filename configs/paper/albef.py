"""ALBEF as published, with this code: its losses and released settings, without a codebook, on the same 4M images.

  cbalign train --config=paper/albef --workdir=runs/paper/albef --config.init.weights=weights/deit,weights/bert
  cbalign evaluate --workdir=runs/paper/albef --config=paper/zero_shot_coco

To check the pipeline by figures that everyone knows (zero-shot on COCO, TR@1 68.7 and IR@1 50.1) before trusting new
ones. The recipe is in `paper/pretrain`, line by line. Of the differences named there, these are undone:

- Contrast is across the modalities only, and the teacher sees the student's own view of the image.
- There is no codebook loss; the codes are in the model and nothing trains them.
- The temperature is weight-decayed.

The others remain: the softmax of masked-token distillation, keys of the global batch, negatives without the pair's own
id, 8 masked tokens at most, bfloat16. Not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.data.second_view = False
    c.contrast.terms = ("i2t", "t2i")
    c.loss_weights.code = 0.0
    c.optimizer.groups = (("codebook/.*", 1.0, 0.0), (".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
    return c
